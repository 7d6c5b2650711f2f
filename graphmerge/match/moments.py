"""Second moments of the units of two models side by side, streamed, and what is told from them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch

STATISTICS: Mapping[str, tuple[bool, bool]] = {
    "correlation": (True, True),
    "covariance": (True, False),
    "cosine": (False, True),
    "product": (False, False),
}
"""What is compared: whether it is centred; whether each unit is scaled to size 1, or a site as a whole."""


@dataclass
class Moments:
    """Streamed second moments of the rows of one site, about a fixed shift (float64)."""

    count: int
    shift: tuple[torch.Tensor, torch.Tensor]
    sums: tuple[torch.Tensor, torch.Tensor]
    squares: tuple[torch.Tensor, torch.Tensor]
    cross: torch.Tensor

    def similarity(self, statistic: str) -> torch.Tensor:
        """A key of ``STATISTICS`` [row of a, row of b] (float32).

        Scaled so that a site compared with itself sums to its rows. Rows that are 0 throughout (that
        never vary, where it is centred) are like none.
        """
        centred, by_row = STATISTICS[statistic]
        near = [s / self.count for s in self.sums]  # the means, about the shift
        means = [m + s[:, 0] for m, s in zip(near, self.shift, strict=True)]
        powers = [(q / self.count - m * m).clamp_min(0) for q, m in zip(self.squares, near, strict=True)]
        product = self.cross / self.count - near[0][:, None] * near[1]
        if not centred:
            powers = [p + m * m for p, m in zip(powers, means, strict=True)]
            product = product + means[0][:, None] * means[1]
        left, right = (_scales(p, by_row) for p in powers)
        return (product * left[:, None] * right).float()


def _scales(powers: torch.Tensor, by_row: bool) -> torch.Tensor:
    """What each row is multiplied by, so that its power is 1, or 1 in the mean of all."""
    sizes = powers.sqrt() if by_row else powers.mean().sqrt().expand_as(powers)
    alive = powers.sqrt() > 1e-6 * powers.max().sqrt().clamp_min(1e-30)
    return torch.where(alive, 1 / sizes.clamp_min(1e-30), 0)


def update(moments: Moments | None, a: torch.Tensor, b: torch.Tensor) -> Moments:
    """Add samples [row, sample] of both models."""
    if moments is None:
        zeros = [torch.zeros(len(x), dtype=torch.float64, device=x.device) for x in (a, b, a, b)]
        cross = torch.zeros(len(a), len(b), dtype=torch.float64, device=a.device)
        shift = (a.mean(1, keepdim=True), b.mean(1, keepdim=True))
        moments = Moments(0, shift, (zeros[0], zeros[1]), (zeros[2], zeros[3]), cross)
    a, b = a - moments.shift[0], b - moments.shift[1]
    moments.count += a.shape[1]
    for x, total, square in zip((a, b), moments.sums, moments.squares, strict=True):
        total += x.sum(1).double()
        square += torch.linalg.vecdot(x, x).double()
    moments.cross += a @ b.T
    return moments
