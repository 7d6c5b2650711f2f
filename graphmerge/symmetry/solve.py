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

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from graphmerge.axes.units import FIXED, IntArray, Universe
from graphmerge.symmetry.colours import hashed, refine
from graphmerge.symmetry.statements import (
    NOBODY,
    Alike,
    Kinds,
    Pairs,
    Statement,
    as_statements,
    statements,
    unique_columns,
)

Edges = tuple[IntArray, IntArray, IntArray, IntArray]
"""Projections as (kind [e], member [e], image [e], statement [e])."""


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
    """``classes`` [unit] maps units to classes, ``seats`` to places in them; ``sorts``: parents first."""

    classes: IntArray
    seats: IntArray
    sorts: tuple[Sort, ...]
    sort_of: IntArray


def solve(
    u: Universe, marks: Sequence[IntArray] = (), alike: Alike = lambda tag: tag, owners: IntArray = NOBODY
) -> Solution:
    """Find all sorts of interchangeable units; ``marks`` single out units beside those of ``u``.

    ``owners`` tells for the first units which parallel branch made them (-1: none did, nor any other).

    Where a condition of ``u`` is not met its units are fixed, and all is solved again.
    """
    while True:
        solution = _solve(u, marks, alike, owners)
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


def _solve(u: Universe, marks: Sequence[IntArray], alike: Alike, owners: IntArray) -> Solution:
    kinds = Kinds(alike)
    stated, maps = statements(u, kinds)
    unions = stated
    singled = [(ids, kinds("mark", tag)) for ids, tag in zip(u.marks, u.mark_tags, strict=True)]
    singled += [(ids, kinds("own mark", ("", k, 0))) for k, ids in enumerate(marks)]
    roles = _roles(u.count, stated, maps, singled)
    owner = np.concatenate([owners, np.full(u.count - len(owners), -1, dtype=np.int64)])
    while True:
        classes, count = _components(u.count, unions)
        seats = _seats(classes, roles, owner)
        first = _class_colours(classes, count, seats, stated)
        colours, groups, images = _even(first, _edges(classes, seats, maps))
        same, implied = _consequences(groups, images)
        if not same and not implied:
            return Solution(classes, seats, *_forest(groups, images, count))
        apart = roles * count + colours[classes]  # what has been told apart stays so
        roles = np.unique(apart, return_inverse=True)[1].astype(np.int64)
        unions = [*unions, *as_statements(same, classes, kinds)]
        maps = [*maps, *as_statements(implied, classes, kinds)]


def stated_classes(u: Universe) -> IntArray:
    """For each unit a number that it shares with those that statements say are one with it."""
    unions, _ = statements(u, Kinds(lambda tag: tag))
    return _components(u.count, unions)[0]


def _components(count: int, unions: Sequence[Statement]) -> tuple[IntArray, int]:
    a = np.concatenate([s.a for s in unions] or [np.zeros(0, np.int64)])
    b = np.concatenate([s.b for s in unions] or [np.zeros(0, np.int64)])
    graph = coo_array((np.ones(len(a), dtype=np.int8), (a, b)), shape=(count, count))
    number, classes = connected_components(graph, directed=False)
    return classes.astype(np.int64), int(number)


Marks = Sequence[tuple[IntArray, int]]
"""Units that are singled out, and the kind of the statement."""


def _roles(count: int, unions: Sequence[Statement], maps: Sequence[Statement], marks: Marks) -> IntArray:
    """Colours of the single units, by their marks and all statements: units of one role look alike."""
    every = [s for s in [*unions, *maps] if s.relates]
    tags = np.repeat(np.array([s.kind for s in every], np.int64), [len(s.a) for s in every])
    a = np.concatenate([s.a for s in every] or [np.zeros(0, np.int64)])
    b = np.concatenate([s.b for s in every] or [np.zeros(0, np.int64)])
    return refine(_first_colours(count, marks, [s for s in maps if s.fixes]), (tags, a, b))


