"""Matching of many models: cycles close, nothing falls, planted symmetries and optima are found."""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import Any

import pytest
import torch
from tiny import ConvNet, mlp
from torch import nn

import graphmerge as gm
from graphmerge.errors import InputError, UsageError
from graphmerge.match import WAYS
from graphmerge.match.many.job import mean
from models_zoo.architectures import ARCHITECTURES

State = dict[str, torch.Tensor]


def all_pairs(states: list[State]) -> float:
    """The sum over all pairs of the inner products of the parameters, in float64."""
    return sum(
        float((a[n].double() * b[n].double()).sum()) for a, b in itertools.combinations(states, 2) for n in a
    )


def randoms(count: int) -> list[State]:
    return [mlp(seed).state_dict() for seed in range(count)]


def network(name: str) -> tuple[nn.Module, tuple[Any, ...]]:
    torch.manual_seed(0)
    if name == "residual convolutions":
        return ConvNet().eval(), (torch.randn(2, 1, 6, 6),)
    architecture = ARCHITECTURES[name]
    return architecture.build().eval(), tuple(architecture.inputs()[0])


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("name", ["mlp", "residual convolutions", "transformer_encoder"])
def test_planted_symmetries_of_four_copies_come_back_exactly(name: str, way: str) -> None:
    model, args = network(name)
    graph, state = gm.trace(model, args), model.state_dict()
    planted = [graph.identity(), *(graph.random_transform(seed) for seed in (1, 2, 3))]
    states = [t.inverse().apply(state) for t in planted]
    found = gm.match_many(graph, states, way)
    assert list(found.transforms) == planted
    for moved in found.apply(states):
        assert all(torch.equal(t, state[n]) for n, t in moved.items())


@pytest.mark.parametrize("way", WAYS)
def test_round_any_cycle_the_symmetries_compose_to_the_identity(way: str, graph: gm.ModelGraph) -> None:
    found = gm.match_many(graph, randoms(4), way)
    assert found.transforms[0].is_identity
    for i, j, k in itertools.product(range(4), repeat=3):
        assert (found.between(i, j) @ found.between(j, k) @ found.between(k, i)).is_identity
        assert found.between(i, j) == found.between(j, i).inverse()
    assert [found.between(0, i) for i in range(4)] == list(found.transforms)


@pytest.mark.parametrize("way", WAYS)
def test_the_objective_is_that_of_the_moved_models_and_never_falls(way: str, graph: gm.ModelGraph) -> None:
    states = randoms(4)
    found = gm.match_many(graph, states, way)
    assert found.start == pytest.approx(all_pairs(states), rel=1e-5)
    assert found.objective == pytest.approx(all_pairs(found.apply(states)), rel=1e-5)
    assert found.objective > found.start
    course = [found.start, *(s.objective for s in found.history), *[found.objective] * (not found.history)]
    assert all(x < y for x, y in itertools.pairwise(course))
    assert course[-1] == pytest.approx(found.objective, rel=1e-6)
    assert found.converged


@pytest.mark.parametrize("way", ["cycle", "merge-many"])
def test_no_model_alone_can_be_matched_better_to_the_others(way: str, graph: gm.ModelGraph) -> None:
    states = randoms(3)
    moved = gm.match_many(graph, states, way).apply(states)
    for i, state in enumerate(moved):
        others = {n: sum(s[n] for j, s in enumerate(moved) if j != i) for n in state}
        assert gm.match(graph, others, state).transform.is_identity


def test_three_models_reach_the_brute_force_optimum(graph: gm.ModelGraph) -> None:
    states = [
        {n: t[:4] if t.shape[0] == 6 else t[:, :4] if t.ndim == 2 else t for n, t in s.items()}
        for s in randoms(3)
    ]
    small = nn.Sequential(nn.Linear(4, 4), nn.ReLU(), nn.Linear(4, 3))
    graph = gm.trace(small, (torch.randn(2, 4),))
    orders = [
        graph.identity().with_targets({"0": torch.tensor([p])}) for p in itertools.permutations(range(4))
    ]
    best = max(
        all_pairs([states[0], t.apply(states[1]), u.apply(states[2])])
        for t, u in itertools.product(orders, repeat=2)
    )
    found = {way: gm.match_many(graph, states, way).objective for way in WAYS}
    assert found["cycle"] == pytest.approx(best, rel=1e-5)
    assert max(found.values()) <= best * (1 + 1e-5)


@pytest.mark.parametrize("way", ["reference", "hierarchical"])
def test_two_models_are_matched_as_a_pair(way: str, graph: gm.ModelGraph) -> None:
    a, b = randoms(2)
    found, pair = gm.match_many(graph, [a, b], way), gm.match(graph, a, b)
    assert found.transforms[1] == pair.transform
    assert found.objective == pytest.approx(pair.objective)


@pytest.mark.parametrize("way", ["merge-many", "cycle"])
def test_two_models_reach_what_they_reach_as_a_pair(way: str, graph: gm.ModelGraph) -> None:
    a, b = randoms(2)
    pair = gm.match(graph, a, b)  # with one hidden layer the optimum, and found in one step
    assert gm.match_many(graph, [a, b], way).transforms[1] == pair.transform


