"""The registry of rules: one entry per operator, found by the operator's base name.

A rule is a text (see ``rule.py``) where the operator's dimensions say all, else a short function
of the ``Call`` that builds such a text from the arguments or moves labels through ``grid.py``.
Lookup goes from the operator itself to the functional base of an in-place or out variant, and to
one rule for everything torch tags as pointwise. What is not found is fixed and reported.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from math import prod
from typing import Any, Literal

import torch

from graphmerge.axes.grid import Grid
from graphmerge.axes.routing import unrouted
from graphmerge.axes.rule import relate
from graphmerge.axes.units import ANY, FIXED, Labels, Positions, Universe, Value, Whole, fixed_value


@dataclass
class Call:
    """One operator call: its arguments by schema name, tensors as ``Value``, and what it returns."""

    op: str
    args: Mapping[str, Any]
    outputs: tuple[tuple[str, tuple[int, ...]], ...]
    u: Universe
    evenly: bool = False

    def __getitem__(self, name: str) -> Any:
        return self.args[name]

    def tensors(self) -> list[Value]:
        """Every tensor argument that is there, in schema order, those in lists included."""
        found: list[Value] = []
        for x in self.args.values():
            if isinstance(x, Value):
                found.append(x)
            elif isinstance(x, list | tuple):
                found += [v for v in x if isinstance(v, Value)]
        return found

    def relate(self, text: str, *values: Value | None, **sizes: int) -> list[Value]:
        """Apply a rule text to ``values`` and all outputs."""
        return relate(self.u, text, values, self.outputs, sizes, self.evenly)

    def mixing(
        self, text: str, statistics: str, sizes: tuple[int, ...], *values: Value | None, **factors: int
    ) -> list[Value]:
        """A rule whose operator also computes ``statistics``, of shape ``sizes``, that it does not return.

        They stand in the rule as one more output: where a dimension is missing from them its positions
        are mixed, so that no other dimension may have an order that varies along it.
        """
        body, _, fixed = text.partition("|")
        outputs = (*self.outputs, (f"{self.outputs[0][0]} statistics", sizes))
        return relate(self.u, f"{body}, {statistics} | {fixed}", values, outputs, factors)[:-1]

    def grid(self, value: Value, touched: Iterable[int] | None = None) -> Grid:
        """The labels of a value; a parameter nobody has read yet is labelled now.

        ``touched`` are the dimensions that the operator changes (None: any of them): orders that
        depend on routing along those are made one.
        """
        if value.labels is None:
            value.labels = fresh_labels(self.u, value.shape)
        loose = value.routed.keys() if touched is None else value.routed.keys() & set(touched)
        return unrouted(self.u, Grid(value.shape, tuple(value.labels)), loose)

    def named(self, value: Value, size: int) -> Value:
        """A stand-in of shape [size] for the dimension whose positions ``value`` names."""
        name = f"{value.name} names"
        held = value.positions
        if held is None or held.units is None or len(held.units) != size:
            self.settle(value)
            return fixed_value(name, (size,))
        self.u.link(held.place, (name, 0))
        return Value(name, (size,), [held.units])

    def settle(self, value: Value) -> None:
        """Keep in place what the integers of ``value`` stand for: they are used as mere numbers."""
        held = value.positions
        if held is not None and held.role != "count" and not isinstance(held.labels, Whole):
            self.u.tie(held.labels, FIXED, held.axis)
            equal = "of equal scores one is chosen by its place"
            self.u.fix(held.place, equal if held.role == "place" else "its positions are chosen by number")

    def result(self, grid: Grid, source: Value, dims: Mapping[int, int] | None = None) -> list[Value]:
        """The single output with these labels; ``dims`` maps source dimensions to those of the output."""
        name, shape = self.outputs[0]
        assert grid.shape == shape, f"{self.op}: the rule gives {grid.shape}, the operator {shape}"
        same = dims if dims is not None else {k: k for k in range(source.rank)}
        for a, b in same.items():
            self.u.link((source.name, a), (name, b))
        routed = {
            same[d]: key
            for d, key in source.routed.items()
            if d in same and shape[same[d]] == source.shape[d]
        }
        return [Value(name, shape, list(grid.labels), routed)]

    def fix(self, value: Value, axis: int, reason: str) -> None:
        """Fix one dimension of a value."""
        self.u.tie(self.grid(value).labels[axis], FIXED, axis)
        if value.shape[axis] > 1:
            self.u.fix((value.name, axis), reason)

    def fix_all(self, reason: str) -> list[Value]:
        """Fix every dimension of every tensor: always sound, and what is done where nothing is known."""
        for v in self.tensors():
            self.settle(v)
            for axis in range(v.rank):
                self.fix(v, axis, reason)
        return self.fixed(reason)

    def fixed(self, reason: str) -> list[Value]:
        """All outputs, with every dimension fixed."""
        for name, shape in self.outputs:
            for axis, n in enumerate(shape):
                if n > 1:
                    self.u.fix((name, axis), reason)
        return [fixed_value(name, shape) for name, shape in self.outputs]


RuleFunction = Callable[[Call], list[Value]]

Use = Literal["number", "carry", "reorder", "read"]
"""What a rule does with integers that stand for positions: takes them for numbers (so that those positions
must stay), hands them on as they stand or in another order, or follows what they mean."""


def fresh_labels(u: Universe, shape: tuple[int, ...]) -> list[Labels]:
    """Labels of a parameter first read by an operator that only moves it about.

    From three dimensions on it may be a stack (of experts, of heads): the others are then ordered
    for each position of the first on its own.
    """
    labels: list[Labels] = []
    for axis, n in enumerate(shape):
        extent = [1] * len(shape)
        extent[axis] = n
        if len(shape) == 3 and axis > 0:
            extent[0] = shape[0]
        labels.append(ANY if n == 1 else u.new(tuple(extent)))
    for axis, own in enumerate(labels):
        if len(shape) == 3 and axis > 0:
            u.tie(own, labels[0], axis)
    return labels


class Registry:
    """Rules by operator name such as ``aten.linear``; a second rule for one name is an error."""

    def __init__(self) -> None:
        self._rules: dict[str, tuple[str | RuleFunction, Use]] = {}

    def add(self, name: str, rule: str | RuleFunction, integers: Use = "number") -> None:
        """Register a rule text or function for ``namespace.operator``."""
        namespace, _, op = name.partition(".")
        if name in self._rules:
            raise ValueError(f"{name} has a rule already")
        if namespace == "aten" and not hasattr(torch.ops.aten, op):
            raise ValueError(f"torch has no operator {name}")
        self._rules[name] = (rule, integers)

    def texts(self, rules: Mapping[str, str], integers: Use = "number") -> None:
        """Register a table of rule texts."""
        for name, text in rules.items():
            self.add(name, text, integers)

    def rule(self, *names: str, integers: Use = "number") -> Callable[[RuleFunction], RuleFunction]:
        """Register the decorated function for each name."""

        def decorate(function: RuleFunction) -> RuleFunction:
            for name in names:
                self.add(name, function, integers)
            return function

        return decorate

    def names(self) -> tuple[str, ...]:
        """Every operator with a rule of its own, in alphabetical order."""
        return tuple(sorted(self._rules))

    def find(self, name: str, pointwise: bool = False) -> tuple[str | RuleFunction, Use] | None:
        """The rule for an operator and what it does with integers, or None."""
        for candidate in (name, name.removesuffix("_")):
            if candidate in self._rules:
                return self._rules[candidate]
        return (_pointwise, "number") if pointwise else None

    def apply(self, call: Call, pointwise: bool = False) -> list[Value] | None:
        """State what the rule of ``call.op`` says; None where there is none."""
        found = self.find(call.op, pointwise)
        if found is None:
            return None
        rule, integers = found
        moves = integers in ("carry", "reorder")
        in_order = integers == "carry" and _keeps_order(call)
        carried = _common(call.tensors(), in_order) if moves else None
        if integers != "read" and carried is None:
            for value in call.tensors():
                call.settle(value)
        follows = integers == "read" and any(v.positions for v in call.tensors())
        results = None if follows else _without_extent(call)
        if results is None:
            results = call.relate(rule, *call.tensors()) if isinstance(rule, str) else rule(call)
        if moves:
            _hand_on(call.tensors(), results, carried, in_order)
        if _is_coarse(call, pointwise or moves):
            for value in results:
                value.coarse = True
        return results


_CLIPS = frozenset(
    f"aten.{op}"
    for op in (
        "relu", "relu6", "hardtanh", "hardsigmoid", "hardswish", "hardshrink", "softshrink", "threshold",
        "clamp", "clamp_min", "clamp_max", "maximum", "minimum", "sign", "sgn", "heaviside", "floor", "ceil",
        "round", "trunc",
    )
)  # fmt: skip
"""Operators that make one number of many."""


def _is_coarse(call: Call, by_element: bool) -> bool:
    """Whether results may be equal at several positions: clipped here, or made of what is and no weights.

    A mask beside floats does not count, unless it makes zeros: what it leaves out is not chosen.
    """
    given = call.tensors()
    floats = [v for v in given if v.dtype is None or v.dtype.is_floating_point]
    if call.op in _CLIPS or (call.op == "aten.mul" and len(floats) < len(given)):
        return True
    if not floats:
        return len(given) == 1
    return any(v.coarse for v in floats) and (by_element or len(floats) == 1)


def _without_extent(call: Call) -> list[Value] | None:
    """The results where nothing can move or nothing is left: of numbers to numbers, or empty; else None."""
    tensors, shapes = call.tensors(), [shape for _, shape in call.outputs]
    if not tensors or not shapes:
        return None
    numbers = all(prod(shape) == 1 for shape in (*shapes, *(v.shape for v in tensors)))
    if numbers or all(prod(shape) == 0 for shape in shapes):
        return [Value(name, shape, [ANY] * len(shape)) for name, shape in call.outputs]
    return None


def _keeps_order(call: Call) -> bool:
    """Whether an operator that moves elements about hands on a whole row of them, each of them as it is."""
    tensors = call.tensors()
    if len(tensors) != 1 or len(call.outputs) != 1 or call.args.get("dtype") is not None:
        return False
    ((_, shape),) = call.outputs
    return prod(shape) == prod(tensors[0].shape) and sum(n > 1 for n in shape) <= 1


def _common(tensors: Sequence[Value], in_order: bool) -> Positions | None:
    """What the integers of all tensors stand for, where that is the same for all.

    Each number names a position wherever it stands; counts, and what is made of them, do in order only.
    """
    held = [v.positions for v in tensors]
    first = held[0] if held else None
    if first is None or (not isinstance(first.labels, Whole) and first.labels.ndim > 1):
        return None
    if first.role not in ("position", "place") and not in_order:
        return None
    return first if all(first.names_the_same(p) for p in held) else None


def _hand_on(
    tensors: Sequence[Value], results: Sequence[Value], carried: Positions | None, in_order: bool
) -> None:
    """Give the results of an operator that moves elements about what its tensors hold."""
    for value in results:
        whole = len(tensors) == 1 and prod(value.shape) == prod(tensors[0].shape)
        if carried:
            value.positions = carried if whole else replace(carried, source=value.name)
        if in_order and tensors[0].counted is not None:
            value.counted = next((k for k, n in enumerate(value.shape) if n > 1), None)


def _pointwise(call: Call) -> list[Value]:
    """Any elementwise operator: dimensions match from the right, as broadcasting does."""
    tensors = call.tensors()
    return call.relate(
        ", ".join(["..."] * len(tensors)) + " -> " + ", ".join(["..."] * len(call.outputs)), *tensors
    )


RULES = Registry()
"""The rules of graphmerge; ``graphmerge.axes.rules`` fills it."""
