"""BatchNorm statistics measured anew on the merged weights."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
import torch.nn.functional as F
from torch import nn

from graphmerge.errors import InputError
from graphmerge.repair.sites import norms
from graphmerge.repair.statistics import Moments
from graphmerge.trace import Program
from graphmerge.trace.run import State, Visit, device_of, fitting, program_for, run_together, tied

MIN_SAMPLES = 32
"""Fewer samples than this say too little about a mean and a variance."""


def reset_batchnorm(model: nn.Module, state: State, data: Iterable[Any]) -> dict[str, torch.Tensor]:
    """``state`` with all BatchNorm running means and variances measured on ``data``.

    One pass, all batches going through the network layer by layer together: each BatchNorm's mean
    and (unbiased) variance are those of all the data, and the layers after it see inputs normalised
    by them. Exact, unlike a moving average or the statistics of single batches. Batches of another
    shape than the first are left out. The live model is not touched.

    Raises InputError where the data holds fewer than 32 samples, or gives NaN.
    """
    program = program_for(model, data)
    with torch.no_grad():
        return reset_on(program, state, data)


def reset_on(program: Program, state: State, data: Iterable[Any]) -> dict[str, torch.Tensor]:
    """``reset_batchnorm`` on a graph traced at the shapes of the data."""
    pools: dict[str, Moments] = {}  # one for each BatchNorm, which may run more than once
    found = {n.node: (n, pools.setdefault(n.mean, Moments())) for n in norms(program)}

    def normalise(visits: list[Visit]) -> list[Any]:
        moments = found[visits[0].node.name][1]
        for v in visits:
            moments.update(v.args[0], 1)
        return [(_normalised(v, moments), *v.value[1:]) for v in visits]

    batches = [x for x in fitting(program, data, device_of(state)) if x is not None] if found else []
    run_together(program, state, batches, found, normalise)
    samples = sum(batch_size(x) for x in batches)
    result = dict(state)
    for norm, moments in found.values():
        require_samples(samples)
        for name, value in ((norm.mean, moments.mean), (norm.var, moments.variance(unbiased=True))):
            result[name] = check_finite(torch.as_tensor(value), name).to(state[name])
    return tied(program, result)


def _normalised(visit: Visit, moments: Moments) -> torch.Tensor:
    x, weight, bias = visit.args[:3]
    mean, var = torch.as_tensor(moments.mean).to(x), moments.variance().to(x)
    return F.batch_norm(x, mean, var, weight, bias, False, 0.0, visit.args[6])


def batch_size(inputs: Any) -> int:
    """Samples in a batch: dimension 0 of its first tensor."""
    return next(
        (len(t) for t in torch.utils._pytree.tree_leaves(inputs) if isinstance(t, torch.Tensor) and t.ndim), 0
    )


def require_samples(samples: int) -> None:
    """Refuse statistics of too few samples."""
    if samples < MIN_SAMPLES:
        raise InputError(
            f"the data gives {samples} samples in batches of one shape; at least {MIN_SAMPLES} are needed"
            " to measure activations: give more data, or batches of equal size"
        )


def check_finite(value: torch.Tensor, name: str) -> torch.Tensor:
    """Refuse statistics that are not finite."""
    if not bool(torch.isfinite(value).all()):
        raise InputError(f"the statistics for {name} are not finite: does the data hold NaN or infinity?")
    return value
