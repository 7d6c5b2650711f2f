"""ODE-M: models come in one after the other, each along a path on which no task's loss may rise.

Source: Lin and Kang 2026, "Unlocking the potential of continual model merging: an ODE perspective",
arXiv 2605.19409, in the form of its authors' published code (``ODEMergingForCLIPVisionModel``).

As published, with the defaults of its configuration. From what is merged so far (time t = 0) a straight
path leads to the next model (t = 1) with velocity u = (next - x) / (1 - t); Euler's method follows it up
to T = 1/k for the k-th model. At every step

1. u is pulled down the losses: by the sum over the tasks of gradient / |gradient|^0.25, of length
   ``descent`` x |u|;
2. what comes of it is rectified to the nearest v with <gradient, v> <= b for each task, where b = 0, or
   below 0 as far as the task has to come back to what it is allowed;
3. of the lengths 1, 0.7, 0.7^2, ... 0.7^7 the first is taken at which no task has more than its
   allowance at the time that the step leads to, and none where there is no such length. The allowance
   at t is (1 - t) x loss at 0 + t x loss at 1 + ``budget`` x (1 - t)^2.

Not as published. T is the share of the next model among those merged so far (with equal shares 1/k), by
tensor where shares are; the last step ends at T, where theirs ends at the last hundredth before. Models
come in the order given; theirs is drawn. All tasks bound the velocity, where theirs are up to four: those
farthest above their allowance, and those that u would harm most (the same for two tasks). All gradients
are of all the data; theirs in 2 are of one batch. BatchNorm, which theirs has not, normalises by the batch
on the path. Their refinement after it, 80 small steps of AdamW, is left out: fine-tuning is a repair here.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from statistics import fmean
from typing import Any

import torch
import torch.nn.functional as F
from scipy.optimize import nnls

from graphmerge.errors import InputError
from graphmerge.match.objective import outputs_between
from graphmerge.merge.job import Job
from graphmerge.merge.method import Merged
from graphmerge.merge.tensors import State
from graphmerge.metrics import targets_of
from graphmerge.precision import wide
from graphmerge.trace.run import readable_again, split_batch, to_device

LENGTHS = tuple(0.7**k for k in range(8))
"""Parts of a step that are tried, in this order."""

EVENNESS = 0.25
"""Gradients are divided by this power of their lengths before they are added up."""

RIDGE = 1e-6
"""Added to the Gram matrix of the gradients, each of length 1, so that it can be inverted."""

PART = 1 << 22
"""Entries of the gradients that are held in float64 at a time."""


@dataclass(frozen=True)
class Leg:
    """The way to one further model, whose moving tensors are one vector [entry], float32 or wider.

    ``ends`` has for each moving tensor the time at which it stops; ``rest`` is a whole state dict, with what
    does not move; ``tasks`` are the batches of each model merged by then, by its number from 1.
    """

    job: Job
    rest: State
    ends: Mapping[str, float]
    tasks: Mapping[int, Sequence[Any]]

    @cached_property
    def times(self) -> torch.Tensor:
        """The time at which each entry stops [entry]."""
        parts = [torch.full_like(wide(self.rest[n]), end).flatten() for n, end in self.ends.items()]
        return torch.cat(parts)

    def vector(self, state: State) -> torch.Tensor:
        """What moves, of a state dict."""
        return torch.cat([wide(state[n]).flatten() for n in self.ends])

    def tensors(self, x: torch.Tensor) -> dict[str, torch.Tensor]:
        """The moving tensors that a vector holds."""
        parts = torch.split(x, [self.rest[n].numel() for n in self.ends])
        return {n: part.view(self.rest[n].shape) for n, part in zip(self.ends, parts, strict=True)}

    def losses(self, x: torch.Tensor) -> torch.Tensor:
        """The loss of each task [task] (float64), the mean over its batches."""
        return torch.stack([torch.stack([self._loss(x, b) for b in t]).mean() for t in self.tasks.values()])

    def slopes(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """The losses [task], and their gradients [task, entry]; InputError where one is not finite."""
        losses, gradients = [], []
        for which, batches in self.tasks.items():
            found, total = [], torch.zeros_like(x)
            for batch in batches:
                with torch.enable_grad():
                    at = x.detach().requires_grad_()
                    loss = self._loss(at, batch)
                    total += torch.autograd.grad(loss, at, allow_unused=True, materialize_grads=True)[0]
                found.append(loss.detach())
            losses.append(torch.stack(found).mean())
            gradients.append(total / len(batches))
            if not bool(torch.isfinite(losses[-1]) & torch.isfinite(gradients[-1]).all()):
                raise InputError(
                    f"the loss on the data of model {which}, or its gradient, is not finite:"
                    " does the data hold NaN or infinity?"
                )
        return torch.stack(losses), torch.stack(gradients)

    def _loss(self, x: torch.Tensor, batch: Any) -> torch.Tensor:
        """The loss of one batch, run in the dtype of the first model."""
        state = {**self.rest, **self.tensors(x)}
        state = {n: t.to(self.job.states[0][n].dtype) for n, t in state.items()}
        args, kwargs = to_device(split_batch(batch), x.device)
        outputs = outputs_between(self.job.graph.model, self.job.full(state), args, kwargs)
        return self.job.loss.mean(outputs, targets_of(batch).to(x.device)).double()


def ode_merge(job: Job, step: float, budget: float, descent: float) -> Merged:
    """The models merged one after the other, each along a path from what is merged so far.

    ``step`` is the length of an Euler step in time. The notes are the "losses" of the tasks at the end, and
    of the "steps" how many were "shortened" and how many "refused".
    """
    state = replace(job, out_dtype=None).each_parameter(lambda name: wide(job.states[0][name]))
    used = [any(row[k] for row in job.weights.values()) for k in range(len(job.states))]
    tasks = {k: _listed(data, k) for k, data in enumerate(job.data, 1) if used[k - 1]}
    lengths, losses = list[float](), list[float]()
    for k, model in enumerate(job.states[1:], 2):
        ends = {n: _share(job.weights[n][:k]) for n in job.states[0] if n in job.parameters}
        state |= {n: wide(model[n]) for n, end in ends.items() if end == 1}
        moving = {n: end for n, end in ends.items() if 0 < end < 1}
        if not moving:
            continue
        leg = Leg(job, state, moving, {j: t for j, t in tasks.items() if j <= k})
        x = leg.vector(state)
        x, taken = _follow(leg, x, leg.vector(model), step, budget, descent)
        lengths, losses = [*lengths, *taken], leg.losses(x).tolist()
        state |= leg.tensors(x)
    notes = {
        "losses": losses,
        "steps": len(lengths),
        "shortened": sum(0 < length < 1 for length in lengths),
        "refused": lengths.count(0),
    }
    return Merged(job.each_parameter(lambda name: state[name]), notes)


def _listed(data: Iterable[Any], which: int) -> list[Any]:
    """All batches of a model, which are gone through at every step."""
    if batches := list(readable_again(data)):
        return batches
    raise InputError(f"the data of model {which} holds no batch: nothing to measure its loss on")


def _share(weights: Sequence[float]) -> float:
    """That of the last of them."""
    return weights[-1] / sum(weights) if weights[-1] else 0.0


def _follow(
    leg: Leg, x: torch.Tensor, goal: torch.Tensor, step: float, budget: float, descent: float
) -> tuple[torch.Tensor, list[float]]:
    """Where Euler's method ends that starts at ``x``, and the part of every step that was taken.

    Time runs here from 0 to 1 for every tensor, of which that is its end: so one step has one length.
    """
    end = fmean(leg.ends.values())
    steps = max(1, math.ceil(end / step - 1e-9))
    (losses, slopes), there = leg.slopes(x), leg.slopes(goal)[0]
    here, lengths = losses, list[float]()
    for k in range(steps):
        leg.job.progress(f"ODE-M: model {max(leg.tasks)}, step {k + 1} of {steps}")
        if k and lengths[-1]:
            losses, slopes = leg.slopes(x)
        at = end * (k + 1) / steps
        allowed = (1 - at) * here + at * there + budget * (1 - at) ** 2
        u = leg.times * (goal - x) / (1 - k / steps * leg.times)
        pulled = u - descent * u.norm() * _steepest(slopes)
        v = rectified(pulled, slopes, ((allowed - losses) * steps).clamp_max(0)) / steps
        fits = (c for c in LENGTHS if bool((leg.losses(x + c * v) <= allowed).all()))
        lengths.append(next(fits, 0.0))
        x = x + lengths[-1] * v
    return x, lengths


def _steepest(gradients: torch.Tensor) -> torch.Tensor:
    """The direction in which the losses rise together, of length 1; 0 where there is none."""
    sizes = gradients.norm(dim=1, keepdim=True)
    tiny = torch.finfo(sizes.dtype).tiny
    return F.normalize((gradients / sizes.clamp_min(tiny) ** EVENNESS).sum(0), dim=0)


def rectified(v: torch.Tensor, gradients: torch.Tensor, bounds: torch.Tensor) -> torch.Tensor:
    """The nearest to v [entry] of which the product with each gradient [task, entry] is within its bound.

    It is v less the gradients times multipliers of at least 0, which solve a nonnegative least squares
    problem of the size of the tasks. Bounds that contradict each other are met as well as can be.
    """
    gram = torch.stack([(p := part.double()) @ p.mT for part in torch.split(gradients, PART, dim=1)]).sum(0)
    sizes = gram.diagonal().sqrt()
    scale = torch.where(sizes > 0, 1 / sizes, 0.0)
    factor = torch.linalg.cholesky(gram * scale * scale[:, None] + RIDGE * torch.eye(len(gram)).to(gram))
    excess = scale * ((gradients @ v).double() - bounds)
    right = torch.linalg.solve_triangular(factor, excess[:, None], upper=False)[:, 0]
    found, _ = nnls(factor.mT.cpu().numpy(), right.cpu().numpy())
    return v - (scale * torch.from_numpy(found).to(scale)).to(v.dtype) @ gradients
