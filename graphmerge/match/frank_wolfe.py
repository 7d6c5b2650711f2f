"""Frank-Wolfe on the inner product of the parameters of two models, then coordinate descent.

Source: C2M3, Crisostomi et al. 2024, arXiv 2405.17897, section 3, for two models.
"""

from __future__ import annotations

from dataclasses import replace

import torch

from graphmerge.match.alignment import START
from graphmerge.match.climb import blurred, climb
from graphmerge.match.coordinate import match_weights
from graphmerge.match.costs import COSTS
from graphmerge.match.relaxed import hardened
from graphmerge.match.search import WEIGHT_OPTIONS, Record, beginning, identical
from graphmerge.match.task import Found, Task
from graphmerge.symmetry import Transform
from graphmerge.trace.run import device_of


def match_frank_wolfe(task: Task) -> Found:
    """All groups at once on doubly stochastic matrices; the nearest permutations, and descent from there."""
    o, graph = task.options, task.graph
    a, b = COSTS[o["cost"]](task)

    def inner(t: Transform) -> float:
        return sum(float((a[n] * t.apply_to(n, b[n])).sum(dtype=torch.float64)) for n in a)

    begin = beginning(task)
    record = Record(inner, begin, task)
    if identical(task):
        return record.found()
    with task.stage("frank-wolfe"):
        moved = {n: begin.apply_to(n, t) for n, t in b.items()}
        soft = blurred(graph.structure, o["trust"], device_of(a))
        climbed = climb(graph.structure, (a, moved), ({}, soft), o["steps"], task.progress)
    record.offer(hardened(graph.identity(), climbed.soft[1]) @ begin, START)
    notes = {"relaxed": list(climbed.course), "frank-wolfe gap": climbed.gap}
    if o["finish"] == "none":
        return replace(record.found(**notes), converged=climbed.converged)
    settings = WEIGHT_OPTIONS | {"cost": o["cost"], "restarts": o["restarts"]}
    found = match_weights(replace(task, start=record.best, options=settings))
    history = (*record.steps, *found.history)
    return replace(found, start=record.start, history=history, notes={**found.notes, **notes})
