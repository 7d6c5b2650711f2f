"""Frank-Wolfe: its line search, its gradient, its objective, and what it finds."""

from __future__ import annotations

import itertools
from functools import partial

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.polynomial import Polynomial
from tiny import mlp

import graphmerge as gm
from graphmerge.match.climb import Objective, blurred, climb, highest, pairs, towards
from graphmerge.match.relaxed import exact, parts
from models_zoo.architectures import ARCHITECTURES

CPU = torch.device("cpu")

KINDS = ("lstm", "multihead_attention", "groupnorm_resnet", "grouped_query_attention", "mixtral_batched")
"""Units on both sides of a tensor, heads, blocks of channels, shared heads, stacked experts."""


def traced(name: str) -> tuple[gm.ModelGraph, list[dict[str, torch.Tensor]]]:
    """A graph, and two draws of random parameters in float64, by their names in the structure."""
    pytest.importorskip(ARCHITECTURES[name].needs)
    args, kwargs = ARCHITECTURES[name].inputs()
    graph = gm.trace(ARCHITECTURES[name].build().eval(), args, kwargs)
    rng = torch.Generator().manual_seed(0)
    return graph, [
        {n: torch.randn(s, generator=rng, dtype=torch.float64) for n, s in graph.structure.shapes.items()}
        for _ in range(2)
    ]


@settings(max_examples=60, deadline=None)
@given(st.lists(st.integers(-9, 9), min_size=1, max_size=9))
def test_the_step_is_at_the_highest_point_of_the_polynomial(coefficients: list[int]) -> None:
    p, seen = Polynomial(coefficients), list[float]()

    def between(t: float) -> float:
        seen.append(t)
        return float(p(t))

    degree = len(coefficients) - 1
    at = highest(float(p(0.0)), float(p.deriv()(0.0)), lambda: float(p(1.0)), between, degree)
    assert 0 <= at <= 1
    assert p(np.linspace(0, 1, 1001)).max() <= p(at) + 1e-9
    assert len(seen) == max(0, degree - 2)


def test_the_pairs_of_three_tensors_are_three_inner_products() -> None:
    x, y, z = torch.tensor([1.0, 2.0]), torch.tensor([3.0, 5.0]), torch.tensor([-1.0, 4.0])
    assert pairs([x, y, z]) == (3 + 10) + (-1 + 8) + (-3 + 20)


@pytest.mark.parametrize("name", KINDS)
def test_slopes_degree_and_corners_are_those_of_the_objective(name: str) -> None:
    graph, models = traced(name)
    structure = graph.structure
    objective = Objective(structure, models, {n: parts(structure, n) for n in models[0]})
    moves = [graph.random_transform(seed) for seed in (1, 2)]
    soft = [blurred(structure, 0.5, CPU) for _ in models]
    ends = [{k: m.argmax(-1) for k, m in exact(t, CPU).items()} for t in moves]
    line = partial(towards, soft, ends)
    assert objective.at_corners(ends) == pytest.approx(objective.value([exact(t, CPU) for t in moves]))
    assert objective.at_corners(ends) == pytest.approx(objective.value(line(1.0)))
    value, slopes = objective.slopes(soft)
    assert value == pytest.approx(objective.value(soft))
    rise = sum(
        float((g * (line(1.0)[i][k] - soft[i][k])).sum())
        for i, own in enumerate(slopes)
        for k, g in own.items()
    )
    degree = objective.degree(soft)
    nodes = np.linspace(0, 1, degree + 1)
    curve = Polynomial.fit(nodes, [objective.value(line(float(t))) for t in nodes], degree, domain=[0, 1])
    scale = max(abs(curve(nodes)).max(), 1.0)
    assert curve(0.37) == pytest.approx(objective.value(line(0.37)), abs=1e-4 * scale)
    assert curve.deriv()(0.0) == pytest.approx(rise, abs=1e-2 * scale)


@pytest.mark.parametrize("name", KINDS)
def test_every_step_leads_up_and_a_planted_symmetry_is_where_it_ends(name: str) -> None:
    graph, (a, b) = traced(name)
    soft = blurred(graph.structure, 0.0, CPU)
    course = climb(graph.structure, (a, b), ({}, soft), 20).course
    assert all(x < y for x, y in itertools.pairwise(course))
    planted = graph.random_transform(3)
    moved = {n: planted.inverse().apply_to(n, t) for n, t in a.items()}
    found = climb(graph.structure, (a, moved), ({}, soft), 20)
    assert found.converged
    want = exact(planted, CPU)
    assert all(torch.equal(m.argmax(-1), want[k].argmax(-1)) for k, m in found.soft[1].items())


def test_one_hidden_layer_reaches_the_brute_force_optimum(graph: gm.ModelGraph) -> None:
    a, b = mlp(0).state_dict(), mlp(1).state_dict()
    best = max(
        sum(float((a[n] * x).sum()) for n, x in t.apply(b).items())
        for p in itertools.permutations(range(6))
        for t in [graph.identity().with_targets({"0": torch.tensor([p])})]
    )
    for finish in ("none", "descent"):
        assert gm.match(graph, a, b, "frank-wolfe", finish=finish).objective == pytest.approx(best, rel=1e-6)


def test_the_result_is_no_worse_than_the_start_given() -> None:
    graph, (a, b) = traced("lstm")
    begin = gm.match(graph, a, b)
    found = gm.match(graph, a, b, "frank-wolfe", start=begin, finish="none", steps=1)
    assert found.start == pytest.approx(begin.objective)
    assert found.objective >= found.start
