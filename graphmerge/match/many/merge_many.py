"""Each model in turn is matched to the mean of the others, until none moves.

The inner product with the mean of the others is, up to a factor, that part of the all-pairs objective
which depends on the model: this is coordinate descent on it, model by model, and never lowers it.

Source: Git Re-Basin, Ainsworth et al. 2022, arXiv 2209.04836, algorithm 3 (MergeMany).
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from graphmerge.match.alignment import Step
from graphmerge.match.descent import RISE
from graphmerge.match.many.job import Job, Placed, mean
from graphmerge.symmetry import Transform


def merge_many(job: Job) -> Placed:
    """From the models as they are; in the first round each is placed as two models would be."""
    return settle(job, [job.graph.identity()] * len(job.states), fresh=True)


def settle(job: Job, begin: Sequence[Transform], fresh: bool) -> Placed:
    """Rounds in an order drawn anew each time, from ``begin``.

    A model is matched anew from where it is, or, in the first round if ``fresh``, from nothing. What comes
    of it is kept where the all-pairs objective rises.
    """
    rng, found = np.random.default_rng(job.seed), list(begin)
    value, history = job.all_pairs(found), list[Step]()
    moved = [t.apply(s) for t, s in zip(found, job.states, strict=True)]
    stale = set(range(len(found)))
    for sweep in range(job.options["rounds"]):
        for i in rng.permutation(sorted(stale)).tolist():
            stale.discard(i)
            others = mean([s for j, s in enumerate(moved) if j != i])
            start = None if fresh and sweep == 0 else found[i]
            trial = job.match(others, job.states[i], start).transform
            now = job.all_pairs([*found[:i], trial, *found[i + 1 :]])
            if now > value + RISE * abs(value):
                units = int((trial.phi != found[i].phi).sum())
                found[i], value, moved[i] = trial, now, trial.apply(job.states[i])
                history.append(Step(sweep, f"model {i}", units, value))
                stale |= set(range(len(found))) - {i}
        if not stale:
            break
    return Placed(tuple(found), tuple(history), not stale)
