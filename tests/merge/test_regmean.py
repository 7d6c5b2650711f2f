"""RegMean and RegMean++: exact where the answer is known, and against a plain writing of the papers."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from families import Data, State, close, family, strangers
from torch import Tensor, nn

import graphmerge as gm
from graphmerge.errors import InputError
from graphmerge.merge import merge_with_report
from graphmerge.merge.gram import products
from graphmerge.trace.run import Visit, run_together


def test_on_linear_models_it_is_the_least_squares_solution() -> None:
    torch.manual_seed(0)
    model = nn.Linear(4, 3, bias=False).double()
    graph = gm.trace(model, (torch.randn(2, 4).double(),))
    states = [{"weight": torch.randn(3, 4).double()} for _ in range(2)]
    xs = [torch.randn(30, 4).double() * torch.rand(4).double() for _ in range(2)]
    result = gm.merge(graph, states, "regmean", own_data=[[(x, None)] for x in xs], alpha=1.0)
    targets = torch.cat([x @ s["weight"].T for x, s in zip(xs, states, strict=True)])
    expected = torch.linalg.lstsq(torch.cat(xs), targets).solution.T
    assert torch.allclose(result["weight"], expected, atol=1e-6)


def test_directions_without_data_keep_the_average() -> None:
    model = nn.Linear(3, 2, bias=False)
    graph = gm.trace(model, (torch.randn(2, 3),))
    states = [{"weight": torch.full((2, 3), k)} for k in (1.0, 3.0)]
    seen = [[(torch.tensor([[1.0, 0, 0]] * 4), None)], [(torch.tensor([[0, 1.0, 0]] * 4), None)]]
    result = gm.merge(graph, states, "regmean", own_data=seen)
    assert torch.allclose(result["weight"], torch.tensor([[1.0, 3.0, 2.0]] * 2), atol=1e-5)


def plain(states: list[State], xs: list[Tensor], name: str, alpha: float) -> Tensor:
    """Equation 2 of the paper for one linear weight, with off-diagonals scaled (section 3.3)."""
    left, right = 0, 0
    for s, x in zip(states, xs, strict=True):
        gram = x.T @ x
        gram = alpha * gram + (1 - alpha) * torch.diag(gram.diag())
        left, right = left + gram, right + gram @ s[name].T
    return torch.linalg.solve(left, right).T


@pytest.mark.parametrize("method", ["regmean", "regmean++"])
def test_an_mlp_is_merged_layer_by_layer_as_in_the_papers(method: str) -> None:
    f = family("mlp")
    states, data = list(f.models), [torch.cat([x for x, _ in d]) for d in f.data]
    expected = {n: (states[0][n] + states[1][n]) / 2 for n in states[0]}
    xs = list(data)
    for k in (0, 2, 4):
        weight, bias = f"{k}.weight", f"{k}.bias"
        expected[weight] = plain(states, xs, weight, 0.8)
        if method == "regmean":
            xs = [F.linear(x, s[weight], s[bias]).relu() for x, s in zip(xs, states, strict=True)]
        else:
            xs = [F.linear(x, expected[weight], expected[bias]).relu() for x in xs]
    assert close(gm.merge(f.graph, states, method, own_data=f.data, alpha=0.8), expected, 1e-6)


def test_weights_are_shares_of_the_models() -> None:
    f = family("mlp")
    result = gm.merge(f.graph, f.models, "regmean", weights=(3, 1), own_data=f.data, alpha=1.0)
    x, y = (torch.cat([x for x, _ in d]) for d in f.data)
    expected = plain([*f.models[:1] * 3, f.models[1]], [x, x, x, y], "0.weight", 1.0)
    assert torch.allclose(result["0.weight"], expected, atol=1e-6)
    assert torch.allclose(result["0.bias"], 0.75 * f.models[0]["0.bias"] + 0.25 * f.models[1]["0.bias"])


CONVOLUTIONS = [
    nn.Conv1d(4, 6, 3, stride=2, padding=1),
    nn.Conv2d(4, 6, 3, padding=(1, 0), dilation=2),
    nn.Conv2d(4, 6, (3, 2), stride=(1, 2), groups=2),
    nn.Conv2d(4, 8, 2, groups=4, padding="same"),
    nn.Conv2d(4, 4, 3, padding="valid", bias=False),
    nn.Conv3d(4, 6, (1, 2, 3), padding=(0, 1, 1)),
]


@pytest.mark.parametrize("layer", CONVOLUTIONS, ids=str)
def test_a_convolution_is_its_patches_times_its_matrix(layer: nn.Conv2d) -> None:
    torch.manual_seed(0)
    x = torch.randn(2, 4, *[5, 6, 4][: layer.weight.ndim - 2])
    program = gm.trace(layer, (x,)).program
    ((product,), _) = products(program)
    seen: list[Visit] = []
    run_together(program, [(layer.state_dict(), ((x,), {}))], {product.node}, lambda v: seen.extend(v))
    (rows,) = product.rows(seen[0])
    matrix = product.matrix(layer.weight)
    out = (rows.float() @ matrix.mT).detach()  # [group, place, unit]
    bias = torch.zeros(layer.out_channels) if layer.bias is None else layer.bias
    expected = (layer(x) - bias.reshape(-1, *[1] * (x.ndim - 2))).detach()
    assert torch.allclose(out.permute(1, 0, 2).flatten(1), expected.movedim(1, -1).flatten(0, -2), atol=1e-5)
    assert torch.equal(product.weight_of(matrix, layer.weight), layer.weight)


class Mixed(nn.Module):
    """A weight used twice, a transposed convolution, an addmm, an embedding tied to the head."""

    def __init__(self) -> None:
        super().__init__()
        self.tokens, self.twice = nn.Embedding(9, 4), nn.Linear(4, 4)
        self.up = nn.ConvTranspose1d(4, 4, 2, stride=2)
        self.square, self.shift = nn.Parameter(torch.randn(4, 4)), nn.Parameter(torch.randn(4))

    def forward(self, x: Tensor) -> Tensor:
        h = torch.relu(self.twice(torch.relu(self.twice(self.tokens(x)))))
        h = self.up(h.mT).mT
        h = torch.addmm(self.shift, h.reshape(-1, 4), self.square).reshape(h.shape)
        return F.linear(h, self.tokens.weight)


def test_the_report_says_what_was_solved_and_why_the_rest_was_averaged() -> None:
    torch.manual_seed(0)
    model = Mixed()
    x = torch.randint(0, 9, (5, 3))
    graph = gm.trace(model, (x,))
    states = strangers(model)
    data: Data = [(x, x)]
    result, report = merge_with_report(graph, states, "regmean", data=data)
    assert set(report.notes["solved"]) == {"twice.weight", "square"}
    assert "embedding" in report.notes["averaged"]["tokens.weight"]
    assert "transposed" in report.notes["averaged"]["up.weight"]
    assert "no" in report.notes["averaged"]["shift"]
    assert all(torch.allclose(result[n], (states[0][n] + states[1][n]) / 2) for n in report.notes["averaged"])
    _, report = merge_with_report(graph, states, "regmean++", own_data=[data, data])
    assert report.notes["solved"] == ("square",)
    assert "more than once" in report.notes["averaged"]["twice.weight"]


def test_a_weight_used_twice_answers_all_its_inputs() -> None:
    torch.manual_seed(0)
    model = Mixed()
    x = torch.randint(0, 9, (5, 3))
    graph = gm.trace(model, (x,))
    states = strangers(model)
    inputs = []
    for s in states:
        first = s["tokens.weight"][x].reshape(-1, 4)
        inputs.append(torch.cat([first, F.linear(first, s["twice.weight"], s["twice.bias"]).relu()]))
    result = gm.merge(graph, states, "regmean", data=[(x, x)])
    assert torch.allclose(result["twice.weight"], plain(states, inputs, "twice.weight", 0.9), atol=1e-4)


def test_on_the_same_data_regmean_plus_plus_is_the_average_which_is_why_it_asks_for_each_models_own() -> None:
    f = family("mlp")
    same = gm.merge(f.graph, f.models, "regmean++", own_data=[f.data[0], f.data[0]])
    assert close(same, gm.average(f.models), 1e-6)


def test_bad_data_is_refused() -> None:
    f = family("mlp")
    with pytest.raises(InputError, match="no batch"):
        gm.merge(f.graph, f.models, "regmean", data=[])
    with pytest.raises(InputError, match="not finite"):
        gm.merge(f.graph, f.models, "regmean", data=[(torch.full((4, 5), torch.nan).double(), None)])
    with pytest.raises(InputError, match="model 2"):
        gm.merge(f.graph, f.models, "regmean", own_data=[f.data[0], [(torch.randn(3, 5).double(), None)]])
