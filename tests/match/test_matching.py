"""Matching: objectives as stated, optima by brute force, planted symmetries, refusals."""

from __future__ import annotations

import itertools
from pathlib import Path

import numpy as np
import pytest
import torch
from tiny import ConvNet
from torch import nn

import graphmerge as gm
from graphmerge.errors import InputError, UsageError
from models_zoo.architectures import ARCHITECTURES


def mlp(*sizes: int, seed: int = 0) -> nn.Sequential:
    torch.manual_seed(seed)
    layers: list[nn.Module] = []
    for a, b in itertools.pairwise(sizes):
        layers += [nn.Linear(a, b), nn.ReLU()]
    return nn.Sequential(*layers[:-1])


def inner(a: dict[str, torch.Tensor], b: dict[str, torch.Tensor], names: list[str]) -> float:
    return sum(float((a[n].double() * b[n].double()).sum()) for n in names)


def test_one_hidden_layer_reaches_the_brute_force_optimum() -> None:
    a, b = mlp(4, 5, 3, seed=0), mlp(4, 5, 3, seed=1)
    graph = gm.trace(a, (torch.randn(2, 4),))
    found = gm.match(graph, a, b)
    sa, sb = a.state_dict(), b.state_dict()
    best = -np.inf
    for p in itertools.permutations(range(5)):
        moved = {
            "0.weight": sb["0.weight"][list(p)],
            "0.bias": sb["0.bias"][list(p)],
            "2.weight": sb["2.weight"][:, list(p)],
        }
        best = max(best, inner(sa, moved, ["0.weight", "0.bias", "2.weight"]))
    fixed = float((sa["2.bias"].double() * sb["2.bias"].double()).sum())
    assert found.objective == pytest.approx(best + fixed, rel=1e-6)


def test_the_objective_is_that_of_the_state_dicts_and_never_falls() -> None:
    a, b = mlp(6, 20, 15, 10, 3, seed=0), mlp(6, 20, 15, 10, 3, seed=1)
    graph = gm.trace(a, (torch.randn(2, 6),))
    found = gm.match(graph, a, b)
    names = list(a.state_dict())
    assert found.objective == pytest.approx(
        inner(a.state_dict(), found.apply(b.state_dict()), names), rel=1e-6
    )
    assert found.start == pytest.approx(inner(a.state_dict(), b.state_dict(), names), rel=1e-6)
    course = [found.start, *(s.objective for s in found.history)]
    assert all(x < y for x, y in itertools.pairwise(course))
    assert found.converged
    assert found.certified
    assert found.objective == pytest.approx(max(found.restarts))


def test_no_single_exchange_of_units_improves_the_result() -> None:
    a, b = mlp(5, 7, 6, 3, seed=2), mlp(5, 7, 6, 3, seed=3)
    graph = gm.trace(a, (torch.randn(2, 5),))
    found = gm.match(graph, a, b)
    targets = found.transform.targets()
    for group, places in targets.items():
        for i, j in itertools.combinations(range(places.shape[1]), 2):
            swapped = places.clone()
            swapped[0, [i, j]] = places[0, [j, i]]
            other = graph.identity().with_targets({**targets, group: swapped})
            value = inner(a.state_dict(), other.apply(b.state_dict()), list(a.state_dict()))
            assert value <= found.objective + 1e-6


@pytest.mark.parametrize("layer", [nn.LSTM, nn.GRU])
def test_units_on_both_sides_of_a_tensor_only_ever_raise_the_objective(layer: type[nn.Module]) -> None:
    torch.manual_seed(0)
    a, b = layer(4, 12, batch_first=True), layer(4, 12, batch_first=True)
    wrapped = [nn.ModuleDict({"layer": m}) for m in (a, b)]

    class Run(nn.Module):
        def __init__(self, inside: nn.ModuleDict) -> None:
            super().__init__()
            self.inside, self.head = inside, nn.Linear(12, 2)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            out: torch.Tensor = self.head(self.inside["layer"](x)[0][:, -1])
            return out

    first, second = Run(wrapped[0]), Run(wrapped[1])
    graph = gm.trace(first, (torch.randn(2, 3, 4),))
    found = gm.match(graph, first, second)
    course = [found.start, *(s.objective for s in found.history)]
    assert all(x < y for x, y in itertools.pairwise(course))


def test_the_same_seed_gives_the_same_result() -> None:
    a, b = ConvNet(), ConvNet()
    graph = gm.trace(a, (torch.randn(2, 1, 6, 6),))
    assert gm.match(graph, a, b, seed=3).transform == gm.match(graph, a, b, seed=3).transform


@pytest.mark.parametrize("method", ["weight", "activation"])
def test_a_planted_symmetry_comes_back(method: str) -> None:
    torch.manual_seed(0)
    model = ConvNet().eval()
    x = torch.randn(64, 1, 6, 6)
    graph = gm.trace(model, (x[:2],))
    state = model.state_dict()
    planted = graph.random_transform(1)
    found = gm.match(
        graph, state, planted.inverse().apply(state), method, data=[(x, None), (x.flip(0), None)]
    )
    assert found.transform == planted


