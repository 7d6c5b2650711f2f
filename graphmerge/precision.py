"""The precision of arithmetic: float32, or that of the numbers themselves where it is better."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import torch


def wide(t: torch.Tensor) -> torch.Tensor:
    """A tensor in float32 or wider."""
    return t.to(torch.promote_types(t.dtype, torch.float32))


def weighted_sum(tensors: Iterable[torch.Tensor], weights: Sequence[float]) -> torch.Tensor:
    """The sum of tensors times their weights, ``wide``, one tensor at a time."""
    total: torch.Tensor | None = None
    for t, w in zip(tensors, weights, strict=True):
        if total is None:
            total = torch.zeros_like(wide(t))
        if w:
            total += wide(t) * w
    assert total is not None
    return total
