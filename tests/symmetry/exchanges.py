"""Exchanges of positions in a parameter, and which of them could belong together."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cache

import numpy as np
import torch

from graphmerge.axes.units import IntArray

EVERY_PAIR = 8
"""Up to this size all pairs of positions are candidates, above it only those as far apart as the first."""


@dataclass(frozen=True)
class Exchange:
    """The positions of one dimension of a parameter, in a new order; ``rows`` of the first dimension only."""

    name: str
    dim: int
    order: tuple[int, ...]
    rows: tuple[int, int] | None = None

    def of(self, t: torch.Tensor) -> torch.Tensor:
        return t.take(self.source(tuple(t.shape)))

    @cache  # noqa: B019 - a few thousand small tensors, in one test session
    def source(self, shape: tuple[int, ...]) -> torch.Tensor:
        """The number of the element that each element comes from."""
        before = torch.arange(math.prod(shape)).reshape(shape)
        rows = slice(None) if self.rows is None else slice(*self.rows)
        after = before.clone()
        after[rows] = before[rows].index_select(self.dim, torch.tensor(self.order))
        return after

    def __str__(self) -> str:
        moved = ", ".join(f"{b}->{a}" for a, b in enumerate(self.order) if a != b)
        return f"{self.name}:{self.dim} ({moved})" + (f" in rows {self.rows}" if self.rows else "")


Move = tuple[Exchange, ...]


def swap(size: int, repeats: int, units: int, first: int, second: int, only: int | None = None) -> IntArray:
    """Exchange units ``first`` and ``second`` in each (or ``only`` one) of ``repeats`` rows of ``units``."""
    index = np.arange(size).reshape(repeats, units, -1)
    rows = slice(None) if only is None else slice(only, only + 1)
    index[rows, [first, second]] = index[rows, [second, first]]
    return index.ravel()


def factorings(size: int) -> Iterator[tuple[int, int]]:
    """(repeats, units) of every way to see a dimension as rows of units of equal width."""
    for repeats in (k for k in range(1, size) if size % k == 0):
        yield from ((repeats, n) for n in range(2, size // repeats + 1) if size // repeats % n == 0)


def orders(size: int, first: int, second: int) -> list[tuple[int, ...]]:
    """Exchanges that could belong to one of units ``first`` and ``second`` elsewhere, likely ones first."""
    found, shifted = [], []
    for repeats, units in factorings(size):
        if second < units:
            found.append(swap(size, repeats, units, first, second))
            if 1 < repeats <= 4:
                found += [swap(size, repeats, units, first, second, k) for k in range(repeats)]
        if repeats == 1:
            shift = second - first
            shifted += [swap(size, 1, units, a, a + shift) for a in range(units - shift)]
    if size <= EVERY_PAIR:
        shifted += [swap(size, 1, size, a, b) for a in range(size) for b in range(a + 1, size)]
    return list(dict.fromkeys(tuple(x.tolist()) for x in (*found, *shifted)))


def blocks_of_rows(shape: Sequence[int], dim: int) -> list[tuple[int, int]]:
    """Rows that may have an order of their own: the groups of a convolution, the matrices of a stack."""
    if len(shape) < 3 or dim == 0:
        return []
    counts = [k for k in range(2, min(shape[0], 4) + 1) if shape[0] % k == 0]
    return [(shape[0] // k * i, shape[0] // k * (i + 1)) for k in counts for i in range(k)]
