"""Positions chosen by data: every choice is shown in turn, for none is known when tracing."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np

from graphmerge.axes.grid import Grid, dependences
from graphmerge.axes.units import FIXED, Labels, Universe, Whole


def unrouted(u: Universe, grid: Grid, axes: Iterable[int]) -> Grid:
    """The grid with one order for all choices of routing along ``axes``."""
    labels = list(grid.labels)
    for k, x in enumerate(labels):
        if not isinstance(x, Whole) and dependences(x, k) & set(axes):
            shape = [1] * grid.rank
            shape[k] = grid.shape[k]
            labels[k] = u.new(tuple(shape))
            u.tie(x, labels[k], k)
    return Grid(grid.shape, tuple(labels))


def route(u: Universe, grid: Grid, axis: int, size: int, onto: Labels = FIXED) -> Grid | None:
    """Positions of ``axis`` picked by an index tensor of ``size`` elements that is not known.

    Every position is shown in turn, so that no choice goes unseen; None where there is no room.
    ``onto`` labels the positions that the index names; the picked dimension itself is left FIXED.
    """
    if size < grid.shape[axis]:
        return None
    if not isinstance(onto, Whole):
        onto = onto.reshape([-1 if k == axis else 1 for k in range(grid.rank)])
    u.tie(grid.labels[axis], onto, axis)
    index = np.arange(size) % grid.shape[axis]
    labels = [
        FIXED if k == axis else x if isinstance(x, Whole) or x.shape[axis] == 1 else np.take(x, index, axis)
        for k, x in enumerate(grid.labels)
    ]
    return Grid((*grid.shape[:axis], size, *grid.shape[axis + 1 :]), tuple(labels))
