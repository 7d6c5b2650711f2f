"""Colour refinement (Weisfeiler-Leman): who looks alike, judged by their neighbours."""

from __future__ import annotations

import numpy as np

from graphmerge.axes.units import IntArray

_MIX = (np.uint64(0x9E3779B97F4A7C15), np.uint64(0xBF58476D1CE4E5B9), np.uint64(0x94D049BB133111EB))


def hashed(
    x: IntArray | np.ndarray[tuple[int, ...], np.dtype[np.uint64]],
) -> np.ndarray[tuple[int, ...], np.dtype[np.uint64]]:
    """splitmix64, element by element."""
    z = x.astype(np.uint64) + _MIX[0]
    z = (z ^ (z >> np.uint64(30))) * _MIX[1]
    z = (z ^ (z >> np.uint64(27))) * _MIX[2]
    return z ^ (z >> np.uint64(31))


def refine(colours: IntArray, edges: tuple[IntArray, IntArray, IntArray]) -> IntArray:
    """Colour refinement to its fixed point.

    Between rounds colours are hashes; they are numbered, which takes sorting, at the end alone.
    """
    tag, a, b = edges
    ends = [_end(a, b, hashed(2 * tag)), _end(b, a, hashed(2 * tag + 1))]
    now = hashed(colours)
    count = len(np.unique(now))
    while True:
        with np.errstate(over="ignore"):
            mixed = hashed(now)
            for units, first, there, told in ends:
                mixed[units] += np.add.reduceat(hashed(told + now[there]), first)
        now = hashed(mixed)
        before, count = count, len(np.unique(now))
        if count == before:
            return np.unique(now, return_inverse=True)[1].astype(np.int64)


End = tuple[IntArray, IntArray, IntArray, np.ndarray]
"""Units at one end of edges, where the edges of each begin, and for each edge its other end and its tag."""


def _end(here: IntArray, there: IntArray, tag: np.ndarray) -> End:
    order = np.argsort(here, kind="stable")
    units, first = np.unique(here[order], return_index=True)
    return units, first, there[order], tag[order]
