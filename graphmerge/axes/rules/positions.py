"""Integers that name positions: routers and what they drive.

A router's top-k returns numbers of experts. When the experts change places these numbers change, so an
integer tensor carries the labels of the dimension that it names (``Value.positions``), and what picks,
marks, counts or sorts by it ties that dimension to its own.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any, Literal

import numpy as np
import torch

from graphmerge.axes.registry import RULES, Call
from graphmerge.axes.rules.reduce import along, reduction
from graphmerge.axes.units import ANY, FIXED, IntArray, Positions, Value, Whole, fixed_value, holds

_LETTERS = "abcdefgh"


@RULES.rule(
    "aten.max", "aten.min", "aten.argmax", "aten.argmin", "aten.topk", "aten.sort", "aten.argsort",
    "aten.median", integers="read",
)  # fmt: skip
def choice(call: Call) -> list[Value]:
    """topk(self, k, dim) -> (values, indices): values stand by rank, an index names a position of ``dim``"""
    if len(call.tensors()) == 2:  # max.other: the larger of two, element by element
        for value in call.tensors():
            call.settle(value)
        return call.relate("..., ... -> ...", *call.tensors())
    x: Value = call["self"]
    vector = x.rank == 1 and x.labels is not None and x.labels[0] is FIXED
    if call.op in ("aten.sort", "aten.argsort") and vector and _units(x) is not None:
        return _sorted(call, x)
    call.settle(x)
    if x.rank == 0 or ("dim" not in call.args and call.op in ("aten.max", "aten.min", "aten.median")):
        return reduction(call)
    if call.args.get("dim") is None:
        return along(call, "positions along it are numbered")
    axis = call["dim"] % x.rank
    letters = list(_LETTERS[: x.rank])
    kept = len(call.outputs[0][1]) == x.rank
    out = " ".join("r" if k == axis else c for k, c in enumerate(letters) if kept or k != axis)
    results = call.relate(f"{' '.join(letters)} -> {', '.join([out] * len(call.outputs))} | r", x)
    own = call.grid(x).labels[axis]
    if not isinstance(own, Whole) and own.size == x.shape[axis]:
        own = own.ravel()
    indices = results[-1]
    at = 0 if isinstance(own, Whole) or own.ndim == 1 else axis
    indices.positions = Positions(own, at, (x.name, axis), indices.name, _role(x))
    return results


def _role(scores: Value) -> Literal["position", "place"]:
    """How the largest of ``scores`` is named: by its place where others may be as large."""
    whole = scores.dtype is not None and not scores.dtype.is_floating_point
    distinct = scores.positions is not None and scores.positions.role == "order"
    return "place" if (scores.coarse or whole) and not distinct else "position"


def _units(x: Value) -> IntArray | None:
    """The units that the integers of ``x`` name."""
    return x.positions.units if x.positions else None


def _sorted(call: Call, x: Value) -> list[Value]:
    """Tokens sorted by the expert that they go to: any order of them, while nobody looks at it.

    Where the numbers descend, the tokens do not stand as counts of them say.
    """
    assert x.positions is not None
    order = call.u.new(x.shape)
    call.u.allow(x.positions.labels, order)
    call.u.sorted_by[int(order[0])] = "" if call.args.get("descending") else x.positions.source
    results = [Value(name, shape, [order]) for name, shape in call.outputs]
    results[-1].positions = replace(x.positions, labels=FIXED, role="order")
    if len(results) == 2:
        results[0].positions = x.positions
    return results


@RULES.rule("aten.mode")
def mode(call: Call) -> list[Value]:
    """mode(self, int dim) -> (values, indices): which of equal values is named is not said"""
    return along(call, "positions along it are numbered")


@RULES.rule("aten.cumsum", integers="read")
def cumsum(call: Call) -> list[Value]:
    """cumsum(self, int dim): each position depends on those before it; of counts, where each one ends"""
    x: Value = call["self"]
    held = x.positions
    if x.rank == 1 and held and held.role == "count" and _told(call.args.get("dtype"), x):
        ((name, shape),) = call.outputs
        ends = fixed_value(name, shape)
        ends.positions = replace(held, role="offset")
        return [ends]
    call.settle(x)
    return along(call, "accumulated along it")


@RULES.rule("aten.histc", "aten.bincount", integers="read")
def count(call: Call) -> list[Value]:
    """histc(self, bins, min, max), bincount(self, weights?, minlength): one entry for each position named"""
    x, weights = call["self"], call.args.get("weights")
    size = call.outputs[0][1][0]
    units = _units(x)
    if units is None or len(units) != size or not _a_bin_each(call, size):
        return call.fix_all("its values name positions")
    letters = " ".join(_LETTERS[: x.rank])
    results = call.relate(f"{letters}, {letters}?, v -> v", x, weights, call.named(x, size))
    if weights is None and x.positions:
        results[0].positions = replace(x.positions, role="count")
    return results


def _a_bin_each(call: Call, size: int) -> bool:
    """Whether each of the numbers 0 .. size - 1 has a bin of its own, in order."""
    if call.op == "aten.bincount":
        return True
    low, high = call["min"], call["max"]
    if high <= low:
        return False
    bins = np.floor((np.arange(size) - low) / (high - low) * size)
    return bool((np.minimum(bins, size - 1) == np.arange(size)).all())


@RULES.rule("aten._to_copy", "aten.to", integers="read")
def cast(call: Call) -> list[Value]:
    """_to_copy(self, dtype): the same numbers if the type holds them; truth values say which are not 0"""
    (x,), dtype = call.tensors(), call.args.get("dtype")
    if dtype is torch.bool:
        return _against(call, x, torch.ne, 0)
    results = call.relate("... -> ...", x)
    if _told(dtype, x):
        results[0].positions, results[0].counted, results[0].known = x.positions, x.counted, x.known
    else:
        call.settle(x)
    return results


def _told(dtype: torch.dtype | None, x: Value) -> bool:
    """Whether a type holds the integers of ``x``, as far as it is known which they are."""
    if x.known is not None:
        return holds(dtype, torch.from_numpy(x.known))
    if x.counted is not None:
        return holds(dtype, torch.arange(x.shape[x.counted]))
    held = x.positions
    if held and held.role not in ("position", "place"):  # as many as there are tokens
        return dtype is None or dtype.itemsize >= 4
    if held and not isinstance(held.labels, Whole):
        return holds(dtype, torch.arange(held.labels.shape[held.axis]))
    return True


@RULES.rule(*(f"aten.{name}" for name in ("eq", "ne", "lt", "le", "gt", "ge")), integers="read")
def compare(call: Call) -> list[Value]:
    """eq(self, other): against 0, 1, 2, ... it is one-hot; against one number it tells positions apart"""
    tensors = call.tensors()
    if len(tensors) == 1:
        return _against(call, tensors[0], getattr(torch, call.op.partition(".")[2]), call["other"])
    alike = _told_apart(call, tensors) if call.op in ("aten.eq", "aten.ne") else None
    for value in tensors if alike is None else ():
        call.settle(value)
    return call.relate("..., ... -> ...", *(alike or tensors))


def _told_apart(call: Call, tensors: list[Value]) -> list[Value] | None:
    """Two tensors that name positions of one dimension, a tensor 0, 1, 2, ... named as its positions.

    0, 1, 2, ... against itself along another dimension is the identity matrix, in any order of both.
    """
    for a, b in (tensors, tensors[::-1]):
        units = _units(a)
        if units is not None and a.positions and a.positions.names_the_same(b.positions):
            return tensors
        if units is not None and (named := _naming(b, units)):
            return [a, named]
    a, b = tensors
    if a.counted is None or b.counted is None or a.counted - a.rank == b.counted - b.rank:
        return None
    units = call.u.new((a.shape[a.counted],))
    one, other = _naming(a, units), _naming(b, units)
    return [one, other] if one and other else None


def _naming(value: Value, units: IntArray) -> Value | None:
    """A tensor 0, 1, 2, ... with these units along its dimension; None where it has another size."""
    axis = value.counted
    if axis is None or value.shape[axis] != len(units):
        return None
    labels = list(value.labels or ())
    labels[axis] = units.reshape([-1 if k == axis else 1 for k in range(value.rank)])
    return Value(value.name, value.shape, labels)


def _against(call: Call, x: Value, compared: Callable[..., Any], number: float) -> list[Value]:
    """A comparison with one number parts the positions in two, or says the same of all.

    It is run on the numbers of all positions, in the type of ``x``: that decides how they are rounded.
    """
    units = _units(x)
    if units is not None:
        part = compared(torch.arange(len(units)).to(x.dtype or torch.int64), number).numpy()
        if part.all() or not part.any():
            return [Value(name, shape, [ANY] * len(shape)) for name, shape in call.outputs]
        if not np.intersect1d(units[part], units[~part]).size:
            call.u.mark(units[part])
            return call.relate("... -> ...", x)
    call.settle(x)
    return call.relate("... -> ...", x)


@RULES.rule("aten.one_hot", integers="read")
def one_hot(call: Call) -> list[Value]:
    """one_hot(self, int num_classes): a new last dimension of the positions named"""
    x: Value = call["self"]
    if _units(x) is None:
        return call.fix_all("its values name positions")
    return call.relate("..., v -> ... v", x, call.named(x, call.outputs[0][1][-1]))


@RULES.rule("aten.nonzero", "aten.masked_select")
def by_value(call: Call) -> list[Value]:
    """Operators that return what they find in order."""
    return call.fix_all("its values name positions")
