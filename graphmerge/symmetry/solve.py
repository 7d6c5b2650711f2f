"""From the facts of a graph to its symmetry groups.

The units of a graph with their ties are a relational structure, and its symmetries are the
structure's automorphisms. They are found in four steps, none of which looks at an operator:

1. units tied one to one are one *class*; each keeps the role that it plays there (the gate row and
   the up row of one hidden unit are one class in two roles), told by refining the units first;
2. *colour refinement* (Weisfeiler-Leman): two units keep the same colour as long as they were
   marked alike and project to, and are projected onto by, units of the same colours. A colour
   class that has more than one unit is a *sort*;
3. two sorts that a projection pairs one to one are the same sort; where one image of a sort
   determines another (groups of 8 channels, each of two groups of 4), the first projects onto the
   second; repeat until nothing changes;
4. what remains is a forest of sorts. Units of one sort with the same images are interchangeable:
   they are an *atom*, free under the symmetric group, once for each fibre over its parents
   (heads; within each head its dimensions). A sort that its images determine moves with them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from graphmerge.axes.units import FIXED, IntArray, Universe

Pairs = tuple[IntArray, IntArray]
"""A statement: unit ``a[i]`` goes with, or projects onto, unit ``b[i]`` (negative: fixed coordinates)."""

Edges = tuple[IntArray, IntArray, IntArray]
"""Projections as (tag [e], member [e], image [e])."""

_MIX = (np.uint64(0x9E3779B97F4A7C15), np.uint64(0xBF58476D1CE4E5B9), np.uint64(0x94D049BB133111EB))


@dataclass(frozen=True)
class Sort:
    """Interchangeable or jointly moving units.

    ``units`` [n] are classes of units; ``images`` [k, n] where each projects to, in sorts
    ``parents`` [k]. ``order`` is the number of fibres; an atom has ``size`` > 1 units in each,
    and its units lie fibre by fibre: ``units.reshape(order, size)``.
    """

    units: IntArray
    parents: tuple[int, ...]
    images: IntArray
    size: int

    @property
    def order(self) -> int:
        return len(self.units) // self.size


@dataclass(frozen=True)
class Solution:
    """``classes`` [unit] maps units to classes; ``sorts`` stand parents first."""

    classes: IntArray
    sorts: tuple[Sort, ...]
    sort_of: IntArray


def solve(u: Universe, marks: Sequence[IntArray] = ()) -> Solution:
    """Find all sorts of interchangeable units; ``marks`` single out units beside those of ``u``.

    Where a condition of ``u`` is not met its units are fixed, and all is solved again.
    """
    while True:
        solution = _solve(u, marks)
        broken = [k for k, (_, free) in enumerate(u.conditions) if not _any_order(solution, free)]
        if not broken:
            return solution
        for units, _ in (u.conditions[k] for k in broken):
            u.tie(units, FIXED, 0)
        u.conditions = [c for k, c in enumerate(u.conditions) if k not in broken]


def _any_order(solution: Solution, units: IntArray) -> bool:
    """Whether ``units`` may take any order among themselves, whatever the others do."""
    classes = solution.classes[units]
    sorts = set(solution.sort_of[classes].tolist())
    if len(sorts) > 1 or -1 in sorts or len(np.unique(classes)) < len(units):
        return False
    sort = solution.sorts[sorts.pop()]
    return sort.order == 1 and len(sort.units) == len(units)


def _solve(u: Universe, marks: Sequence[IntArray]) -> Solution:
    unions, maps = _statements(u)
    roles = _roles(u.count, unions, maps, [*u.marks, *marks])
    while True:
        classes, count = _components(u.count, unions)
        edges = _edges(classes, roles, maps)
        colours = _refine(_class_colours(classes, count, roles), edges)
        groups = _large(colours)
        same, implied = _consequences(groups, edges)
        if not same and not implied:
            return Solution(classes, *_forest(groups, edges, count))
        unions = [*unions, *_as_units(same, classes)]
        maps = [*maps, *_as_units(implied, classes)]


def _statements(u: Universe) -> tuple[list[Pairs], list[Pairs]]:
    """Ties that pair units one to one, and those that project many onto one."""
    unions: list[Pairs] = []
    maps: list[Pairs] = []
    spare = u.count
    for a, b in u.ties:
        a, b = _unique_columns(a, b) if _repeated(a) or _repeated(b) else (a, b)
        a_once, b_once = not _repeated(a), not _repeated(b)
        if a_once and b_once and a.min(initial=0) >= 0 and b.min(initial=0) >= 0:
            unions.append((a, b))
        elif a_once and a.min(initial=0) >= 0:
            maps.append((a, b))
        elif b_once and b.min(initial=0) >= 0:
            maps.append((b, a))
        else:  # neither follows the other: both follow what connects them
            common, spare = _connect(a, b, spare)
            for side in (a, b):
                moving = side >= 0
                maps += [(side[moving], common[moving]), (common[~moving], side[~moving])]
    u.count = spare
    return unions, maps


def _unique_columns(*rows: IntArray) -> tuple[IntArray, ...]:
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


def _components(count: int, unions: Sequence[Pairs]) -> tuple[IntArray, int]:
    a = np.concatenate([x for x, _ in unions] or [np.zeros(0, np.int64)])
    b = np.concatenate([y for _, y in unions] or [np.zeros(0, np.int64)])
    graph = coo_array((np.ones(len(a), dtype=np.int8), (a, b)), shape=(count, count))
    number, classes = connected_components(graph, directed=False)
    return classes.astype(np.int64), int(number)


def _roles(count: int, unions: Sequence[Pairs], maps: Sequence[Pairs], marks: Sequence[IntArray]) -> IntArray:
    """Colours of the single units, by their marks and all statements: units of one role look alike."""
    every = [(a, b) for a, b in [*unions, *maps] if len(a) and b[0] >= 0]
    tags = np.repeat(np.arange(len(every)), [len(a) for a, _ in every])
    a, b = (np.concatenate([p[k] for p in every] or [np.zeros(0, np.int64)]) for k in (0, 1))
    return _refine(_first_colours(count, marks, [p for p in maps if len(p[0]) and p[1][0] < 0]), (tags, a, b))


def _edges(classes: IntArray, roles: IntArray, maps: Sequence[Pairs]) -> Edges:
    """Projections between classes, tagged by the statement and the roles that it joins."""
    rows = []
    for tag, (a, b) in enumerate(maps):
        if len(a) and b[0] >= 0:
            rows.append(np.stack([np.full(len(a), tag), roles[a], roles[b], classes[a], classes[b]]))
    if not rows:
        return (np.zeros(0, np.int64),) * 3
    every = np.concatenate(rows, axis=1)
    every = every[:, every[3] != every[4]]
    tags = np.unique(_hash(_hash(_hash(every[0]) + _hash(every[1])) + _hash(every[2])), return_inverse=True)[
        1
    ]
    tags, a, b = _unique_columns(tags.ravel(), every[3], every[4])
    return tags, a, b


def _hash(
    x: IntArray | np.ndarray[tuple[int, ...], np.dtype[np.uint64]],
) -> np.ndarray[tuple[int, ...], np.dtype[np.uint64]]:
    """splitmix64, element by element."""
    z = x.astype(np.uint64) + _MIX[0]
    z = (z ^ (z >> np.uint64(30))) * _MIX[1]
    z = (z ^ (z >> np.uint64(27))) * _MIX[2]
    return z ^ (z >> np.uint64(31))


def _first_colours(count: int, marks: Sequence[IntArray], fixed: Sequence[Pairs]) -> IntArray:
    """Colours of units by the marks they bear and the fixed coordinates they lie on."""
    total = np.zeros(count, dtype=np.uint64)
    with np.errstate(over="ignore"):
        for k, ids in enumerate(marks):
            np.add.at(total, ids, _hash(np.array([2 * k + 1])))
        for k, (ids, coordinate) in enumerate(fixed):
            np.add.at(total, ids, _hash(_hash(np.array([2 * k])) + _hash(-coordinate)))
    return np.unique(total, return_inverse=True)[1].astype(np.int64)


def _class_colours(classes: IntArray, count: int, roles: IntArray) -> IntArray:
    """Colours of classes by the roles of their units."""
    total = np.zeros(count, dtype=np.uint64)
    with np.errstate(over="ignore"):
        np.add.at(total, classes, _hash(_hash(roles)))
    return np.unique(total, return_inverse=True)[1].astype(np.int64)


def _refine(colours: IntArray, edges: Edges) -> IntArray:
    """Colour refinement to its fixed point."""
    tag, a, b = edges
    out_tag, in_tag = _hash(2 * tag), _hash(2 * tag + 1)
    by_a, by_b = np.argsort(a, kind="stable"), np.argsort(b, kind="stable")
    count = colours.max(initial=-1) + 1
    while True:
        with np.errstate(over="ignore"):
            mixed = _hash(_hash(colours))
            _add_at(mixed, a, _hash(out_tag + _hash(colours[b])), by_a)
            _add_at(mixed, b, _hash(in_tag + _hash(colours[a])), by_b)
        colours = np.unique(mixed, return_inverse=True)[1].astype(np.int64)
        if colours.max(initial=-1) + 1 == count:
            return colours
        count = colours.max(initial=-1) + 1


def _add_at(total: np.ndarray, index: IntArray, values: np.ndarray, order: IntArray) -> None:
    """``total[index] += values``, with ``order`` sorting ``index``."""
    if index.size:
        where, start = np.unique(index[order], return_index=True)
        total[where] += np.add.reduceat(values[order], start)


def _large(colours: IntArray) -> list[IntArray]:
    """Colour classes of more than one member, each in increasing order, ordered by first member."""
    order = np.argsort(colours, kind="stable")
    cuts = np.flatnonzero(np.diff(colours[order])) + 1
    found = [g for g in np.split(order, cuts) if len(g) > 1]
    return sorted(found, key=lambda g: int(g[0]))


def _maps_of(groups: Sequence[IntArray], edges: Edges) -> dict[int, dict[int, IntArray]]:
    """For each group its projections to other groups: image of each member, by statement."""
    tag, a, b = edges
    size = int(max((g.max() for g in groups), default=-1)) + 1
    owner = np.full(max(size, int(a.max(initial=-1)) + 1, int(b.max(initial=-1)) + 1), -1, dtype=np.int64)
    place = np.zeros_like(owner)
    for k, g in enumerate(groups):
        owner[g], place[g] = k, np.arange(len(g))
    keep = (owner[a] >= 0) & (owner[b] >= 0)
    tag, a, b = tag[keep], a[keep], b[keep]
    order = np.lexsort((place[a], tag, owner[a]))
    tag, a, b = tag[order], a[order], b[order]
    key = np.stack([owner[a], tag])
    cuts = np.flatnonzero((np.diff(key, axis=1) != 0).any(axis=0)) + 1
    found: dict[int, dict[int, IntArray]] = {}
    for part in np.split(np.arange(len(a)), cuts) if len(a) else []:
        k, group = int(owner[a[part[0]]]), groups[int(owner[a[part[0]]])]
        if len(part) == len(group):  # one image each; several images occur only in irregular structures
            found.setdefault(k, {})[int(tag[part[0]])] = b[part]
    return found


def _consequences(groups: Sequence[IntArray], edges: Edges) -> tuple[list[Pairs], list[Pairs]]:
    """Groups that must move as one, and projections that follow from others but were not stated."""
    maps = _maps_of(groups, edges)
    size = max((int(g.max()) for g in groups), default=-1) + 1
    known = {(int(g[0]), int(image[0])) for k, g in enumerate(groups) for image in maps.get(k, {}).values()}
    first = np.zeros(size, dtype=np.int64)
    for g in groups:
        first[g] = g[0]
    stated = {(a, int(first[b])) for a, b in known}
    same: list[Pairs] = []
    implied: list[Pairs] = []
    for k, found in maps.items():
        images = _distinct(found)
        for image in images:
            if len(np.unique(image)) == len(groups[k]):
                same.append((groups[k], image))
        follows = _following(images)
        for i, x in enumerate(images):
            for j, y in enumerate(images):
                if first[x[0]] == first[y[0]] or not follows[i, j]:
                    continue
                if follows[j, i]:
                    same.append((x, y))
                elif (int(first[x[0]]), int(first[y[0]])) not in stated:
                    implied.append((x, y))
    return same, implied


def _following(images: Sequence[IntArray]) -> NDArray[np.bool_]:
    """Whether image j is a function of image i, element by element [i, j]."""
    table = np.stack(images)
    follows = np.empty((len(table), len(table)), dtype=bool)
    for i, x in enumerate(table):
        order = np.argsort(x, kind="stable")
        alike = np.diff(x[order]) == 0
        follows[i] = ~(np.diff(table[:, order], axis=1)[:, alike] != 0).any(axis=1)
    return follows


def _as_units(pairs: Sequence[Pairs], classes: IntArray) -> list[Pairs]:
    """Pairs of classes as pairs of units."""
    some_unit = np.zeros(int(classes.max(initial=-1)) + 1, dtype=np.int64)
    some_unit[classes] = np.arange(len(classes))
    return [(some_unit[a], some_unit[b]) for a, b in pairs]


def _forest(groups: Sequence[IntArray], edges: Edges, count: int) -> tuple[tuple[Sort, ...], IntArray]:
    """Sorts with parents first, and the sort of each class (-1: it never moves)."""
    maps = _maps_of(groups, edges)
    owner = np.full(count, -1, dtype=np.int64)
    ordered = sorted(range(len(groups)), key=lambda k: (len(groups[k]), int(groups[k][0])))
    sorts = []
    for number, k in enumerate(ordered):
        images = _distinct(maps.get(k, {}))
        sorts.append(_sort(groups[k], images, owner))
        owner[groups[k]] = number
    return tuple(sorts), owner


def _distinct(maps: Mapping[int, IntArray]) -> list[IntArray]:
    return list({m.tobytes(): m for m in maps.values()}.values())


def _sort(group: IntArray, images: Sequence[IntArray], owner: IntArray) -> Sort:
    """Order a group fibre by fibre and count the units in each fibre."""
    if not images:
        return Sort(group, (), np.zeros((0, len(group)), np.int64), len(group))
    table = np.stack(images)
    _, fibre, sizes = np.unique(table, axis=1, return_inverse=True, return_counts=True)
    order = np.argsort(fibre.ravel(), kind="stable")
    parents = tuple(int(owner[row[0]]) for row in table)
    return Sort(group[order], parents, table[:, order], int(sizes[0]))
