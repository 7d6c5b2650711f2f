"""Simulated annealing over permutations: slow, blind, and in the end right, which makes it an oracle.

Source: Entezari et al. 2021, The role of permutation invariance in linear mode connectivity of neural
networks, arXiv 2110.06296, section 4. There every layer exchanges two units at once; here one does,
for else the parities of all layers stay tied and half of the combinations are never seen.
"""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np

from graphmerge.match.search import Record, beginning, identical, path_of
from graphmerge.match.task import Found, Task
from graphmerge.symmetry import Transform


def match_annealing(task: Task) -> Found:
    """Exchange two units of one group at a time; worse is accepted the less, the colder it is."""
    o = task.options
    path = path_of(task)
    record = Record(lambda t: -path.midpoint(t), beginning(task), task)
    now, value = record.best, record.objective
    rng = np.random.default_rng(task.seed)
    if identical(task) or not task.graph.structure.atoms:
        return record.found()
    for step in range(1, o["steps"] + 1):
        heat = o["hot"] * (o["cold"] / o["hot"]) ** (step / o["steps"])
        trial = _exchanged(now, rng)
        found = record.offer(trial, step)
        if found > value or rng.random() < math.exp((found - value) / heat):
            now, value = trial, found
        task.progress(f"matching: step {step} of {o['steps']}, midpoint loss {-value:.4f}")
    return record.found()


def _exchanged(t: Transform, rng: np.random.Generator) -> Transform:
    """``t``, and then two units of one fibre of one group exchanged."""
    structure = t.structure
    k = int(rng.choice(structure.atoms))
    sort = structure.sorts[k]
    places = np.tile(np.arange(sort.size), (sort.order, 1))
    i, j = rng.choice(sort.size, 2, replace=False)
    row = places[rng.integers(sort.order)]
    row[[i, j]] = row[[j, i]]
    return replace(t, phi=structure.extend({k: places})[t.phi])
