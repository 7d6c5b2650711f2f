"""Weights and activations together, in one descent.

Source: MuDSC, Xu et al. 2024, arXiv 2403.01753: similarity = gamma activation + (1 - gamma) weight.
Here each of the two is divided by what it would be between a model and itself, so that both lie
between -1 and 1 and the descent still has one objective.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence, Set
from dataclasses import replace
from typing import Any

import torch

from graphmerge.axes.units import IntArray
from graphmerge.errors import InputError
from graphmerge.match.activations import ActivationSimilarity, same_frame
from graphmerge.match.coordinate import Features, features_of
from graphmerge.match.costs import COSTS
from graphmerge.match.descent import descend, gaps
from graphmerge.match.layout import Plan, Site, plans
from graphmerge.match.objective import Path
from graphmerge.match.task import Found, Task
from graphmerge.match.weights import WeightSimilarity

GRID = (0.0, 0.25, 0.5, 0.75, 1.0)
"""Shares of the activations to choose from."""

HELD_OUT = 0.25
"""Part of the batches that the share is chosen on."""

_MARK = "activation:"
"""Before the names of activations, so that none is taken for a parameter."""


class DualSimilarity:
    """A weighted sum of the similarity of weights and that of activations under one transform."""

    def __init__(
        self, weights: WeightSimilarity, activations: ActivationSimilarity, factors: tuple[float, float]
    ) -> None:
        self._weights, self._activations, self._factors = weights, activations, factors
        self.transform = weights.transform

    @property
    def objective(self) -> float:
        """Both objectives, each times its factor, summed."""
        return self._factors[0] * self._weights.objective + self._factors[1] * self._activations.objective

    def total(self, sites: Sequence[Site]) -> torch.Tensor:
        """Similarity of unit i of a and unit j of b in each fibre, summed over sites: [fibre, i, j]."""
        ours = tuple(s for s in sites if not s.name.startswith(_MARK))
        theirs = tuple(_unmarked(s) for s in sites if s.name.startswith(_MARK))
        parts = []
        if ours:
            parts.append(self._factors[0] * self._weights.total(ours))
        if theirs:
            parts.append(self._factors[1] * self._activations.total(theirs))
        return functools.reduce(torch.add, parts)

    def across(self, site: Site, fibres: int) -> torch.Tensor:
        """The same for child units of every pair of units: [fibre, unit, unit, i, j]."""
        if site.name.startswith(_MARK):
            return self._factors[1] * self._activations.across(_unmarked(site), fibres)
        return self._factors[0] * self._weights.across(site, fibres)

    def circuits(self, sites: Sequence[Site], fibres: int) -> torch.Tensor:
        """Similarity of every pair of units whatever the order of their child units: [fibre, unit, unit]."""
        ours = [s for s in sites if not s.name.startswith(_MARK)]
        theirs = [_unmarked(s) for s in sites if s.name.startswith(_MARK)]
        found = [self._factors[0] * self._weights.circuits(ours, fibres)] if ours else []
        found += [self._factors[1] * self._activations.circuits(theirs, fibres)] if theirs else []
        return torch.stack(found).sum(0)

    def room(self, names: Set[str]) -> dict[str, float]:
        """How much more alike tensors of weights could be at most."""
        found = self._weights.room({n for n in names if not n.startswith(_MARK)})
        return {n: self._factors[0] * x for n, x in found.items()}

    def bends(self, sites: Sequence[Site]) -> torch.Tensor | None:
        """What exchanges gain beyond their linear part: that of the weights."""
        found = self._weights.bends([s for s in sites if not s.name.startswith(_MARK)])
        return None if found is None else self._factors[0] * found

    def fork(self) -> DualSimilarity:
        """A copy that moves on its own."""
        return DualSimilarity(self._weights.fork(), self._activations.fork(), self._factors)

    def put(self, delta: IntArray, names: set[str]) -> None:
        """Move ``names`` further by ``delta``, whatever that does to the objective."""
        self._weights.put(delta, {n for n in names if not n.startswith(_MARK)})
        self._activations.put(delta, {n.removeprefix(_MARK) for n in names if n.startswith(_MARK)})
        self.transform = self._weights.transform

    def move(self, delta: IntArray, names: set[str], least: float, _gain: float | None) -> bool:
        """Move further by ``delta`` if the objective rises by more than ``least`` (measured always)."""
        moved = self.fork()
        moved.put(delta, names)
        if moved.objective - self.objective <= least:
            return False
        self._weights, self._activations, self.transform = moved._weights, moved._activations, moved.transform
        return True


def _unmarked(site: Site) -> Site:
    return replace(site, name=site.name.removeprefix(_MARK))


def _together(weights: Plan, activations: Plan) -> Plan:
    """One plan with the sites of both, those of activations marked."""

    def join(ours: tuple[Site, ...], theirs: tuple[Site, ...]) -> tuple[Site, ...]:
        return (*ours, *(replace(s, name=_MARK + s.name) for s in theirs))

    inner = {k: join(sites, activations.inner.get(k, ())) for k, sites in weights.inner.items()}
    return Plan(
        weights.atom, join(weights.sites, activations.sites), join(weights.own, activations.own), inner,
        weights.pairs,
    )  # fmt: skip


def match_dual(task: Task) -> Found:
    """Coordinate descent on both, with the share of the activations given or chosen on held-out batches."""
    assert task.data is not None, "the table says that this method needs data"
    gamma = task.options["gamma"]
    if gamma is not None:
        return _prepared(task, features_of(task, task.data))(gamma)
    batches, held_out = _split(list(task.data))
    run = _prepared(task, features_of(task, batches))
    path = Path(task.graph, *task.states, held_out, task.loss)
    results = {}
    for share in GRID:
        found = run(share)
        with task.stage("choice"):
            results[share] = (path.midpoint(found.transform), found)
        task.progress(f"matching: gamma {share}, held-out loss of the midpoint {results[share][0]:.4f}")
    best = min(results, key=lambda share: results[share][0])
    losses = {str(share): loss for share, (loss, _) in results.items()}
    found = results[best][1]
    return replace(found, notes={**found.notes, "held-out loss by gamma": losses})


def _split(batches: Sequence[Any]) -> tuple[Sequence[Any], Sequence[Any]]:
    """Batches to match with, and batches to choose by."""
    keep = len(batches) - max(1, round(len(batches) * HELD_OUT))
    if keep < 1:
        raise InputError(
            f"the data holds {len(batches)} batch; at least 2 are needed, since gamma is chosen on one: use"
            " smaller batches, or give gamma"
        )
    return batches[:keep], batches[keep:]


def _prepared(task: Task, seen: Features) -> Callable[[float], Found]:
    """The descent as a function of gamma: all that does not depend on it is done once."""
    a, b = COSTS[task.options["cost"]](task)
    labels = {n: x for n, x in seen.graph.structure.labels.items() if n in a}
    ours = plans(seen.graph, seen.graph.structure, labels)
    work = {g: _together(p, seen.plans[g]) if g in seen.plans else p for g, p in ours.items()}
    begin = same_frame(seen.graph, task.start) if task.start else seen.graph.identity()
    weights = WeightSimilarity(a, b, begin)
    activations = ActivationSimilarity(seen.structure, seen.correlations, begin)
    most = sum(float(a[n].double().norm() * b[n].double().norm()) for n in a)
    rows = sum(len(m) for m in seen.correlations.values())

    def run(gamma: float) -> Found:
        factors = ((1 - gamma) / max(most, 1e-30), gamma / max(rows, 1))
        similarity = DualSimilarity(weights.fork(), activations.fork(), factors)
        start = similarity.objective
        with task.stage("descent"):
            steps, converged = descend(similarity, work, task.seed, progress=task.progress, keep=task.keep)
        with task.stage("certificate"):
            certificate = gaps(similarity, work)
        transform, reached = same_frame(task.graph, similarity.transform), similarity.objective
        notes = {**seen.notes, "gamma": gamma}
        return Found(transform, reached, start, tuple(steps), converged, (reached,), certificate, notes)

    return run
