"""BatchNorm statistics measured anew on the merged weights."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import nn

from graphmerge.repair.sites import norms
from graphmerge.repair.statistics import Moments
from graphmerge.repair.task import Repaired, Task, batch_size, check_finite, require_samples
from graphmerge.trace import Program
from graphmerge.trace.run import (
    Inputs,
    State,
    Visit,
    device_of,
    fitting,
    program_for,
    run_together,
    tied,
)


def reset_batchnorm(model: nn.Module, state: State, data: Iterable[Any]) -> dict[str, torch.Tensor]:
    """``state`` with all BatchNorm running means and variances measured on ``data``.

    One pass, all batches going through the network layer by layer together: each BatchNorm's mean
    and (unbiased) variance are those of all the data, and the layers after it see inputs normalised
    by them. Exact, unlike a moving average or the statistics of single batches. Batches of another
    shape than the first are left out. The live model is not touched.

    Raises InputError where the data holds fewer than 32 samples, or gives NaN.
    """
    program = program_for(model, data)
    batches = [x for x in fitting(program, data, device_of(state)) if x is not None]
    require_samples(sum(batch_size(x) for x in batches))
    with torch.no_grad():
        return reset_on(program, state, batches)


def reset(task: Task, merged: State, _: Sequence[float]) -> Repaired:
    """``reset_batchnorm`` as a method of the table; no endpoint is looked at."""
    return Repaired(reset_on(task.program, merged, task.batches))


def reset_on(program: Program, state: State, batches: Sequence[Inputs]) -> dict[str, torch.Tensor]:
    """``reset_batchnorm`` on a graph traced at the shapes of the data."""
    pools, at = pools_of(program)

    def reset_one(visits: list[Visit]) -> list[Any]:
        return normalised(visits, at[visits[0].node.name])

    run_together(program, [(state, x) for x in batches] if at else (), at, reset_one)
    return with_statistics(program, state, pools)


def pools_of(program: Program) -> tuple[dict[str, Moments], dict[str, Moments]]:
    """Moments to be filled, by the name of each BatchNorm's mean, and by the nodes at which it runs."""
    pools: dict[str, Moments] = {}
    at = {n.node: pools.setdefault(n.mean, Moments()) for n in norms(program)}
    return pools, at


def normalised(visits: Sequence[Visit], moments: Moments) -> list[Any]:
    """What a BatchNorm returns by the statistics of all the data, which are added to ``moments``."""
    for v in visits:
        moments.update(v.args[0], 1)
    return [(_normalised(v, moments), *v.value[1:]) for v in visits]


def with_statistics(
    program: Program, state: State, moments: Mapping[str, Moments]
) -> dict[str, torch.Tensor]:
    """``state`` with the running statistics of every BatchNorm, which goes by the name of its mean."""
    result = dict(state)
    for norm in norms(program):
        own = moments[norm.mean]
        for name, value in ((norm.mean, own.mean), (norm.var, own.variance(unbiased=True))):
            result[name] = check_finite(torch.as_tensor(value), f"the statistics for {name}").to(state[name])
    return tied(program, result)


def _normalised(visit: Visit, moments: Moments) -> torch.Tensor:
    x, weight, bias = visit.args[:3]
    mean, var = torch.as_tensor(moments.mean).to(x), moments.variance().to(x)
    return F.batch_norm(x, mean, var, weight, bias, False, 0.0, visit.args[6])
