"""Means and spreads of units, streamed over data: summed up in float64, exact from batch to batch."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch

from graphmerge.precision import wide

PART = 1 << 20
"""Numbers that are taken at a time."""


def _mean_and_squares(x: torch.Tensor, dims: list[int]) -> tuple[torch.Tensor, torch.Tensor]:
    """The mean over dimensions, which are kept, and the sum of squared deviations from it, in float32."""
    x = wide(x)
    mean = x.mean(dims, keepdim=True)
    return mean, (x - mean).square_().sum(dims, keepdim=True)


@dataclass
class Moments:
    """Count, mean [unit] and sum of squared deviations [unit], merged exactly from batch to batch.

    Source: Chan, Golub, LeVeque 1983, the pairwise update of the variance.
    """

    count: int = 0
    mean: torch.Tensor | float = 0.0
    squares: torch.Tensor | float = 0.0

    def update(self, x: torch.Tensor, unit_dim: int) -> None:
        """Add the values of ``x``, whose dimension ``unit_dim`` is the unit.

        What is summed up in float32 is at most a batch, around its own mean. Batches are taken in parts
        that stay in the cache: a copy of a large ``x`` would cost several times as much as the sums.
        """
        unit = unit_dim % x.ndim
        x = x.detach()
        inner = [d for d in range(1, x.ndim) if d != unit]
        if unit == 0 or not inner:  # units without a dimension of examples before, or nothing else
            inner, split = [d for d in range(x.ndim) if d != unit], [x]
        else:
            split = list(torch.split(x, max(1, PART * len(x) // max(1, x.numel()))))
        found = [_mean_and_squares(part, inner) for part in split]
        means, parts = (  # [unit, part]
            torch.cat([t.movedim(unit, 0).flatten(1) for t in each], 1).double()
            for each in zip(*found, strict=True)
        )
        n = x.numel() // len(means)
        mean = means.mean(1)
        spread = (means - mean[:, None]).square().sum(1) * (n / means.shape[1])
        self._merge(n, mean, parts.sum(1) + spread)

    def _merge(self, n: int, mean: torch.Tensor, squares: torch.Tensor) -> None:
        delta, total = mean - self.mean, self.count + n
        self.mean = self.mean + delta * (n / total)
        self.squares = self.squares + squares + delta.square() * (self.count * n / total)
        self.count = total

    def variance(self, unbiased: bool = False) -> torch.Tensor:
        """Variance [unit] over all values seen."""
        return torch.as_tensor(self.squares) / max(self.count - unbiased, 1)

    def std(self) -> torch.Tensor:
        """Standard deviation [unit]."""
        return self.variance().sqrt()


@dataclass
class JointMoments:
    """``Moments`` of several signals at once: mean [signal, unit], squares [signal, signal, unit]."""

    count: int = 0
    mean: torch.Tensor | float = 0.0
    squares: torch.Tensor | float = 0.0

    def update(self, signals: Sequence[torch.Tensor], unit_dim: int) -> None:
        """Add the values of signals of one shape, whose dimension ``unit_dim`` is the unit."""
        rows = torch.stack([s.detach().movedim(unit_dim, 0).flatten(1).double() for s in signals])
        n, mean = rows.shape[2], rows.mean(2)
        centred = rows - mean[:, :, None]
        delta, total = mean - self.mean, self.count + n
        self.mean = self.mean + delta * (n / total)
        self.squares = self.squares + torch.einsum("iun,jun->iju", centred, centred)
        self.squares = self.squares + delta[:, None] * delta[None] * (self.count * n / total)
        self.count = total

    def covariance(self) -> torch.Tensor:
        """Covariance [signal, signal, unit] over all values seen."""
        return torch.as_tensor(self.squares) / max(self.count, 1)

    def of(self, signal: int) -> Moments:
        """The moments of one signal."""
        mean, squares = torch.as_tensor(self.mean), torch.as_tensor(self.squares)
        return Moments(self.count, mean[signal], squares[signal, signal])

    def mixture(self, weights: Sequence[float]) -> Moments:
        """The moments of the weighted sum of the signals."""
        mean, squares = torch.as_tensor(self.mean), torch.as_tensor(self.squares)
        w = torch.tensor(weights, dtype=mean.dtype, device=mean.device)
        return Moments(self.count, w @ mean, torch.einsum("i,j,iju->u", w, w, squares))


Goal = tuple[torch.Tensor, torch.Tensor]
"""A mean and a standard deviation [unit] to be reached (float64)."""


def goal(moments: Sequence[Moments], weights: Sequence[float]) -> Goal:
    """Means and standard deviations [unit] interpolated between models (REPAIR, equation 4).

    Standard deviations are interpolated, not variances: it is their shrinking that is repaired.
    """
    mean = sum(torch.as_tensor(m.mean) * w for m, w in zip(moments, weights, strict=True))
    std = sum(m.std() * w for m, w in zip(moments, weights, strict=True))
    return torch.as_tensor(mean), torch.as_tensor(std)
