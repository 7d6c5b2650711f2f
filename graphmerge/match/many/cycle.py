"""Every model into one common frame (a universe) at once: cycle-consistent by construction.

Frank-Wolfe raises the sum over all pairs of models of the inner products of their parameters, over the
symmetries of all models together; then each model takes the nearest permutations, and coordinate descent
on the same objective, one model against the mean of the others, goes on from there (see ``merge_many``).

Moving all models by one more symmetry changes no inner product. So the universe may be the frame of one
of them, and the first stays where it is: nothing is lost, and the relaxed symmetries of the others may
start from no order at all, where none of them would know which way to go if the first were free as well.

Source: C2M3, Crisostomi et al. 2024, Cycle-consistent multi-model merging, arXiv 2405.17897, section 3.
"""

from __future__ import annotations

from dataclasses import replace

from graphmerge.match.alignment import START, Step
from graphmerge.match.climb import blurred, climb
from graphmerge.match.many.job import Job, Placed
from graphmerge.match.many.merge_many import settle
from graphmerge.match.relaxed import hardened
from graphmerge.trace.run import device_of


def cycle_consistent(job: Job) -> Placed:
    """Frank-Wolfe over all models, the nearest permutations, and descent."""
    identity, o = job.graph.identity(), job.options
    here = (identity,) * len(job.states)
    soft = blurred(job.graph.structure, o["trust"], device_of(job.parameters[0]))
    climbed = climb(
        job.graph.structure, job.parameters, [{}, *[soft] * (len(here) - 1)], o["steps"], job.progress
    )
    rounded = tuple(hardened(identity, s) for s in climbed.soft)
    value, history = job.all_pairs(rounded), tuple[Step, ...]()
    if value > job.all_pairs(here):
        units = sum(int((t.phi != identity.phi).sum()) for t in rounded)
        here, history = rounded, (Step(START, "all models", units, value),)
    found = settle(job, here, fresh=False)
    notes = {"relaxed": list(climbed.course), "frank-wolfe gap": climbed.gap}
    return replace(found, history=(*history, *found.history), notes=notes)
