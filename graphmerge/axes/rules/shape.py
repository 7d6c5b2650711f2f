"""Operators that only move elements about: reshapes, permutations, slices, concatenations."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from graphmerge.axes.grid import (
    Grid,
    concat,
    expand,
    insert_dims,
    join,
    pick_dims,
    regroup,
    take,
)
from graphmerge.axes.registry import RULES, Call
from graphmerge.axes.units import ANY, FIXED, Value


@RULES.rule(
    "aten.view", "aten._unsafe_view", "aten.reshape", "aten.view_copy", "aten.view_as", "aten.reshape_as",
    integers="carry",
)  # fmt: skip
def view(call: Call) -> list[Value]:
    """view(self, SymInt[] size): row-major, so only the boundaries between dimensions change"""
    x: Value = call["self"]
    if "dtype" in call.args:
        return call.fix_all("its bytes are read as another type")
    name, shape = call.outputs[0]
    for a, b in _aligned_dims(x.shape, shape):
        call.u.link((x.name, a), (name, b))
    return call.result(regroup(call.u, call.grid(x), shape), x, {})


def _aligned_dims(old: tuple[int, ...], new: tuple[int, ...]) -> list[tuple[int, int]]:
    """Pairs of dimensions that share elements' positions, for the record of facts."""
    pairs = []
    old_ends, new_ends = np.cumprod((1, *old)), np.cumprod((1, *new))
    for a, n in enumerate(old):
        for b, m in enumerate(new):
            if n > 1 and m > 1 and max(old_ends[a], new_ends[b]) < min(old_ends[a + 1], new_ends[b + 1]):
                pairs.append((a, b))
    return pairs


@RULES.rule("aten.permute", "aten.transpose", "aten.t", "aten.movedim", integers="carry")
def permute(call: Call) -> list[Value]:
    """permute(self, int[] dims), transpose(self, int dim0, int dim1), t(self), movedim(self, source, dest)"""
    x: Value = call["self"]
    order = list(range(x.rank))
    if call.op == "aten.movedim":
        order = _movedim(x.rank, call["source"], call["destination"])
    elif "dims" in call.args:
        order = [d % x.rank for d in call["dims"]]
    else:
        a, b = (call["dim0"] % x.rank, call["dim1"] % x.rank) if "dim0" in call.args else (0, x.rank - 1)
        order[a], order[b] = order[b], order[a]
    return call.result(pick_dims(call.grid(x, ()), order), x, {k: i for i, k in enumerate(order)})


def _movedim(rank: int, source: int | Sequence[int], destination: int | Sequence[int]) -> list[int]:
    """The order that movedim brings the dimensions into."""
    old, new = ([d % rank for d in ([x] if isinstance(x, int) else x)] for x in (source, destination))
    rest = iter(k for k in range(rank) if k not in old)
    moved = dict(zip(new, old, strict=True))
    return [moved[k] if k in moved else next(rest) for k in range(rank)]


@RULES.rule("aten.unsqueeze", integers="carry")
def unsqueeze(call: Call) -> list[Value]:
    """unsqueeze(self, int dim)"""
    x: Value = call["self"]
    at = call["dim"] % (x.rank + 1)
    return call.result(insert_dims(call.grid(x, ()), [at]), x, {k: k + (k >= at) for k in range(x.rank)})


@RULES.rule("aten.squeeze", integers="carry")
def squeeze(call: Call) -> list[Value]:
    """squeeze(self), squeeze.dim(self, int dim), squeeze.dims(self, int[] dim)"""
    x: Value = call["self"]
    dims = call.args.get("dim", list(range(x.rank)))
    gone = {d % x.rank for d in ([dims] if isinstance(dims, int) else dims) if x.shape[d] == 1}
    kept = [k for k in range(x.rank) if k not in gone]
    return call.result(pick_dims(call.grid(x, ()), kept), x, {k: i for i, k in enumerate(kept)})


