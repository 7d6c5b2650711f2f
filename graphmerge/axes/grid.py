"""The labels of all dimensions of one tensor, and how they follow a change of its shape.

A grid of shape [n_0, ..., n_r-1] has one ``Labels`` per dimension. Splitting a dimension makes
its units members of new *blocks* (heads out of a projection's rows); joining two makes new units
that project onto both. Everything that ``view``, ``permute``, ``cat`` and indexing do to a tensor
is composed of the functions here.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import prod

import numpy as np

from graphmerge.axes.units import ANY, FIXED, IntArray, Labels, Universe, Whole


@dataclass(frozen=True)
class Grid:
    shape: tuple[int, ...]
    labels: tuple[Labels, ...]

    @property
    def rank(self) -> int:
        return len(self.shape)


def dependences(labels: Labels, axis: int) -> set[int]:
    """The other dimensions along which the order of dimension ``axis`` varies."""
    if isinstance(labels, Whole):
        return set()
    return {k for k, n in enumerate(labels.shape) if n > 1 and k != axis}


def _reshape_axis(labels: Labels, axis: int, sizes: tuple[int, ...]) -> Labels:
    """Split axis ``axis`` of an array of another dimension's labels."""
    if isinstance(labels, Whole):
        return labels
    full = labels.shape[axis] > 1 or prod(sizes) == 1
    inner = sizes if full else (1,) * len(sizes)
    return labels.reshape(labels.shape[:axis] + inner + labels.shape[axis + 1 :])


def split(u: Universe, grid: Grid, axis: int, sizes: tuple[int, int]) -> Grid:
    """[.., a*b, ..] -> [.., a, b, ..]: ``a`` blocks of ``b`` units, each with its own order."""
    own = grid.labels[axis]
    others = [_reshape_axis(x, axis, sizes) for x in grid.labels]
    outer: Labels
    inner: Labels
    if isinstance(own, Whole):
        outer, inner = ANY if sizes[0] == 1 else own, ANY if sizes[1] == 1 else own
    elif sizes[0] == 1 or sizes[1] == 1:
        whole = _reshape_axis(own, axis, sizes)
        outer, inner = (ANY, whole) if sizes[0] == 1 else (whole, ANY)
    else:
        inner = own.reshape(own.shape[:axis] + sizes + own.shape[axis + 1 :])
        shape = (*inner.shape[: axis + 1], 1, *inner.shape[axis + 2 :])
        outer = u.once((inner,), sizes, lambda: u.new(shape)).reshape(shape)
        u.tie(inner, outer, axis)
        u.once((outer, inner), sizes, lambda: own)  # joining the two again gives ``own`` back
    labels = [*others[:axis], outer, inner, *others[axis + 1 :]]
    _follow(u, outer, labels, {axis, axis + 1})
    return Grid(grid.shape[:axis] + sizes + grid.shape[axis + 1 :], tuple(labels))


def _follow(u: Universe, units: Labels, labels: Sequence[Labels], own: set[int]) -> None:
    """Units of dimensions ``own`` that vary along others follow what stands there."""
    for k in dependences(units, min(own)) - own:
        u.tie(units, labels[k], k)


def join(u: Universe, grid: Grid, axis: int) -> Grid:
    """[.., a, b, ..] -> [.., a*b, ..] at dimensions ``axis`` and ``axis + 1``."""
    a, b = grid.shape[axis], grid.shape[axis + 1]
    outer, inner = grid.labels[axis], grid.labels[axis + 1]
    flat: Labels
    if isinstance(outer, Whole) and outer is inner:
        flat = outer
    elif a == 1 or b == 1:
        flat = _merge_axis(inner if a == 1 else outer, axis, (a, b))
    else:
        flat = _pairs(u, grid, axis)
    others = [_merge_axis(x, axis, (a, b)) for x in grid.labels]
    labels = [*others[:axis], flat, *others[axis + 2 :]]
    return _one_way(u, Grid((*grid.shape[:axis], a * b, *grid.shape[axis + 2 :]), tuple(labels)), axis)


def _one_way(u: Universe, grid: Grid, axis: int) -> Grid:
    """Fix what would vary along dimension ``axis`` while that varies along it: no order could be told."""
    labels = list(grid.labels)
    for k in dependences(labels[axis], axis):
        if axis in dependences(labels[k], k):
            u.tie(labels[k], FIXED, k)
            labels[k] = FIXED
    return Grid(grid.shape, tuple(labels))


def _merge_axis(labels: Labels, axis: int, sizes: tuple[int, int]) -> Labels:
    """Join axes ``axis`` and ``axis + 1`` of an array of some dimension's labels."""
    if isinstance(labels, Whole):
        return labels
    lead, tail = labels.shape[:axis], labels.shape[axis + 2 :]
    if max(labels.shape[axis : axis + 2]) > 1:
        labels = np.broadcast_to(labels, (*lead, *sizes, *tail))
    return labels.reshape((*lead, -1, *tail))


