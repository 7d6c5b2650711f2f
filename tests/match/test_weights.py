"""The similarity of weights: what is kept and corrected is what would be computed anew."""

from __future__ import annotations

import pytest
import torch
from torch import nn

import graphmerge as gm
from graphmerge.axes.units import IntArray
from graphmerge.match import weights
from graphmerge.match.layout import Plan, plans
from graphmerge.match.weights import WeightSimilarity
from graphmerge.zoo.cost import peak_bytes

State = dict[str, torch.Tensor]


def net(seed: int) -> nn.Sequential:
    torch.manual_seed(seed)
    return nn.Sequential(
        nn.Conv2d(2, 20, 3), nn.BatchNorm2d(20), nn.ReLU(), nn.Conv2d(20, 16, 2), nn.ReLU(), nn.Flatten(),
        nn.Linear(16 * 4, 24), nn.ReLU(), nn.Linear(24, 5),
    )  # fmt: skip


@pytest.fixture(scope="module")
def setting() -> tuple[gm.ModelGraph, dict[str, Plan], State, State]:
    graph = gm.trace(net(0).eval(), (torch.randn(2, 2, 5, 5),))
    a, b = ({n: t.double() for n, t in net(k).named_parameters()} for k in (0, 1))
    a, b = ({n: t.detach() for n, t in x.items()} for x in (a, b))
    return graph, plans(graph, graph.structure, {n: graph.structure.labels[n] for n in a}), a, b


def swap(graph: gm.ModelGraph, plan: Plan, i: int, j: int) -> dict[int, IntArray]:
    """Two units of one group change places."""
    places = torch.arange(graph.structure.sorts[plan.atom].size)[None].clone()
    places[0, [i, j]] = places[0, [j, i]]
    return {plan.atom: places.numpy()}


def test_similarities_corrected_after_a_few_units_moved_are_those_computed_anew(
    setting: tuple[gm.ModelGraph, dict[str, Plan], State, State], monkeypatch: pytest.MonkeyPatch
) -> None:
    graph, work, a, b = setting
    monkeypatch.setattr(weights, "KEEP", 1.0)
    similarity = WeightSimilarity(a, b, graph.identity())
    monkeypatch.undo()
    for plan in work.values():
        similarity.total(plan.sites)
    for k, mover in enumerate(work.values()):
        names = {s.name for s in mover.sites}
        similarity.put(graph.structure.extend(swap(graph, mover, k, k + 5)), names)
        computed = []
        monkeypatch.setattr(similarity, "fresh", lambda sites, seen=computed: seen.append(sites))
        totals = [similarity.total(plan.sites) for plan in work.values()]
        monkeypatch.undo()
        assert not computed, "a swap of two units is corrected"
        for plan, total in zip(work.values(), totals, strict=True):
            torch.testing.assert_close(total, similarity.fresh(plan.sites))
    anew = WeightSimilarity(a, b, similarity.transform)
    assert similarity.objective == similarity.measure() == pytest.approx(anew.objective)


def test_after_everything_moved_they_are_computed_anew(
    setting: tuple[gm.ModelGraph, dict[str, Plan], State, State],
) -> None:
    graph, work, a, b = setting
    similarity = WeightSimilarity(a, b, graph.identity())
    for plan in work.values():
        similarity.total(plan.sites)
    planted = graph.random_transform(3)
    similarity.put(planted.phi, set(a))
    moved = planted.apply(b)
    for plan in work.values():
        alone = WeightSimilarity(a, {n: moved[n] for n in b}, graph.identity())
        torch.testing.assert_close(similarity.total(plan.sites), alone.total(plan.sites))


def test_tensors_read_in_parts_give_the_same(
    setting: tuple[gm.ModelGraph, dict[str, Plan], State, State], monkeypatch: pytest.MonkeyPatch
) -> None:
    graph, work, a, b = setting
    start = graph.random_transform(1)
    whole = WeightSimilarity(a, b, start)
    monkeypatch.setattr(weights, "LEAST", 64)
    parts = WeightSimilarity(a, b, start)
    assert parts.objective == pytest.approx(whole.objective)
    for plan in work.values():
        torch.testing.assert_close(parts.total(plan.sites), whole.total(plan.sites))


def test_no_more_is_kept_than_a_part_of_one_model(
    setting: tuple[gm.ModelGraph, dict[str, Plan], State, State],
) -> None:
    graph, work, a, b = setting
    similarity = WeightSimilarity(a, b, graph.identity())
    for plan in work.values():
        similarity.total(plan.sites)
    kept = sum(k.gram.nbytes for k in similarity._kept.values())
    assert 0 < kept <= weights.KEEP * sum(t.nbytes for t in a.values())


def test_twins_in_either_model_are_counted(
    setting: tuple[gm.ModelGraph, dict[str, Plan], State, State],
) -> None:
    graph, work, a, b = setting
    twin = dict(a)
    copied = torch.arange(24)
    copied[3] = 7
    twin |= {n: a[n][copied] for n in ("6.weight", "6.bias")} | {"8.weight": a["8.weight"][:, copied]}
    for pair, count in (((a, b), 0), ((twin, b), 2), ((b, twin), 2), ((twin, twin), 2)):
        similarity = WeightSimilarity(*pair, graph.identity())
        assert {g: similarity.twins(p.sites) for g, p in work.items()} == {"0": 0, "3": 0, "6": count}


@pytest.mark.parametrize("planted", [True, False])
def test_matching_holds_less_than_three_models(planted: bool) -> None:
    """The two that are matched among them; nearly all of the network is one tensor, as in a VGG."""

    def model(seed: int) -> nn.Module:
        torch.manual_seed(seed)
        middle = nn.Linear(128 * 64, 512)
        return nn.Sequential(
            nn.Conv2d(3, 128, 3), nn.Tanh(), nn.Flatten(), middle, nn.Tanh(), nn.Linear(512, 9)
        )

    a, b = (model(seed).state_dict() for seed in (0, 1))
    graph = gm.trace(model(0), (torch.randn(2, 3, 10, 10),))
    if planted:
        b = graph.random_transform(0).apply(a)
    held, _ = peak_bytes(lambda: gm.match(graph, a, b))
    assert 2 < held / sum(t.nbytes for t in a.values()) < 3
