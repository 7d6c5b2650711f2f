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
    """Colour refinement to its fixed point."""
    tag, a, b = edges
    out_tag, in_tag = hashed(2 * tag), hashed(2 * tag + 1)
    by_a, by_b = np.argsort(a, kind="stable"), np.argsort(b, kind="stable")
    count = colours.max(initial=-1) + 1
    while True:
        with np.errstate(over="ignore"):
            mixed = hashed(hashed(colours))
            _add_at(mixed, a, hashed(out_tag + hashed(colours[b])), by_a)
            _add_at(mixed, b, hashed(in_tag + hashed(colours[a])), by_b)
        colours = np.unique(mixed, return_inverse=True)[1].astype(np.int64)
        if colours.max(initial=-1) + 1 == count:
            return colours
        count = colours.max(initial=-1) + 1


def _add_at(total: np.ndarray, index: IntArray, values: np.ndarray, order: IntArray) -> None:
    """``total[index] += values``, with ``order`` sorting ``index``."""
    if index.size:
        where, start = np.unique(index[order], return_index=True)
        total[where] += np.add.reduceat(values[order], start)