def _pairs(u: Universe, grid: Grid, axis: int) -> IntArray:
    """Units for the cells of two neighbouring dimensions, projecting onto both coordinates."""
    outer, inner = grid.labels[axis : axis + 2]
    sizes = grid.shape[axis : axis + 2]
    arrays = [x for x in (outer, inner) if not isinstance(x, Whole)]
    shape = list(np.broadcast_shapes((1,) * grid.rank, *(x.shape for x in arrays)))
    shape[axis : axis + 2] = sizes

    def make() -> IntArray:
        cells = u.new(tuple(shape))
        u.tie(cells, outer, axis)
        u.tie(cells, inner, axis + 1)
        _follow(u, cells, grid.labels, {axis, axis + 1})
        return cells

    flat = (*shape[:axis], sizes[0] * sizes[1], *shape[axis + 2 :])
    return u.once((outer, inner), sizes, make).reshape(flat)


def regroup(u: Universe, grid: Grid, shape: Sequence[int]) -> Grid:
    """Row-major reshape to ``shape``: split to the common factors, then join."""
    kept = [k for k in range(grid.rank) if grid.shape[k] != 1]
    grid = pick_dims(grid, kept)
    target = [n for n in shape if n != 1]
    start = 0
    for old, new in _aligned(grid.shape, target):
        grid = _regroup_run(u, grid, start, old, new)
        start += len(new)
    return insert_dims(grid, [k for k, n in enumerate(shape) if n == 1])


def _aligned(old: Sequence[int], new: Sequence[int]) -> list[tuple[tuple[int, ...], tuple[int, ...]]]:
    """Cut two shapes of one size into the shortest runs of equal product."""
    runs, i, j = [], 0, 0
    while i < len(old):
        p, q, a, b = old[i], new[j], i + 1, j + 1
        while p != q:
            if p < q:
                p, a = p * old[a], a + 1
            else:
                q, b = q * new[b], b + 1
        runs.append((tuple(old[i:a]), tuple(new[j:b])))
        i, j = a, b
    return runs


def _regroup_run(u: Universe, grid: Grid, start: int, old: tuple[int, ...], new: tuple[int, ...]) -> Grid:
    """Regroup dimensions ``start .. start + len(old)`` of equal product into ``new``."""
    if old == new:
        return grid
    factors = common_factors(old, new)
    if factors is None:  # boundaries that do not nest: flatten, then cut anew
        for _ in range(len(old) - 1):
            grid = join(u, grid, start)
        old, factors = (prod(old),), new
    grid = _split_to(u, grid, start, old, factors)
    return _join_to(u, grid, start, factors, new)


