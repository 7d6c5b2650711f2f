"""Methods that descend group by group: each has a cost of its own, the descent is the same.

Source: Git Re-Basin, Ainsworth et al. 2022, arXiv 2209.04836, sections 3.1 and 3.2.
"""

from __future__ import annotations

import math
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from graphmerge.match.activations import (
    ActivationSimilarity,
    Correlations,
    correlate,
    feature_graph,
    feature_labels,
    same_frame,
)
from graphmerge.match.alignment import Step
from graphmerge.match.costs import COSTS
from graphmerge.match.descent import Proved, descend, gaps
from graphmerge.match.layout import Plan, plans
from graphmerge.match.refine import refine
from graphmerge.match.start import place
from graphmerge.match.task import Found, Task
from graphmerge.match.weights import WeightSimilarity, inner
from graphmerge.symmetry import ModelGraph
from graphmerge.symmetry.structure import Structure

PERFECT = 1e-6
"""Relative distance to the Cauchy-Schwarz bound at which nothing can be gained any more."""

NEAR = 0.5
"""Part of that bound from which on two models are taken for relatives that the placement has found."""

LITTLE = 0.01
"""Relative gain of the first descent up to which its beginning had all but found the optimum.

Restarts then gained nothing in any of the pairs measured (see BENCHMARKS.md); above it they mostly do.
"""

Plans = Mapping[str, Plan]


def match_weights(task: Task) -> Found:
    """Coordinate descent on the inner product of parameters, then restarts of neighbouring pairs."""
    graph = task.graph
    a, b = COSTS[task.options["cost"]](task)
    work = plans(graph, graph.structure, {n: x for n, x in graph.structure.labels.items() if n in a})
    bound = sum(math.sqrt(inner(t, t) * inner(b[n], b[n])) for n, t in a.items())
    similarity = WeightSimilarity(a, b, task.start or graph.identity())
    start, other = similarity.objective, None
    steps: list[Step] = []
    proved: Proved = {}
    if task.start is None and start < bound * (1 - PERFECT):
        with task.stage("placement"):
            trial = similarity.fork()
            placed, settled = place(trial, work)
            trial.forget()  # the descent keeps those that it comes back to
        if placed.objective > start:  # models that share their training are already in place
            similarity, other, steps, proved = trial, similarity, [placed], settled
            task.keep(similarity.transform, similarity.objective)
    reached, converged = [similarity.objective], True
    if not _perfect(similarity, bound):
        similarity, converged = _descended(task, similarity, other, work, bound, steps, reached, proved)
    with task.stage("certificate"):
        if _perfect(similarity, bound):  # the models are the same but for their order
            certificate = dict.fromkeys(work, max(0.0, bound - similarity.objective))
        else:
            certificate = gaps(similarity, work, proved)
            similarity.forget()
        alike = {g: n for g, p in work.items() if (n := similarity.twins(p.sites))}
        notes = {"bound": bound, "ambiguous": alike}
    return Found(
        similarity.transform,
        similarity.measure(),
        start,
        tuple(steps),
        converged,
        tuple(reached),
        certificate,
        notes,
    )


def _perfect(similarity: WeightSimilarity, bound: float) -> bool:
    """No order of any units can gain anything."""
    return similarity.objective >= bound * (1 - PERFECT) > 0


def _descended(
    task: Task, similarity: WeightSimilarity, other: WeightSimilarity | None, work: Plans, bound: float,
    steps: list[Step], reached: list[float], proved: Proved,
) -> tuple[WeightSimilarity, bool]:  # fmt: skip
    """One descent, then restarts until they are used up, or the time is, or nothing is gained.

    There are none where the descent found ``LITTLE`` left to do. The first restart is a descent from
    ``other`` as well, unless the models are clearly near each other; in each round neighbouring pairs are
    placed anew.
    """
    deadline = time.perf_counter() + (task.options["seconds"] or math.inf)
    before = similarity.objective
    with task.stage("descent"):
        found, converged = descend(
            similarity, work, task.seed, progress=task.progress, keep=task.keep, proved=proved
        )
    steps += found
    reached[:] = [similarity.objective]
    if task.start is None and similarity.objective - before <= LITTLE * abs(similarity.objective):
        return similarity, converged
    again = task.options["restarts"] > 1 and similarity.objective < NEAR * bound
    if again and other is not None and time.perf_counter() < deadline:
        similarity.forget()
        with task.stage("restarts"):
            settled: Proved = {}
            found, ended = descend(other, work, task.seed, progress=task.progress, proved=settled)
        if other.objective > similarity.objective:
            similarity, converged, steps[:] = other, ended, found
            proved.clear()
            proved |= settled
            task.keep(similarity.transform, similarity.objective)
            reached.append(similarity.objective)
        else:
            other.forget()
    for _ in range(task.options["restarts"] - 1):
        if _perfect(similarity, bound):
            break
        sweep = steps[-1].sweep + 1 if steps else 0
        with task.stage("restarts"):
            similarity, found = refine(similarity, work, sweep, task.progress, deadline, task.keep)
        if not found:
            break
        proved.clear()
        with task.stage("descent"):
            more, converged = descend(
                similarity, work, task.seed, first_sweep=sweep + 1, progress=task.progress, keep=task.keep,
                proved=proved,
            )  # fmt: skip
        steps += [*found, *more]
        reached.append(similarity.objective)
    return similarity, converged


@dataclass(frozen=True)
class Features:
    """The graph traced at the batch size of the data, its symmetries labelled by activations."""

    graph: ModelGraph
    structure: Structure
    plans: Plans
    correlations: Correlations
    notes: Mapping[str, Any]


def features_of(task: Task, data: Iterable[Any]) -> Features:
    """Run both models over the data."""
    with task.stage("tracing"):
        graph = feature_graph(task.graph, data)
        structure = feature_labels(graph)
        work = plans(graph, structure, structure.labels)
    sites = [s for p in work.values() for s in (*p.sites, *(s for x in p.inner.values() for s in x))]
    with task.stage("correlation"):
        correlations, read, skipped = correlate(
            graph, structure, *task.states, data, sites, task.options["statistic"], task.progress
        )
    unseen = len(task.graph.groups) - len(work)
    return Features(
        graph, structure, work, correlations, {"batches": read, "skipped": skipped, "unseen groups": unseen}
    )


def match_activations(task: Task) -> Found:
    """Coordinate descent on the correlations of activations over the data."""
    assert task.data is not None, "the table says that this method needs data"
    seen = features_of(task, task.data)
    begin = same_frame(seen.graph, task.start) if task.start else seen.graph.identity()
    similarity = ActivationSimilarity(seen.structure, seen.correlations, begin)
    start = similarity.objective
    with task.stage("descent"):
        steps, converged = descend(similarity, seen.plans, task.seed, progress=task.progress, keep=task.keep)
    with task.stage("certificate"):
        certificate = gaps(similarity, seen.plans)
    transform, reached = same_frame(task.graph, similarity.transform), (similarity.objective,)
    return Found(
        transform, similarity.objective, start, tuple(steps), converged, reached, certificate, seen.notes
    )