def test_any_model_may_be_the_reference(graph: gm.ModelGraph) -> None:
    states = randoms(3)
    found = gm.match_many(graph, states, "reference", reference=2)
    for i in (0, 1):
        assert found.between(2, i) == gm.match(graph, states[2], states[i]).transform


def test_a_tree_matches_means_and_the_odd_one_waits(graph: gm.ModelGraph) -> None:
    a, b, c = randoms(3)
    found = gm.match_many(graph, [a, b, c], "hierarchical")
    first = gm.match(graph, a, b)
    moved = first.apply(b)
    half = {n: (a[n] + moved[n]) / 2 for n in a}
    assert found.transforms[1:] == (first.transform, gm.match(graph, half, c).transform)


def test_means_are_not_rounded_to_the_dtype_of_the_models(graph: gm.ModelGraph) -> None:
    """In bfloat16 a mean of three loses what tells two units of the fourth apart."""
    coarse = [{n: t.bfloat16() for n, t in s.items()} for s in randoms(4)]
    fine = [{n: t.float() for n, t in s.items()} for s in coarse]
    for way in WAYS:
        assert gm.match_many(graph, coarse, way).transforms == gm.match_many(graph, fine, way).transforms
    total = mean(coarse[:3])
    assert all(torch.allclose(t, sum(s[n] for s in fine[:3]) / 3, rtol=1e-6) for n, t in total.items())


@pytest.mark.parametrize("way", [n for n, w in WAYS.items() if w.any_pairwise])
def test_models_are_matched_by_the_method_and_data_asked_for(way: str, graph: gm.ModelGraph) -> None:
    data = [(torch.randn(16, 4, generator=torch.Generator().manual_seed(0)), torch.arange(16) % 3)]
    states = randoms(3)
    found = gm.match_many(graph, states, way, data, pairwise="activation")
    assert found.options["pairwise"] == "activation"
    if way == "reference":
        for i in (1, 2):
            expected = gm.match(graph, states[0], states[i], "activation", data).transform
            assert found.transforms[i] == expected
    with pytest.raises(UsageError, match="activation matching needs data"):
        gm.match_many(graph, states, way, pairwise="activation")


@pytest.mark.parametrize("way", WAYS)
def test_identical_models_stay_as_they_are(way: str, graph: gm.ModelGraph) -> None:
    found = gm.match_many(graph, [mlp(0).state_dict()] * 3, way)
    assert all(t.is_identity for t in found.transforms)


def test_many_alignments_are_merged_saved_and_loaded(tmp_path: Path, graph: gm.ModelGraph) -> None:
    states = randoms(3)
    found = gm.match_many(graph, states, "cycle")
    merged = gm.merge(graph, states, alignment=found.alignments)
    for n, t in merged.items():
        assert torch.allclose(t, sum(s[n] for s in found.apply(states)) / 3)
    found.save(tmp_path / "x.safetensors")
    again = gm.load_many_alignment(tmp_path / "x.safetensors", graph)
    assert again.transforms == found.transforms
    assert again.to_json() == found.to_json()
    other = gm.trace(nn.Sequential(nn.Linear(4, 5), nn.ReLU(), nn.Linear(5, 3)), (torch.randn(2, 4),))
    with pytest.raises(InputError, match="group"):
        gm.load_many_alignment(tmp_path / "x.safetensors", other)
    found.alignments[0].save(tmp_path / "one.safetensors")
    with pytest.raises(InputError, match="no alignment of many models"):
        gm.load_many_alignment(tmp_path / "one.safetensors", graph)


def test_refusals_name_what_there_is(graph: gm.ModelGraph) -> None:
    states = randoms(3)
    with pytest.raises(UsageError, match="reference, merge-many, cycle, hierarchical"):
        gm.match_many(graph, states, "magic")
    with pytest.raises(UsageError, match="at least two models, got 1"):
        gm.match_many(graph, states[:1])
    with pytest.raises(UsageError, match="cycle has no option 'pairwise'"):
        gm.match_many(graph, states, "cycle", pairwise="activation")
    with pytest.raises(UsageError, match="option reference=3: there are 3 models"):
        gm.match_many(graph, states, "reference", reference=3)
    bad = {n: t * float("nan") for n, t in states[2].items()}
    with pytest.raises(InputError, match=r"0\.weight of model 2"):
        gm.match_many(graph, [*states[:2], bad])


def test_the_pipeline_matches_many_models_in_the_way_asked_for(graph: gm.ModelGraph) -> None:
    states, x = randoms(3), torch.randn(2, 4)
    match = {"many": "cycle", "options": {"steps": 50}}
    result = gm.merge_models(graph.model, states, (x,), how=gm.How.model_validate({"match": match}))
    assert list(result.alignments) == ["weight"]
    expected = gm.match_many(graph, states, "cycle", steps=50)
    assert [a.transform for a in result.alignments["weight"]] == list(expected.transforms[1:])


@pytest.mark.parametrize(
    ("match", "fragment"),
    [
        ({"many": "cycle", "method": "activation"}, "cycle matches by weight only"),
        ({"many": "cycle", "options": {"restarts": 3}}, "no option 'restarts'; there are: trust"),
        ({"many": "cycles"}, "cycles"),
    ],
)
def test_a_recipe_refuses_a_way_that_cannot_be(match: dict[str, Any], fragment: str) -> None:
    with pytest.raises(ValueError, match=fragment):
        gm.How.model_validate({"match": match})