def common_factors(old: tuple[int, ...], new: tuple[int, ...]) -> tuple[int, ...] | None:
    """The coarsest shape that both refine, or None where their boundaries do not nest."""
    total = prod(old)
    strides = sorted({total // int(p) for s in (old, new) for p in np.cumprod(s)}, reverse=True)
    sizes = [total, *strides]
    if any(a % b for a, b in zip(sizes, sizes[1:], strict=False)):
        return None
    return tuple(a // b for a, b in zip(sizes, sizes[1:], strict=False))


def _split_to(u: Universe, grid: Grid, axis: int, old: tuple[int, ...], factors: tuple[int, ...]) -> Grid:
    todo = list(factors)
    for size in old:
        while size > 1:
            factor = todo.pop(0)
            if factor < size:
                grid = split(u, grid, axis, (factor, size // factor))
            axis, size = axis + 1, size // factor
    return grid


def _join_to(u: Universe, grid: Grid, axis: int, factors: tuple[int, ...], new: tuple[int, ...]) -> Grid:
    todo = list(factors)
    for size in new:
        have = todo.pop(0)
        parts = 1
        while have < size:
            have, parts = have * todo.pop(0), parts + 1
        for k in reversed(range(parts - 1)):
            grid = join(u, grid, axis + k)
        axis += 1
    return grid


def pick_dims(grid: Grid, order: Sequence[int]) -> Grid:
    """Keep dimensions in the given order; those left out must have size 1."""
    labels: list[Labels] = []
    for k in order:
        own = grid.labels[k]
        if not isinstance(own, Whole):
            left_out = tuple(i for i in range(grid.rank) if i not in order)
            rank = [i for i in range(grid.rank) if i not in left_out]
            own = own.squeeze(left_out).transpose([rank.index(i) for i in order])
        labels.append(own)
    return Grid(tuple(grid.shape[k] for k in order), tuple(labels))


def insert_dims(grid: Grid, positions: Sequence[int]) -> Grid:
    """Insert dimensions of size 1 at ``positions`` of the result."""
    for k in sorted(positions):
        labels = [x if isinstance(x, Whole) else np.expand_dims(x, k) for x in grid.labels]
        grid = Grid((*grid.shape[:k], 1, *grid.shape[k:]), (*labels[:k], ANY, *labels[k:]))
    return grid


def expand(grid: Grid, shape: Sequence[int]) -> Grid:
    """Broadcast to ``shape``, aligned at the right; a repeated dimension is the same in any order."""
    grid = insert_dims(grid, range(len(shape) - grid.rank))
    labels = [ANY if m != n else x for x, n, m in zip(grid.labels, grid.shape, shape, strict=True)]
    return Grid(tuple(shape), tuple(labels))


def take(u: Universe, grid: Grid, axis: int, index: IntArray) -> Grid:
    """Positions ``index`` of dimension ``axis``, known when tracing; what is left out differs."""
    labels: list[Labels] = []
    for x in grid.labels:
        if not isinstance(x, Whole) and x.shape[axis] > 1:
            x = np.take(x, index, axis)
        labels.append(x)
    own = labels[axis]
    if len(index) < grid.shape[axis]:
        u.mark(own)
    if len(index) == 1:
        labels[axis] = ANY
    elif not isinstance(own, Whole) and len(np.unique(index)) < len(index):
        labels[axis] = _part(u, own, axis)
    return Grid((*grid.shape[:axis], len(index), *grid.shape[axis + 1 :]), tuple(labels))


def concat(u: Universe, grids: Sequence[Grid], axis: int, blocks: bool = False) -> Grid:
    """Lay grids one after the other along ``axis``; each keeps an order of its own.

    ``blocks`` says that grids may change places as wholes, even if nothing moves within them.
    """
    sizes = [g.shape[axis] for g in grids]
    shape = (*grids[0].shape[:axis], sum(sizes), *grids[0].shape[axis + 1 :])
    labels: list[Labels] = []
    for k in range(len(shape)):
        parts = [g.labels[k] for g in grids]
        labels.append(
            _concat_own(u, parts, sizes, axis, len(shape), blocks)
            if k == axis
            else _stack(u, parts, sizes, axis, k)
        )
    return _one_way(u, Grid(shape, tuple(labels)), axis)


def _concat_own(
    u: Universe, parts: Sequence[Labels], sizes: Sequence[int], axis: int, rank: int, blocks: bool
) -> Labels:
    """The concatenated dimension itself: parts never mix, not even copies of one another."""
    if not blocks and all(x is FIXED for x in parts):
        return FIXED
    shape = _common_shape([x for x in parts if not isinstance(x, Whole)], axis, rank)
    arrays = []
    for u.part, (x, n) in enumerate(zip(parts, sizes, strict=True)):
        shape[axis] = n
        arrays.append(u.new(tuple(shape)) if isinstance(x, Whole) else np.broadcast_to(x, shape))
        if x is FIXED:
            u.tie(arrays[-1], FIXED, axis)
    shared = [_repeats(x, axis) or _meets(x, arrays) for x in arrays]
    for u.part, x in enumerate(arrays):
        if shared[u.part]:
            arrays[u.part] = _part(u, x, axis)
        u.mark(arrays[u.part])
    u.part = -1
    return np.concatenate(arrays, axis)


def _common_shape(arrays: Sequence[IntArray], axis: int, rank: int) -> list[int]:
    """The shape that the parts broadcast to, leaving ``axis`` open."""
    return list(
        np.broadcast_shapes((1,) * rank, *((*x.shape[:axis], 1, *x.shape[axis + 1 :]) for x in arrays))
    )


def _meets(labels: IntArray, others: Sequence[IntArray]) -> bool:
    return any(np.intersect1d(labels, x).size for x in others if x is not labels)


def _repeats(labels: IntArray, axis: int) -> bool:
    rows = np.sort(np.moveaxis(labels, axis, -1), -1)
    return bool((rows[..., 1:] == rows[..., :-1]).any())


def _part(u: Universe, labels: IntArray, axis: int) -> IntArray:
    """Fresh units that follow ``labels`` but are told apart from them by position."""
    units = u.new(labels.shape)
    u.tie(units, labels, axis)
    u.mark(units)
    return units


def _stack(u: Universe, parts: Sequence[Labels], sizes: Sequence[int], axis: int, own: int) -> Labels:
    """Another dimension under a concatenation: its order may differ from part to part."""
    known = [x for x in parts if x is not ANY]
    if not known:
        return ANY
    if any(x is FIXED for x in known):
        for x in known:
            u.tie(x, FIXED, own)
        return FIXED
    arrays = [x for x in known if not isinstance(x, Whole)]
    if all(x.shape[axis] == 1 and np.array_equal(x, arrays[0]) for x in arrays):
        return arrays[0]
    shape = _common_shape(arrays, axis, arrays[0].ndim)
    rows = []
    for x, n in zip(parts, sizes, strict=True):
        shape[axis] = n
        rows.append(np.broadcast_to(arrays[0].take([0], axis) if isinstance(x, Whole) else x, shape))
    return np.concatenate(rows, axis)
