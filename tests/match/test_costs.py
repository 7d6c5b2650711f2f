"""What weight matching may compare, and the mixture with activations."""

from __future__ import annotations

import math

import pytest
import torch
from torch import nn

import graphmerge as gm
from graphmerge.errors import InputError, TraceError
from graphmerge.match.costs import COSTS
from graphmerge.match.task import Task

State = dict[str, torch.Tensor]
X = torch.randn(64, 1, 5, 5, generator=torch.Generator().manual_seed(5))
DATA = [(X[:32], torch.arange(32) % 3), (X[32:], torch.arange(32) % 3)]


class Net(nn.Module):
    """BatchNorm after a convolution, LayerNorm before a linear map; every norm away from its defaults."""

    def __init__(self, seed: int) -> None:
        super().__init__()
        torch.manual_seed(seed)
        self.conv, self.norm = nn.Conv2d(1, 7, 3), nn.BatchNorm2d(7)
        self.fc, self.gain, self.head = nn.Linear(63, 11), nn.LayerNorm(11), nn.Linear(11, 3)
        with torch.no_grad():
            for t in (self.norm.weight, self.norm.running_var, self.gain.weight):
                t.uniform_(0.5, 2)  # type: ignore[union-attr]
            for t in (self.norm.bias, self.norm.running_mean, self.gain.bias):
                t.normal_()  # type: ignore[union-attr]

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        h = torch.relu(self.norm(self.conv(x))).flatten(1)
        out: torch.Tensor = self.head(self.gain(torch.tanh(self.fc(h))))
        return out


def state(seed: int) -> State:
    return {n: t.clone() for n, t in Net(seed).state_dict().items()}


@pytest.fixture(scope="module")
def graph() -> gm.ModelGraph:
    return gm.trace(Net(0), (X[:2],))


def views(graph: gm.ModelGraph, cost: str, a: State, b: State) -> tuple[State, State]:
    parameters = [{n: t for n, t in s.items() if n in dict(Net(0).named_parameters())} for s in (a, b)]
    return COSTS[cost](Task(graph, *parameters, (a, b), {}))


def test_folding_leaves_a_network_of_affine_maps(graph: gm.ModelGraph) -> None:
    """The folded view, run by hand without the norms' gains, is the network."""
    s = state(0)
    view, _ = views(graph, "folded", s, s)
    assert view.keys() == {"conv.weight", "norm.bias", "fc.weight", "fc.bias", "head.weight", "head.bias"}
    h = torch.relu(nn.functional.conv2d(X, view["conv.weight"], view["norm.bias"])).flatten(1)
    h = nn.functional.layer_norm(torch.tanh(h @ view["fc.weight"].T + view["fc.bias"]), (11,))
    assert torch.allclose(h @ view["head.weight"].T + view["head.bias"], Net(0).eval()(X), atol=1e-5)


def test_folded_does_not_see_how_scale_is_shared_between_a_convolution_and_its_norm(
    graph: gm.ModelGraph,
) -> None:
    a, b = state(0), state(1)
    c = torch.rand(7) * 3 + 0.1
    other = {**b, "conv.weight": b["conv.weight"] * c[:, None, None, None], "conv.bias": b["conv.bias"] * c}
    other |= {"norm.running_mean": b["norm.running_mean"] * c}
    eps = 1e-5
    other["norm.running_var"] = (b["norm.running_var"] + eps) * c**2 - eps
    found = [gm.match(graph, a, s, cost="folded") for s in (b, other)]
    assert found[0].transform == found[1].transform
    assert found[0].objective == pytest.approx(found[1].objective, rel=1e-5)


def test_balanced_is_the_sum_of_cosines_and_blind_to_the_scale_of_a_tensor(graph: gm.ModelGraph) -> None:
    a, b = state(0), state(1)
    found = gm.match(graph, a, b, cost="balanced")
    moved = found.apply(b)
    names = dict(Net(0).named_parameters())
    cosines = sum(float(torch.cosine_similarity(a[n].ravel(), moved[n].ravel(), 0)) for n in names)
    assert found.objective == pytest.approx(cosines, rel=1e-5)
    other = gm.match(graph, a, {**b, "fc.weight": 1000 * b["fc.weight"]}, cost="balanced")
    assert other.transform == found.transform


@pytest.mark.parametrize("cost", COSTS)
def test_a_planted_symmetry_comes_back_under_every_cost(cost: str, graph: gm.ModelGraph) -> None:
    planted, s = graph.random_transform(3), state(0)
    assert gm.match(graph, s, planted.inverse().apply(s), cost=cost).transform == planted


def test_the_ends_of_dual_are_the_two_methods(graph: gm.ModelGraph) -> None:
    a, b = state(0), state(1)
    still = graph.identity()
    weight = gm.match(graph, a, b, restarts=1, start=still)
    only = gm.match(graph, a, b, "dual", DATA, gamma=0)
    assert only.transform == weight.transform
    assert only.objective == pytest.approx(weight.objective / weight.notes["bound"], rel=1e-5)
    activation = gm.match(graph, a, b, "activation", DATA)
    assert gm.match(graph, a, b, "dual", DATA, gamma=1).transform == activation.transform


def test_dual_chooses_its_share_on_batches_that_it_does_not_match_on(graph: gm.ModelGraph) -> None:
    a, b = state(0), state(1)
    found = gm.match(graph, a, b, "dual", DATA)
    losses = found.notes["held-out loss by gamma"]
    assert found.notes["batches"] == 1
    assert losses[str(found.notes["gamma"])] == min(losses.values())
    assert all(math.isfinite(x) for x in losses.values())
    given = gm.match(graph, a, b, "dual", DATA[:1], gamma=found.notes["gamma"])
    assert given.transform == found.transform
    course = [found.start, *(s.objective for s in found.history)]
    assert course == sorted(course)
    with pytest.raises(InputError, match="at least 2"):
        gm.match(graph, a, b, "dual", DATA[:1])


def test_a_start_is_gone_on_from_and_never_left_for_worse(graph: gm.ModelGraph) -> None:
    a, b = state(0), state(1)
    for method, data in (("weight", None), ("activation", DATA), ("dual", DATA)):
        options = {"gamma": 0.5} if method == "dual" else {}
        first = gm.match(graph, a, b, method, data, **options)
        again = gm.match(graph, a, b, method, data, start=first, **options)
        assert again.start == pytest.approx(first.objective)
        assert again.objective >= first.objective - 1e-6 * abs(first.objective)


def test_a_start_of_another_graph_is_refused(graph: gm.ModelGraph) -> None:
    other = gm.trace(nn.Sequential(nn.Linear(3, 5), nn.ReLU(), nn.Linear(5, 2)), (X[:2, 0, 0, :3],))
    with pytest.raises(InputError, match="another graph"):
        gm.match(graph, state(0), state(1), start=other.identity())


def test_models_of_another_graph_are_refused_by_the_first_operator_that_differs(graph: gm.ModelGraph) -> None:
    class Other(Net):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return super().forward(x).relu()

    with pytest.raises(TraceError, match=r"aten\.relu"):
        gm.match(graph, Net(0), Other(1))