def test_activation_matching_assigns_by_the_correlations_of_all_sites() -> None:
    a, b = mlp(6, 9, 3, seed=0), mlp(6, 9, 3, seed=1)
    x = torch.randn(200, 6)
    graph = gm.trace(a, (x[:2],))
    found = gm.match(graph, a, b, "activation", data=[(x[:100],), (x[100:],)])
    total = torch.zeros(9, 9, dtype=torch.float64)
    for cut in (1, 2):  # before and after the ReLU
        za, zb = (m[:cut](x).detach().double() for m in (a, b))
        total += torch.corrcoef(torch.cat([za, zb], 1).T).nan_to_num()[:9, 9:]
    places = found.transform.targets()["0"][0]
    value = sum(float(total[places[j], j]) for j in range(9))
    best = gm.match(graph, a, b, "activation", data=[(x,)]).objective
    assert value == pytest.approx(found.objective, rel=1e-4)
    assert found.objective == pytest.approx(best, rel=1e-4)


def test_dead_units_and_batches_of_another_size_do_no_harm() -> None:
    a, b = mlp(6, 9, 3, seed=0), mlp(6, 9, 3, seed=1)
    with torch.no_grad():
        a[0].bias[:3] = -100  # type: ignore[index, union-attr, operator]
    graph = gm.trace(a, (torch.randn(2, 6),))
    found = gm.match(graph, a, b, "activation", data=[(torch.randn(50, 6),), (torch.randn(20, 6),)])
    assert np.isfinite(found.objective)
    assert found.notes["skipped"] == 1


def test_an_alignment_is_saved_and_loaded(tmp_path: Path) -> None:
    a, b = mlp(4, 8, 3, seed=0), mlp(4, 8, 3, seed=1)
    graph = gm.trace(a, (torch.randn(2, 4),))
    found = gm.match(graph, a, b)
    found.save(tmp_path / "x.safetensors")
    again = gm.load_alignment(tmp_path / "x.safetensors", graph)
    assert again.transform == found.transform
    assert again.objective == found.objective
    other = mlp(4, 9, 3)
    with pytest.raises(InputError, match="group"):
        gm.load_alignment(tmp_path / "x.safetensors", gm.trace(other, (torch.randn(2, 4),)))


def test_refusals_name_the_tensor_and_the_remedy() -> None:
    a, b = mlp(4, 8, 3), mlp(4, 8, 3, seed=1)
    graph = gm.trace(a, (torch.randn(2, 4),))
    bad = {n: t.clone() for n, t in b.state_dict().items()}
    bad["0.weight"][0, 0] = float("nan")
    with pytest.raises(InputError, match=r"0\.weight"):
        gm.match(graph, a, bad)
    with pytest.raises(InputError, match=r"2\.weight"):
        gm.match(graph, a, mlp(4, 8, 5))
    with pytest.raises(InputError, match=r"lacks tensor 0\.bias"):
        gm.match(graph, a, {n: t for n, t in b.state_dict().items() if n != "0.bias"})
    with pytest.raises(UsageError, match="weight, activation"):
        gm.match(graph, a, b, "magic")
    with pytest.raises(UsageError, match="needs data"):
        gm.match(graph, a, b, "activation")
    with pytest.raises(UsageError, match="one-shot"):
        gm.match(graph, a, b, "activation", data=iter([(torch.randn(5, 4),)]))


def test_the_zoo_pair_merges_where_averaging_does_not() -> None:
    from models_zoo.data import batches
    from models_zoo.registry import load

    a, b = load("mlp", 0), load("mlp", 1)
    test = batches("test", limit=1000)
    graph = gm.trace(a, (test[0][0][:3],))
    alignment = gm.match(graph, a, b)
    ends = [gm.evaluate(a, m.state_dict(), test).accuracy for m in (a, b)]
    naive = gm.evaluate(a, gm.merge(graph, [a, b]), test).accuracy
    merged = gm.evaluate(a, gm.merge(graph, [a, b], alignment=alignment), test).accuracy
    assert merged > min(ends) - 0.015
    assert naive < merged - 0.1


def test_row_30_units_with_a_twin_are_counted_and_ties_move_nothing() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 3))
    with torch.no_grad():
        model[0].weight[2] = model[0].weight[5]  # type: ignore[union-attr]
        model[0].bias[2] = model[0].bias[5]  # type: ignore[union-attr]
        model[2].weight[:, 2] = model[2].weight[:, 5]  # type: ignore[union-attr]
    graph = gm.trace(model, (torch.randn(2, 4),))
    alignment = gm.match(graph, model, model.state_dict())
    assert alignment.notes["ambiguous"] == {"0": 2}
    assert alignment.transform.is_identity
    zeros = {n: torch.zeros_like(t) for n, t in model.state_dict().items()}
    dead = gm.match(graph, model, zeros)
    assert dead.notes["ambiguous"] == {"0": 8}
    assert dead.transform.is_identity


def test_recurrent_units_are_found_from_wherever_they_are() -> None:
    """The identity is a local optimum for most of these; the Gilmore-Lawler start is not."""
    torch.manual_seed(0)
    for seed in range(8):
        model = ARCHITECTURES["rnn"].build()
        graph = gm.trace(model, *ARCHITECTURES["rnn"].inputs())
        planted = graph.random_transform(seed)
        found = gm.match(graph, model, planted.inverse().apply(model.state_dict()), restarts=1)
        assert found.transform == planted
