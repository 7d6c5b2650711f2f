"""Each model matched to one of them, for itself."""

from __future__ import annotations

from graphmerge.errors import UsageError
from graphmerge.match.many.job import Job, Placed


def to_reference(job: Job) -> Placed:
    """Every model into the frame of model ``reference`` (counted from 0)."""
    chosen = job.options["reference"]
    if chosen >= len(job.states):
        raise UsageError(f"option reference={chosen}: there are {len(job.states)} models, counted from 0")
    a = job.states[chosen]
    found = {i: job.match(a, b) for i, b in enumerate(job.states) if i != chosen}
    transforms = tuple(
        found[i].transform if i in found else job.graph.identity() for i in range(len(job.states))
    )
    return Placed(
        transforms,
        converged=all(x.converged for x in found.values()),
        direct=tuple(found.values()) if chosen == 0 else (),
    )
