"""Least squares: exact where the answer is known, and against a plain writing of it."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from families import Data, State, close, family, strangers
from torch import Tensor, nn

import graphmerge as gm
from graphmerge.errors import InputError
from graphmerge.merge import merge_with_report
from graphmerge.merge.gram import Product, products
from graphmerge.merge.pairing import own_order
from models_zoo.architectures import ARCHITECTURES

TINY = 1e-10


def with_one(x: Tensor) -> Tensor:
    return torch.cat([x, torch.ones(len(x), 1).to(x)], 1)


def solution(z: Tensor, y: Tensor, mean: Tensor, ridge: float) -> Tensor:
    """The matrix [unit, feature] of least |z W - y|^2 / rows + ridge x mean square of z x |W - mean|^2."""
    gram = z.T @ z / len(z)
    weight = ridge * gram.diag().mean() * torch.eye(len(gram)).to(gram)
    return torch.linalg.solve(gram + weight, z.T @ y / len(z) + weight @ mean.T).T


def plain(states: tuple[State, State], x: Tensor, shares: tuple[float, float], inputs: str) -> State:
    """The three layers of the MLP, one after the other."""
    expected: State = {}
    theirs, z = [x, x], x
    for k in (0, 2, 4):
        matrices = [torch.cat([s[f"{k}.weight"], s[f"{k}.bias"][:, None]], 1) for s in states]
        given = z if inputs == "merged" else sum(w * t for w, t in zip(shares, theirs, strict=True))
        outputs = [with_one(t) @ m.T for t, m in zip(theirs, matrices, strict=True)]
        y, mean = (sum(w * t for w, t in zip(shares, found, strict=True)) for found in (outputs, matrices))
        merged = solution(with_one(torch.as_tensor(given)), torch.as_tensor(y), torch.as_tensor(mean), 0.1)
        expected |= {f"{k}.weight": merged[:, :-1], f"{k}.bias": merged[:, -1]}
        theirs, z = [out.relu() for out in outputs], (with_one(z) @ merged.T).relu()
    return expected


@pytest.mark.parametrize("shares", [(0.5, 0.5), (0.8, 0.2)])
@pytest.mark.parametrize("inputs", ["merged", "averaged"])
def test_an_mlp_is_solved_layer_by_layer(inputs: str, shares: tuple[float, float]) -> None:
    f = family("mlp")
    x = torch.cat([x for x, _ in f.data[0]])
    found = gm.merge(
        f.graph, f.models, "least-squares", weights=shares, data=f.data[0], inputs=inputs, ridge=0.1
    )
    assert close(found, plain(f.models, x, shares, inputs), 1e-6)


def test_one_layer_with_enough_data_answers_as_the_mean_of_the_models() -> None:
    torch.manual_seed(0)
    model = nn.Linear(4, 3).double()
    graph = gm.trace(model, (torch.randn(2, 4).double(),))
    states = [{"weight": torch.randn(3, 4).double(), "bias": torch.randn(3).double()} for _ in range(2)]
    found = gm.merge(graph, states, "least-squares", data=[(torch.randn(30, 4).double(), None)], ridge=TINY)
    assert close(found, gm.average(states), 1e-6)


def test_where_models_have_data_of_their_own_each_is_answered_as_on_its_own() -> None:
    torch.manual_seed(0)
    model = nn.Linear(2, 1, bias=False).double()
    graph = gm.trace(model, (torch.randn(4, 2).double(),))
    states = [
        {"weight": torch.tensor([[1.0, 7.0]]).double()},
        {"weight": torch.tensor([[9.0, 2.0]]).double()},
    ]
    axes: list[Data] = [[(torch.eye(2).double()[[k] * 4], torch.zeros(4))] for k in range(2)]
    found = gm.merge(graph, states, "least-squares", own_data=axes, ridge=TINY)
    assert torch.allclose(found["weight"], torch.tensor([[1.0, 2.0]]).double(), atol=1e-6)


def test_without_biases_and_with_inputs_of_its_own_for_each_model_the_averaged_kind_is_regmean() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(5, 6, bias=False), nn.ReLU(), nn.Linear(6, 3, bias=False)).double()
    graph = gm.trace(model, (torch.randn(12, 5).double(),))
    states = strangers(model)
    own: list[Data] = [[(torch.randn(12, 5).double(), torch.zeros(12))] for _ in range(2)]
    found = gm.merge(graph, states, "least-squares", own_data=own, inputs="averaged", ridge=TINY)
    assert close(found, gm.merge(graph, states, "regmean", own_data=own, alpha=1.0), 1e-5)


def test_convolutions_of_groups_and_strides_give_back_an_answer_that_they_can_give() -> None:
    """Two models that differ in the first layer by a sign that the second undoes: z tells all."""
    torch.manual_seed(0)
    model = nn.Sequential(
        nn.Conv2d(2, 4, 3, padding=1, groups=2), nn.Tanh(), nn.Conv2d(4, 3, 2, stride=2, bias=False)
    ).double()
    x = torch.randn(20, 2, 6, 6).double()
    graph = gm.trace(model, (x,))
    a = {n: torch.randn_like(t) for n, t in model.state_dict().items()}
    b = {n: t.clone() for n, t in a.items()}
    b["0.weight"][1], b["0.bias"][1] = -a["0.weight"][1], -a["0.bias"][1]
    b["2.weight"][:, 1] = -a["2.weight"][:, 1]
    found = gm.merge(graph, [a, b], "least-squares", weights=(0.75, 0.25), data=[(x, None)], ridge=TINY)
    with torch.no_grad():
        expected, got = (torch.func.functional_call(model, s, (x,)) for s in (a, found))
    assert torch.allclose(found["0.weight"][1], a["0.weight"][1] / 2, atol=1e-6)
    assert torch.nn.functional.mse_loss(got, expected) < 0.01 * expected.var()


class Tied(nn.Module):
    """A bias that two operators add, a weight used twice, and an operator without a bias."""

    def __init__(self) -> None:
        super().__init__()
        self.one, self.two = nn.Parameter(torch.randn(4, 4)), nn.Parameter(torch.randn(4, 4))
        self.shift, self.last = nn.Parameter(torch.randn(4)), nn.Parameter(torch.randn(4, 4))

    def forward(self, x: Tensor) -> Tensor:
        h = F.linear(x, self.one, self.shift).relu()
        h = F.linear(F.linear(h, self.two, self.shift).relu(), self.last).relu()
        return F.linear(h, self.last)


def test_a_bias_that_others_add_too_is_averaged_and_so_is_a_weight_used_twice() -> None:
    torch.manual_seed(0)
    model = Tied()
    graph = gm.trace(model, (torch.randn(6, 4),))
    assert {p.weight: p.bias for p in products(graph.program)[0]} == {"one": None, "two": None, "last": None}
    states = strangers(model)
    _, report = merge_with_report(graph, states, "least-squares", data=[(torch.randn(6, 4), None)])
    assert report.notes["solved"] == ("one", "two")
    assert set(report.notes["averaged"]) == {"shift", "last"}
    assert "more than once" in report.notes["averaged"]["last"]


def test_a_matrix_with_its_bias_has_one_feature_more() -> None:
    p = Product("conv", "weight", "aten::conv2d", 2, "bias")
    matrix = p.matrix(torch.arange(8.0).reshape(4, 2, 1, 1), torch.tensor([10.0, 11, 12, 13]))
    assert matrix.tolist() == [[[0, 1, 10], [2, 3, 11]], [[4, 5, 12], [6, 7, 13]]]


def test_bad_data_is_refused() -> None:
    f = family("mlp")
    with pytest.raises(InputError, match="no batch"):
        gm.merge(f.graph, f.models, "least-squares", data=[])
    with pytest.raises(InputError, match="not finite"):
        gm.merge(f.graph, f.models, "least-squares", data=[(torch.full((4, 5), torch.nan).double(), None)])


class Kept(nn.Module):
    """Three of seven tokens are kept, those of the highest score."""

    def __init__(self) -> None:
        super().__init__()
        self.up, self.score, self.mid = nn.Linear(5, 8), nn.Linear(8, 1), nn.Linear(8, 6)

    def forward(self, x: Tensor) -> Tensor:
        h = self.up(x).relu()
        best = self.score(h).squeeze(-1).topk(3, 1).indices
        out: Tensor = self.mid(h.gather(1, best[..., None].expand(-1, -1, 8)))
        return out


def test_rows_that_each_model_picks_for_itself_are_not_compared() -> None:
    torch.manual_seed(0)
    model = Kept()
    x = torch.randn(6, 7, 5)
    graph = gm.trace(model, (x,))
    states = strangers(model)
    result, report = merge_with_report(graph, states, "least-squares", data=[(x, None)])
    assert set(report.notes["solved"]) == {"up.weight", "up.bias", "score.weight", "score.bias"}
    assert "order of its own" in report.notes["averaged"]["mid.weight"]
    assert torch.allclose(result["mid.weight"], (states[0]["mid.weight"] + states[1]["mid.weight"]) / 2)


def test_tokens_sorted_by_expert_are_comparable_again_once_they_are_back_in_place() -> None:
    pytest.importorskip("transformers")
    architecture = ARCHITECTURES["mixtral"]
    args, kwargs = architecture.inputs()
    graph = gm.trace(architecture.build().eval(), args, kwargs)
    apart = own_order(graph, graph.program)
    nodes = [n.name for n in graph.program.graph.graph.nodes]
    experts = [n for n in nodes if n.startswith("grouped_mm")]
    assert experts
    assert set(experts) <= apart
    assert not {p.node for p in products(graph.program)[0]} & apart
    assert nodes[-2] not in apart
