"""Weighted average of state dicts that already share one frame."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from graphmerge.errors import UsageError
from graphmerge.merge.job import Job
from graphmerge.merge.method import Merged
from graphmerge.merge.tensors import State, require_same_tensors, whole
from graphmerge.precision import weighted_sum


def average(states: Sequence[State], weights: Sequence[float] | None = None) -> dict[str, torch.Tensor]:
    """The weighted sum of state dicts, ``weights`` [model] being used as they are (1/n each by default).

    Floating tensors, buffers too, are summed in float32 (float64 where they are stored so) and
    returned in the dtype of the first. Integer and boolean tensors must be equal in all, counters
    (``num_batches_tracked``) take the maximum. Raises InputError where keys or shapes differ, or
    where another integer tensor does; UsageError where the number of weights is wrong.
    """
    weights = [1 / len(states)] * len(states) if weights is None else list(weights)
    if len(weights) != len(states):
        raise UsageError(f"{len(states)} models but {len(weights)} weights: give one weight per model")
    require_same_tensors(states)
    return {name: _one(name, [s[name] for s in states], weights) for name in states[0]}


def _one(name: str, tensors: Sequence[torch.Tensor], weights: Sequence[float]) -> torch.Tensor:
    if tensors[0].is_complex() or tensors[0].is_floating_point():
        return weighted_sum(tensors, weights).to(tensors[0].dtype)
    return whole(name, tensors)


def linear(job: Job, normalize: int = 0) -> Merged:
    """Parameters: the sum of weight times tensor over the models, whatever the weights add up to.

    With ``normalize`` weights are divided by their sum. The note "weights" has those that were used, by
    tensor where they differ. Raises UsageError where all are 0, or add up to 0 and are to be divided by it.
    """
    rows = {n: _factors(row, normalize) for n, row in job.weights.items() if n in job.parameters}
    merged = job.each_parameter(lambda name: weighted_sum(job.all(name), rows[name]))
    alike = len(set(rows.values())) == 1
    return Merged(merged, {"weights": next(iter(rows.values())) if alike else rows})


def _factors(weights: tuple[float, ...], normalize: int) -> tuple[float, ...]:
    total = sum(weights)
    if not any(weights) or (normalize and not total):
        raise UsageError(
            f"weights {weights}: expected some that are not 0, and a sum that is not to divide by it"
        )
    return tuple(w / total for w in weights) if normalize else weights
