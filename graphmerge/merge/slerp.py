"""Spherical interpolation: along the arc between two models rather than the chord."""

from __future__ import annotations

import math

import torch

from graphmerge.merge.job import Job
from graphmerge.merge.method import Merged
from graphmerge.precision import weighted_sum, wide

STRAIGHT = 1e-4
"""Angle in radians below which the arc is taken for the chord (their difference is of its square)."""


def slerp(job: Job, scope: str) -> Merged:
    """(sin((1 - t) W) a + sin(t W) b) / sin W, with W the angle between a and b, t the share of b.

    ``scope`` "tensor" takes the angle of each parameter, "model" that of all parameters as one vector.
    Where the angle is 0, or the models point in opposite directions, it is the straight average.
    Source: Shoemake 1985, "Animating rotation with quaternion curves", section 3.3.
    """
    dots = {name: _products(job, name) for name in sorted(job.parameters)}
    if scope == "model":
        together = torch.stack(list(dots.values())).sum(0)
        dots = dict.fromkeys(dots, together)

    def one(name: str) -> torch.Tensor:
        return weighted_sum(job.all(name), _arc(dots[name], job.weights[name][1]))

    return Merged(job.each_parameter(one))


def _products(job: Job, name: str) -> torch.Tensor:
    """Inner products aa, bb, ab of a parameter in float64."""
    a, b = (wide(t).double().flatten() for t in job.all(name))
    return torch.stack([a @ a, b @ b, a @ b])


def _arc(products: torch.Tensor, t: float) -> tuple[float, float]:
    """The coefficients of a and b."""
    aa, bb, ab = products.tolist()
    length = math.sqrt(aa * bb)
    angle = math.acos(max(-1.0, min(1.0, ab / length))) if length else 0.0
    if angle < STRAIGHT or math.pi - angle < STRAIGHT:
        return 1 - t, t
    return math.sin((1 - t) * angle) / math.sin(angle), math.sin(t * angle) / math.sin(angle)
