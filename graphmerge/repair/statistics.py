"""Means and standard deviations of units, streamed over data in float64."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch


@dataclass
class Moments:
    """Count, mean [unit] and sum of squared deviations [unit], merged exactly from batch to batch.

    Source: Chan, Golub, LeVeque 1983, the pairwise update of the variance.
    """

    count: int = 0
    mean: torch.Tensor | float = 0.0
    squares: torch.Tensor | float = 0.0

    def update(self, x: torch.Tensor, unit_dim: int) -> None:
        """Add the values of ``x``, whose dimension ``unit_dim`` is the unit."""
        rows = x.detach().movedim(unit_dim, 0).flatten(1).double()
        n, mean = rows.shape[1], rows.mean(1)
        squares = (rows - mean[:, None]).square().sum(1)
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


def goal(moments: Sequence[Moments], weights: Sequence[float]) -> tuple[torch.Tensor, torch.Tensor]:
    """Means and standard deviations [unit] interpolated between models (REPAIR, equation 4).

    Standard deviations are interpolated, not variances: it is their shrinking that is repaired.
    """
    mean = sum(torch.as_tensor(m.mean) * w for m, w in zip(moments, weights, strict=True))
    std = sum(m.std() * w for m, w in zip(moments, weights, strict=True))
    return torch.as_tensor(mean), torch.as_tensor(std)