@RULES.rule("aten.expand", "aten.broadcast_to", integers="carry")
def broadcast(call: Call) -> list[Value]:
    """expand(self, SymInt[] size)"""
    x: Value = call["self"]
    shape = call.outputs[0][1]
    lead = len(shape) - x.rank
    return call.result(expand(call.grid(x), shape), x, {k: k + lead for k in range(x.rank)})


@RULES.rule("aten.repeat", "aten.tile", integers="carry")
def repeat(call: Call) -> list[Value]:
    """repeat(self, SymInt[] repeats): copies of one tensor are alike, so they may change places"""
    x: Value = call["self"]
    times = call.args.get("repeats", call.args.get("dims"))
    times = [1] * (x.rank - len(times)) + list(times)
    lead = len(times) - x.rank
    grid = insert_dims(call.grid(x), range(lead))
    for axis, n in enumerate(times):
        spread = insert_dims(grid, [axis])
        spread = expand(spread, (*spread.shape[:axis], n, *spread.shape[axis + 1 :]))
        grid = join(call.u, spread, axis)
    return call.result(grid, x, {k: k + lead for k in range(x.rank)})


@RULES.rule("aten.select", integers="carry")
def select(call: Call) -> list[Value]:
    """select.int(self, int dim, SymInt index): one position, singled out"""
    x: Value = call["self"]
    axis = call["dim"] % x.rank
    one = take(call.u, call.grid(x, [axis]), axis, np.array([call["index"] % x.shape[axis]]))
    kept = [k for k in range(x.rank) if k != axis]
    return call.result(pick_dims(one, kept), x, {k: i for i, k in enumerate(kept)})


@RULES.rule("aten.slice", integers="carry")
def slice_(call: Call) -> list[Value]:
    """slice.Tensor(self, int dim, SymInt? start, SymInt? end, SymInt step)"""
    x: Value = call["self"]
    axis = call["dim"] % x.rank
    index = np.arange(x.shape[axis])[call["start"] : call["end"] : call["step"]]
    if len(index) == x.shape[axis]:
        return call.result(call.grid(x, ()), x)
    return call.result(take(call.u, call.grid(x, [axis]), axis, index), x)


@RULES.rule("aten.split_with_sizes", "aten.split", "aten.unbind", "aten.chunk", integers="carry")
def split(call: Call) -> list[Value]:
    """split_with_sizes(self, SymInt[] split_sizes, int dim): the parts go separate ways"""
    x: Value = call["self"]
    axis = call["dim"] % x.rank
    results, start = [], 0
    u = call.u
    for u.part, (name, shape) in enumerate(call.outputs):
        size = shape[axis] if len(shape) == x.rank else 1
        part = take(u, call.grid(x, [axis]), axis, np.arange(start, start + size))
        kept = [k for k in range(x.rank) if len(shape) == x.rank or k != axis]
        one = Call(call.op, {}, ((name, shape),), u)
        results += one.result(pick_dims(part, kept), x, {k: i for i, k in enumerate(kept)})
        start += size
    u.part = -1
    return results


@RULES.rule("aten.cat", "aten.concat", integers="carry")
def cat(call: Call) -> list[Value]:
    """cat(Tensor[] tensors, int dim): each part keeps its own order"""
    parts = [v for v in call["tensors"] if v.shape != (0,)]
    axis = call["dim"] % parts[0].rank
    for v in parts[1:]:
        for k in range(v.rank):
            call.u.link((call.outputs[0][0] if k == axis else parts[0].name, k), (v.name, k))
    return call.result(concat(call.u, [call.grid(v) for v in parts], axis, call.evenly), parts[0])


@RULES.rule("aten.stack", integers="carry")
def stack(call: Call) -> list[Value]:
    """stack(Tensor[] tensors, int dim)"""
    parts: list[Value] = call["tensors"]
    axis = call["dim"] % (parts[0].rank + 1)
    grids = [insert_dims(call.grid(v), [axis]) for v in parts]
    return call.result(
        concat(call.u, grids, axis, call.evenly), parts[0], {k: k + (k >= axis) for k in range(parts[0].rank)}
    )


