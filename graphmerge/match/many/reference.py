"""Each model matched to one of them, for itself."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from graphmerge.errors import UsageError
from graphmerge.match.many.job import Job, Placed


def to_reference(job: Job) -> Placed:
    """Every model into the frame of model ``reference`` (counted from 0)."""
    chosen = job.options["reference"]
    require_reference(job.options, len(job.states))
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


def require_reference(options: Mapping[str, Any], models: int) -> None:
    """UsageError where ``options`` of a way name a model that there is not."""
    chosen = options.get("reference", 0)
    if chosen >= models:
        raise UsageError(f"option reference={chosen}: there are {models} models, counted from 0")
