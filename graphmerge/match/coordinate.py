"""Methods that descend group by group: each has a cost of its own, the descent is the same.

Source: Git Re-Basin, Ainsworth et al. 2022, arXiv 2209.04836, sections 3.1 and 3.2.
"""

from __future__ import annotations

import math
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
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
from graphmerge.match.descent import RISE, Proved, descend, gaps
from graphmerge.match.layout import Plan, plans
from graphmerge.match.refine import refine
from graphmerge.match.start import place
from graphmerge.match.task import Found, Keep, Task, forget
from graphmerge.match.weights import WeightSimilarity, inner
from graphmerge.symmetry import ModelGraph, Transform
from graphmerge.symmetry.structure import Structure

PERFECT = 1e-6
"""Relative distance to the Cauchy-Schwarz bound at which nothing can be gained any more."""

NEAR = 0.5
"""Part of that bound from which on two models are taken for relatives that the placement has found."""

LITTLE = 0.01
"""Relative gain of the first sweeps up to which their beginning had all but found the optimum.

Restarts of strangers then gained nothing in any of the pairs measured (see BENCHMARKS.md); above it they
mostly do. Relatives are restarted in any case: two groups may hold each other in the wrong place.
"""

HEAT = 4
"""Sweeps after which the better of two beginnings is told: it alone descends further."""

MOST = 100
"""Sweeps of one descent."""

Plans = Mapping[str, Plan]


@dataclass
class Course:
    """A descent: where it is, how it came there, and which groups are proved to be where they belong."""

    similarity: WeightSimilarity
    steps: list[Step]
    proved: Proved
    converged: bool = False

    @property
    def objective(self) -> float:
        return self.similarity.objective


def match_weights(task: Task) -> Found:
    """Coordinate descent on the inner product of parameters, then restarts."""
    graph = task.graph
    a, b = COSTS[task.options["cost"]](task)
    work = plans(graph, graph.structure, {n: x for n, x in graph.structure.labels.items() if n in a})
    bound = sum(math.sqrt(inner(t, t) * inner(b[n], b[n])) for n, t in a.items())
    course, other = Course(WeightSimilarity(a, b, task.start or graph.identity()), [], {}), None
    start = course.objective
    if task.start is None and start < bound * (1 - PERFECT):
        with task.stage("placement"):
            trial = course.similarity.fork()
            placed, proved = place(trial, work)
            trial.forget()  # the descent keeps those that it comes back to
        if placed.objective > start:  # models that share their training are already in place
            course, other = Course(trial, [placed], proved), course
            task.keep(trial.transform, trial.objective)
    reached = [course.objective]
    course.converged = _perfect(course, bound)
    if not course.converged:
        course, reached = _descended(task, course, other, work, bound)
    similarity = course.similarity
    with task.stage("certificate"):
        if _perfect(course, bound):  # the models are the same but for their order
            certificate = dict.fromkeys(work, max(0.0, bound - course.objective))
        else:
            certificate = gaps(similarity, work, course.proved)
            similarity.forget()
        alike = {g: n for g, p in work.items() if (n := similarity.twins(p.sites))}
        notes = {"bound": bound, "ambiguous": alike}
    return Found(
        similarity.transform,
        similarity.measure(),
        start,
        tuple(course.steps),
        course.converged,
        tuple(reached),
        certificate,
        notes,
    )


def _perfect(course: Course, bound: float) -> bool:
    """No order of any units can gain anything."""
    return course.objective >= bound * (1 - PERFECT) > 0


def _descended(
    task: Task, course: Course, other: Course | None, work: Plans, bound: float
) -> tuple[Course, list[float]]:
    """One descent, then restarts until they are used up, or the time is.

    A restart places neighbouring pairs anew; once that gains nothing, the next ones descend from either
    beginning in turn, with the groups in other orders. Second, the objective after the descent and each
    restart.
    """
    deadline = time.perf_counter() + (task.options["seconds"] or math.inf)
    begins = [(c.similarity.transform, tuple(c.steps)) for c in (course, other) if c]
    course, pairs = _first_descent(task, course, other, work, bound, deadline)
    reached = [course.objective]
    for k in range(0 if pairs else 1, task.options["restarts"] - 1):
        if _perfect(course, bound) or time.perf_counter() > deadline:
            break
        if pairs:
            pairs = _pairs_anew(task, course, work, deadline)
        else:
            another = _anew(replace(task, seed=task.seed + k), course, *begins[k % len(begins)], work)
            pairs = another.objective > course.objective + RISE * abs(course.objective)
            course = another if pairs else course
            task.keep(course.similarity.transform, course.objective)
        reached.append(course.objective)
    return course, reached


def _first_descent(
    task: Task, course: Course, other: Course | None, work: Plans, bound: float, deadline: float
) -> tuple[Course, bool]:
    """The descent from ``course``, or from ``other`` where that is higher after ``HEAT`` sweeps.

    That is not tried of models clearly near each other, nor where the first sweeps found ``LITTLE`` left to
    do. Second, whether pairs are worth placing anew, which in this last case they are not.
    """
    both, before = other is not None and task.options["restarts"] > 1, course.objective
    _sweep(task, course, work, HEAT if both else MOST)
    far, gain = course.objective < NEAR * bound, course.objective - before
    settled = far and task.start is None and gain <= LITTLE * abs(course.objective)
    if far and not settled and both and other is not None and time.perf_counter() < deadline:
        course.similarity.forget()
        _sweep(task, other, work, HEAT, forget)
        course = max(course, other, key=lambda c: c.objective)
        task.keep(course.similarity.transform, course.objective)
    _sweep(task, course, work)
    return course, not settled


def _pairs_anew(task: Task, course: Course, work: Plans, deadline: float) -> bool:
    """Restart the pairs of neighbouring groups, and descend further: whether anything was gained."""
    with task.stage("restarts"):
        course.similarity, found = refine(
            course.similarity, work, _next_sweep(course), task.progress, deadline, task.keep
        )
    if found:
        course.steps += found
        course.proved.clear()
        course.converged = False
        _sweep(task, course, work)
    return bool(found)


def _anew(task: Task, course: Course, begin: Transform, steps: Sequence[Step], work: Plans) -> Course:
    """A descent from ``begin``, which ``steps`` led to; the task's seed decides the order of the groups."""
    course.similarity.forget()
    found = Course(course.similarity.at(begin), list(steps), {})
    _sweep(task, found, work, keep=forget)
    return found


def _sweep(task: Task, course: Course, work: Plans, most: int = MOST, keep: Keep | None = None) -> None:
    """Descend further, for ``most`` sweeps at most; ``keep`` is told of each step (None: the task is)."""
    if course.converged:
        return
    with task.stage("descent"):
        found, course.converged = descend(
            course.similarity, work, task.seed, most, _next_sweep(course), task.progress, keep or task.keep,
            course.proved,
        )  # fmt: skip
    course.steps += found


def _next_sweep(course: Course) -> int:
    return course.steps[-1].sweep + 1 if course.steps else 0


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
