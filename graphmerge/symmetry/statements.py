"""Statements about units, as the solver takes them: pairs that are one, and pairs that follow."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from graphmerge.axes.units import IntArray, Tag, Universe

Pairs = tuple[IntArray, IntArray]
"""Unit ``a[i]`` goes with, or projects onto, unit ``b[i]`` (negative: fixed coordinates)."""

Alike = Callable[[Tag], object]
"""The kind of a statement: what parallel branches state of what corresponds in them is of one kind."""

NOBODY: IntArray = np.zeros(0, dtype=np.int64)
"""The owners of units (which parallel branch made each) where there are no branches."""


@dataclass(frozen=True)
class Statement:
    """Pairs, the number of the statement that they come from, and that of its kind."""

    a: IntArray
    b: IntArray
    number: int
    kind: int

    @property
    def fixes(self) -> bool:
        return bool(len(self.a)) and self.b[0] < 0

    @property
    def relates(self) -> bool:
        return bool(len(self.a)) and self.b[0] >= 0


class Kinds:
    """Numbers for kinds of statements, and for statements that follow from others."""

    def __init__(self, alike: Alike) -> None:
        self.alike = alike
        self.known: dict[object, int] = {}
        self.last = 0

    def __call__(self, what: str, tag: Tag) -> int:
        return self.known.setdefault((what, self.alike(tag)), len(self.known))

    def new(self) -> int:
        self.last += 1
        return self.known.setdefault(("implied", self.last), len(self.known))


def statements(u: Universe, kinds: Kinds) -> tuple[list[Statement], list[Statement]]:
    """Ties that pair units one to one, and those that project many onto one."""
    unions: list[Statement] = []
    maps: list[Statement] = []
    spare = u.count

    for number, ((a, b), tag) in enumerate(zip(u.ties, u.tie_tags, strict=True)):
        a, b = unique_columns(a, b) if _repeated(a) or _repeated(b) else (a, b)
        a_once, b_once = not _repeated(a), not _repeated(b)
        if a_once and b_once and a.min(initial=0) >= 0 and b.min(initial=0) >= 0:
            unions.append(Statement(a, b, number, kinds("union", tag)))
        elif a_once and a.min(initial=0) >= 0:
            maps.append(Statement(a, b, number, kinds("forth", tag)))
        elif b_once and b.min(initial=0) >= 0:
            maps.append(Statement(b, a, number, kinds("back", tag)))
        elif b.max(initial=-1) < 0:
            for what, (units, places) in (("place", _placed(a, b)), ("stuck", _stuck(a))):
                maps.append(Statement(units, places, number, kinds(what, tag)))
        else:  # neither follows the other: both follow what connects them
            common, spare = _connect(a, b, spare)
            for what, side in (("left", a), ("right", b)):
                moving = side >= 0
                maps.append(Statement(side[moving], common[moving], number, kinds(what, tag)))
                maps.append(Statement(common[~moving], side[~moving], number, kinds(f"{what} fixed", tag)))
    u.count = spare
    return unions, maps


def _several(units: IntArray) -> IntArray:
    """Units that occur more than once."""
    found, counts = np.unique(units, return_counts=True)
    return found[counts > 1]


def _placed(units: IntArray, places: IntArray) -> Pairs:
    """Units that stand at one fixed place, and that."""
    once = ~np.isin(units, _several(units))
    return units[once], places[once]


def _stuck(units: IntArray) -> Pairs:
    """Units that stand at several fixed places, and can go nowhere: each at a place of its own."""
    stuck = _several(units)
    return stuck, -1 - stuck


def unique_columns(*rows: IntArray) -> tuple[IntArray, ...]:
    """Distinct columns in lexicographic order; np.unique along an axis is ten times slower."""
    order = np.lexsort(rows[::-1])
    rows = tuple(x[order] for x in rows)
    new = np.ones(len(order), dtype=bool)
    new[1:] = np.any([np.diff(x) != 0 for x in rows], axis=0)
    return tuple(x[new] for x in rows)


def _repeated(x: IntArray) -> bool:
    if x.size < 2 or bool((np.diff(x) > 0).all()):
        return False
    return np.unique(x).size < x.size


def _connect(a: IntArray, b: IntArray, spare: int) -> tuple[IntArray, int]:
    """New units, one for each connected component of the pairs (a, b)."""
    both, index = np.unique(np.concatenate([a, b]), return_inverse=True)
    ones = np.ones(len(a), dtype=np.int8)
    graph = coo_array((ones, (index[: len(a)], index[len(a) :])), shape=(both.size, both.size))
    count, component = connected_components(graph, directed=False)
    return spare + component[index[: len(a)]].astype(np.int64), spare + int(count)


def as_statements(pairs: Sequence[Pairs], classes: IntArray, kinds: Kinds) -> list[Statement]:
    """Pairs of classes as statements about units."""
    some_unit = np.zeros(int(classes.max(initial=-1)) + 1, dtype=np.int64)
    some_unit[classes] = np.arange(len(classes))
    return [Statement(some_unit[a], some_unit[b], -1 - (k := kinds.new()), k) for a, b in pairs]