def _seats(classes: IntArray, roles: IntArray, owner: IntArray) -> IntArray:
    """Roles, with the rank among those of one role that a roll or flip ties into one class.

    Classes move as wholes, each unit to its seat in another; parallel branches share theirs.
    """
    order = np.lexsort((owner, roles, classes))
    first = np.ones(len(order), dtype=bool)
    first[1:] = np.any([np.diff(x[order]) != 0 for x in (classes, roles, owner)], axis=0)
    place = np.arange(len(order))
    rank = np.empty_like(roles)
    rank[order] = place - np.maximum.accumulate(np.where(first, place, 0))
    seats: IntArray = roles + (roles.max(initial=0) + 1) * rank
    return seats


def _edges(classes: IntArray, seats: IntArray, maps: Sequence[Statement]) -> Edges:
    """Projections between classes, by the kind of the statement and the seats that it joins."""
    rows = []
    for s in maps:
        if s.relates:
            kind, number = np.full(len(s.a), s.kind), np.full(len(s.a), s.number)
            rows.append(np.stack([kind, seats[s.a], seats[s.b], classes[s.a], classes[s.b], number]))
    if not rows:
        return (np.zeros(0, np.int64),) * 4
    every = np.concatenate(rows, axis=1)
    every = every[:, every[3] != every[4]]
    kinds = hashed(hashed(hashed(every[0]) + hashed(every[1])) + hashed(every[2]))
    tags = np.unique(kinds, return_inverse=True)[1].ravel()
    tags, a, b, number = unique_columns(tags, every[3], every[4], every[5])
    return tags, a, b, number


def _first_colours(count: int, marks: Marks, fixed: Sequence[Statement]) -> IntArray:
    """Colours of units by the marks they bear and the fixed coordinates they lie on."""
    total = np.zeros(count, dtype=np.uint64)
    with np.errstate(over="ignore"):
        for ids, kind in marks:
            np.add.at(total, ids, hashed(np.array([2 * kind + 1])))
        for s in fixed:
            np.add.at(total, s.a, hashed(hashed(np.array([2 * s.kind])) + hashed(-s.b)))
    return np.unique(total, return_inverse=True)[1].astype(np.int64)


def _class_colours(classes: IntArray, count: int, seats: IntArray, stated: Sequence[Statement]) -> IntArray:
    """Colours of classes by the seats of their units and the statements that tie these."""
    total = np.zeros(count, dtype=np.uint64)
    with np.errstate(over="ignore"):
        np.add.at(total, classes, hashed(hashed(seats)))
        for s in stated:
            joined = hashed(hashed(hashed(seats[s.a]) + np.uint64(s.kind)) + hashed(seats[s.b]))
            np.add.at(total, classes[s.a], joined)
    return np.unique(total, return_inverse=True)[1].astype(np.int64)


Images = dict[int, list[IntArray]]
"""For each group its projections to other groups: the image of each member."""


def _even(colours: IntArray, edges: Edges) -> tuple[IntArray, list[IntArray], Images]:
    """Colours refined until the units of one lie in fibres of one size; the sorts; and their projections.

    Two ways to cut six units into halves share two units in two cells and one in the other two.
    """
    while True:
        colours = refine(colours, edges[:3])
        groups = _large(colours)
        maps = _maps_of(groups, edges)
        finer, count = colours.copy(), colours.max(initial=-1) + 1
        for k, found in maps.items():
            _, place, sizes = np.unique(_cells(_distinct(found)), return_inverse=True, return_counts=True)
            if (sizes != sizes[0]).any():
                finer[groups[k]] += count * sizes[place]
        if (finer == colours).all():
            return colours, groups, maps
        colours = np.unique(finer, return_inverse=True)[1].astype(np.int64)


def _cells(images: Sequence[IntArray]) -> NDArray[np.uint64]:
    """A number for each unit, the same where all images are the same."""
    cell = np.zeros(len(images[0]), dtype=np.uint64)
    for image in images:
        cell = np.asarray(hashed(hashed(cell) + hashed(image)), dtype=np.uint64)
    return cell


