"""Units that could change places with another at no loss: dead ones, and duplicates."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import nn

SKETCH = 8
"""Random combinations of the parameters of a unit by which it is told from others."""

TIE = 1e-10
"""Relative squared distance of two units that counts as none: the rounding of float32 sums."""


def twins(matrices: Iterable[torch.Tensor]) -> torch.Tensor:
    """Which units, given by rows [fibre, unit, ...], are dead or duplicates: [fibre, unit] (bool).

    They are compared by a few random combinations of their parameters (Johnson and Lindenstrauss 1984).
    No matrix is read after those that tell all units apart.
    """
    generator = torch.Generator().manual_seed(0)
    units, found = torch.zeros(()), torch.zeros(())
    for x in (m.flatten(2) for m in matrices):
        mix = torch.randn(x.shape[-1], SKETCH, generator=generator, dtype=x.dtype).to(x.device)
        units = x @ mix + units.to(x)
        found = _repeated(units)
        if not found.any():
            break
    return found


def _repeated(units: torch.Tensor) -> torch.Tensor:
    """Which of [fibre, unit, entry] are the same as another, or zero: [fibre, unit] (bool).

    The order of the first entry brings those that are the same next to each other.
    """
    order = units[..., 0].argsort(-1)
    units = units.gather(1, order[..., None].expand_as(units))
    size = units.square().sum(-1)
    same = units.diff(dim=1).square().sum(-1) <= TIE * (size[:, 1:] + size[:, :-1])
    found = nn.functional.pad(same, (1, 0)) | nn.functional.pad(same, (0, 1))
    return torch.zeros_like(found).scatter(1, order, found)
