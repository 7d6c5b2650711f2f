"""Softmax temperature: the logits of a merged network are too flat; divide them by one number.

Source: Guo et al. 2017, "On calibration of modern neural networks", arXiv 1706.04599, section 4.2; for
merged wide networks Ito et al. 2025, arXiv 2510.08023, section 3. Fused into the last weights.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch

from graphmerge.errors import InputError
from graphmerge.losses import classified
from graphmerge.metrics import targets_of
from graphmerge.repair.scaling import scales_of_output
from graphmerge.repair.task import Repaired, Task, check_finite
from graphmerge.trace.run import State, call, device_of, readable_again, split_batch, tied, to_device

LARGEST = 100.0
"""Temperatures are sought from the inverse of this to this."""

_STEPS = 200
_CLOSE = 1e-8


def temperature(task: Task, merged: State, weights: Sequence[float], reference: str) -> Repaired:
    """Logits over T, the temperature of least cross-entropy on the data.

    ``reference`` "endpoints" asks for the calibration that the endpoints have: T is divided by the
    geometric mean of theirs under the weights, so that nothing changes at an endpoint, and data that
    the models were trained on do not mislead. "none" takes T as it is, as published. All logits of the
    data are held in memory. TraceError where no weights scale the output.
    """
    names = scales_of_output(task.program)
    log_t = math.log(best_temperature(task, merged))
    if reference == "endpoints":
        own = task.once("temperatures", lambda: [best_temperature(task, s) for s in task.endpoints])
        log_t -= sum(w * math.log(t) for w, t in zip(weights, own, strict=True))
    t = math.exp(log_t)
    state = {n: (x.double() / t).to(x.dtype) if n in names else x for n, x in merged.items()}
    return Repaired(tied(task.program, state), {"temperature": t, "scaled": sorted(names)})


def best_temperature(task: Task, state: State) -> float:
    """The temperature of least cross-entropy of ``state`` on the data; targets of -100 do not count."""
    each: list[torch.Tensor] = []
    right: list[torch.Tensor] = []
    for batch in readable_again(task.data):
        task.progress(f"logits of batch {len(each) + 1}")
        args, kwargs = to_device(split_batch(batch), device_of(state))
        outputs = call(task.graph.model, state, args, kwargs)
        logits, targets = classified(outputs, targets_of(batch).to(device_of(state)))
        each.append(logits)
        right.append(targets)
    if not any(map(len, right)):
        raise InputError("the data holds no target: nothing to fit a temperature on")
    return fit_temperature(torch.cat(each), torch.cat(right))


def fit_temperature(logits: torch.Tensor, targets: torch.Tensor) -> float:
    """The T from 1/100 to 100 with the least cross-entropy of ``logits`` [prediction, class] / T.

    Newton's method on 1/T, in which the loss is convex, held between bounds that close in. InputError for
    logits that are not finite.
    """
    z = check_finite(logits, "the logits").double()
    z = z - z.max(-1, keepdim=True).values
    own = z.gather(1, targets[:, None])[:, 0].mean()
    low, high, at = 1 / LARGEST, LARGEST, 1.0
    for _ in range(_STEPS):
        p = (at * z).softmax(-1)
        mean = (p * z).sum(-1)
        slope = float(mean.mean() - own)
        curvature = float(((p * z.square()).sum(-1) - mean.square()).mean())
        low, high = (at, high) if slope < 0 else (low, at)
        step = at - slope / curvature if curvature > 0 else math.inf
        if abs(step - at) <= _CLOSE * at:
            break
        at = step if low < step < high else math.sqrt(low * high)
    return 1 / at