def _large(colours: IntArray) -> list[IntArray]:
    """Colour classes of more than one member, each in increasing order, ordered by first member."""
    order = np.argsort(colours, kind="stable")
    cuts = np.flatnonzero(np.diff(colours[order])) + 1
    found = [g for g in np.split(order, cuts) if len(g) > 1]
    return sorted(found, key=lambda g: int(g[0]))


def _maps_of(groups: Sequence[IntArray], edges: Edges) -> Images:
    """For each group its projections to other groups: the image of each member, by kind of statement.

    Members that parallel branches share have an image in each branch: there the statements count one by one.
    """
    tag, a, b, number = edges
    size = int(max((g.max() for g in groups), default=-1)) + 1
    owner = np.full(max(size, int(a.max(initial=-1)) + 1, int(b.max(initial=-1)) + 1), -1, dtype=np.int64)
    place = np.zeros_like(owner)
    for k, g in enumerate(groups):
        owner[g], place[g] = k, np.arange(len(g))
    keep = (owner[a] >= 0) & (owner[b] >= 0)
    found: Images = {}
    tag, a, b, number = tag[keep], a[keep], b[keep], number[keep]
    for part in _runs(owner[a], tag, place[a]):
        k = int(owner[a[part[0]]])
        once = part[np.concatenate([[True], np.diff(place[a[part]]) != 0])]
        images = [b[once]] if _one_image(a[part], b[part]) else []
        if not images:
            single = [part[run] for run in _runs(number[part], place[a[part]])]
            images = [b[x] for x in single if _one_image(a[x], b[x])]
        for image in images:
            if len(image) == len(groups[k]):
                found.setdefault(k, []).append(image)
    return found


def _runs(*keys: IntArray) -> list[IntArray]:
    """Indices that agree in all keys but the last, in the order of the last."""
    order = np.lexsort(keys[::-1])
    if not len(order):
        return []
    rows = np.stack(keys[:-1])[:, order]
    return np.split(order, np.flatnonzero((np.diff(rows, axis=1) != 0).any(axis=0)) + 1)


def _one_image(a: IntArray, b: IntArray) -> bool:
    """Whether each member (sorted) has one image, be it stated once or more often."""
    return bool((np.diff(b)[np.diff(a) == 0] == 0).all())


def _consequences(groups: Sequence[IntArray], maps: Images) -> tuple[list[Pairs], list[Pairs]]:
    """Groups that must move as one, and projections that follow from others but were not stated."""
    size = max((int(g.max()) for g in groups), default=-1) + 1
    known = {(int(g[0]), int(image[0])) for k, g in enumerate(groups) for image in maps.get(k, [])}
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


def _forest(groups: Sequence[IntArray], maps: Images, count: int) -> tuple[tuple[Sort, ...], IntArray]:
    """Sorts with parents first, and the sort of each class (-1: it never moves)."""
    owner = np.full(count, -1, dtype=np.int64)
    ordered = sorted(range(len(groups)), key=lambda k: (len(groups[k]), int(groups[k][0])))
    sorts = []
    for number, k in enumerate(ordered):
        images = _distinct(maps.get(k, []))
        sorts.append(_sort(groups[k], images, owner))
        owner[groups[k]] = number
    return tuple(sorts), owner


def _distinct(images: Sequence[IntArray]) -> list[IntArray]:
    return list({m.tobytes(): m for m in images}.values())


def _sort(group: IntArray, images: Sequence[IntArray], owner: IntArray) -> Sort:
    """Order a group fibre by fibre and count the units in each fibre."""
    if not images:
        return Sort(group, (), np.zeros((0, len(group)), np.int64), len(group))
    table = np.stack(images)
    _, fibre, sizes = np.unique(table, axis=1, return_inverse=True, return_counts=True)
    order = np.argsort(fibre.ravel(), kind="stable")
    parents = tuple(int(owner[row[0]]) for row in table)
    return Sort(group[order], parents, table[:, order], int(sizes[0]))