@RULES.rule("aten.roll", "aten.flip", integers="reorder")
def reorder(call: Call) -> list[Value]:
    """roll(self, SymInt[] shifts, int[] dims), flip(self, int[] dims): a reordering known when tracing"""
    x: Value = call["self"]
    grid = call.grid(x)
    shifts = call.args.get("shifts", [])
    if shifts and len(call["dims"]) == 0:
        return call.fix_all("rolled as one flat axis")
    for i, d in enumerate(call["dims"]):
        index = np.arange(x.shape[d])
        grid = take(call.u, grid, d % x.rank, np.roll(index, shifts[i]) if shifts else index[::-1])
    return call.result(grid, x)


@RULES.rule("aten.channel_shuffle")
def channel_shuffle(call: Call) -> list[Value]:
    """channel_shuffle(self [n, g*c, ...], SymInt groups) -> [n, c*g, ...]: every channel goes its own way"""
    x: Value = call["self"]
    index = np.arange(x.shape[1]).reshape(call["groups"], -1).T.ravel()
    return call.result(take(call.u, call.grid(x), 1, index), x)


@RULES.rule("aten.constant_pad_nd")
def pad(call: Call) -> list[Value]:
    """constant_pad_nd(self, SymInt[] pad, Scalar value): a constant laid before and after"""
    x: Value = call["self"]
    grid = call.grid(x)
    for i in range(len(call["pad"]) // 2):
        axis = x.rank - 1 - i
        before, after = call["pad"][2 * i : 2 * i + 2]
        size = grid.shape[axis]
        if before < 0 or after < 0:
            index = np.arange(size)[max(-before, 0) : size - max(-after, 0)]
            grid = take(call.u, grid, axis, index)
        parts = [_constant(grid, axis, before), grid, _constant(grid, axis, after)]
        parts = [p for p in parts if p.shape[axis] > 0]
        grid = concat(call.u, parts, axis) if len(parts) > 1 else grid
    return call.result(grid, x)


def _constant(grid: Grid, axis: int, size: int) -> Grid:
    """A constant of the same shape but ``size`` along ``axis``; fixed where its neighbour is."""
    whole = FIXED if grid.labels[axis] is FIXED else ANY
    shape = (*grid.shape[:axis], max(size, 0), *grid.shape[axis + 1 :])
    return Grid(shape, tuple(whole if k == axis else ANY for k in range(grid.rank)))


@RULES.rule("aten.slice_scatter", "aten.select_scatter")
def write(call: Call) -> list[Value]:
    """slice_scatter(self, src, int dim, start, end, step), select_scatter(self, src, int dim, index)

    The rest and what is written are laid side by side and brought into order.
    """
    x, src = call["self"], call["src"]
    axis = call["dim"] % x.rank
    places, written = np.arange(x.shape[axis]), call.grid(src)
    if "index" in call.args:
        index, written = places[[call["index"]]], insert_dims(written, [axis])
    else:
        index = places[call["start"] : call["end"] : call["step"]]
        call.u.link((x.name, axis), (src.name, axis))
    rest = np.setdiff1d(places, index)
    if not len(rest):
        return call.result(written, x)
    laid = concat(call.u, [take(call.u, call.grid(x), axis, rest), written], axis)
    return call.result(take(call.u, laid, axis, np.argsort([*rest, *index])), x)


@RULES.rule("aten.unfold")
def unfold(call: Call) -> list[Value]:
    """unfold(self, int dimension, int size, int step): overlapping windows along one dimension"""
    x: Value = call["self"]
    axis = call["dimension"] % x.rank
    letters = list("abcdefgh"[: x.rank])
    into = [*letters[:axis], "y", *letters[axis + 1 :], "z"]
    return call.relate(f"{' '.join(letters)} -> {' '.join(into)} | {letters[axis]} y z", x)


@RULES.rule("aten.copy", "aten.expand_as")
def copy(call: Call) -> list[Value]:
    """copy(self, src): the values of the second, broadcast to the shape of the first"""
    source: Value = call["src"] if "src" in call.args else call["self"]
    shape = call.outputs[0][1]
    lead = len(shape) - source.rank
    return call.result(expand(call.grid(source), shape), source, {k: k + lead for k in range(source.rank)})
