"""Parallel branches in the facts: what corresponds is stated alike, and its parameters become one stack."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from graphmerge.axes.units import FIXED, IntArray, Labels, Tag, Universe, Value, Whole
from graphmerge.symmetry.branches import Branches
from graphmerge.symmetry.statements import Alike


@dataclass(frozen=True)
class Stacks:
    """Parameters with those of parallel branches stacked, [branch, ...].

    ``members`` names the tensors in each stack, ``heads`` are the units that stand for the branches of
    each of ``sets``, ``alike`` gives the kind of a statement, ``owners`` [unit] the branch that made it.
    """

    values: Mapping[str, Value]
    members: Mapping[str, tuple[str, ...]]
    heads: tuple[IntArray, ...]
    sets: tuple[Branches, ...]
    alike: Alike
    owners: IntArray


def stack(
    u: Universe, parameters: Mapping[str, Value], sets: Sequence[Branches], classes: IntArray
) -> Stacks:
    """Let the units of every set of branches follow the units that stand for its branches.

    ``classes`` [unit] are those of a solution without branches: they tell which units belong to one
    branch and which to all. A set whose branches do not state the same is left out.
    """
    stated = _stated(u)
    found = [(s, x) for s in sets if (x := _bind(u, parameters, s, stated, classes)) is not None]
    members = {stack_name(row): row for s, _ in found for row in s.tensors}
    inside = {n for row in members.values() for n in row}
    values = {n: v for n, v in parameters.items() if n not in inside}
    for s, heads in found:
        for row in s.tensors:
            values[stack_name(row)] = stacked(stack_name(row), [parameters[n] for n in row], heads)
    first = {n: (row[0], -1) for s, _ in found for row in s.nodes for n in row}
    parts = {(n, k): -2 - i for i, (s, _) in enumerate(found) for n, x in s.parts.items() for k in x}

    def alike(tag: Tag) -> object:
        node, part, number = tag
        return (first[node][0] if node in first else node, parts.get((node, part), part), number)

    kept = tuple(s for s, _ in found)
    return Stacks(values, members, tuple(x for _, x in found), kept, alike, _owners(u, kept))


def _owners(u: Universe, sets: Sequence[Branches]) -> IntArray:
    """For each unit a number of the branch that made it: within it, or where it is joined or cut; else -1."""
    makers: dict[object, int] = {}
    before = 0
    for s in sets:
        makers |= {n: before + i for row in s.nodes for i, n in enumerate(row)}
        makers |= {(n, part): before + i for n, x in s.parts.items() for part, i in x.items()}
        before += s.count
    made = [makers.get((node, part), makers.get(node, -1)) for _, node, part in u.origins]
    counts = np.diff([*(first for first, _, _ in u.origins), u.count])
    return np.repeat(np.array(made, dtype=np.int64), counts)


def _stated(u: Universe) -> dict[str, list[tuple[Tag, int, IntArray | None]]]:
    """What each node stated: the tag, the number of units, and the units where they were marked."""
    found: dict[str, list[tuple[Tag, int, IntArray | None]]] = defaultdict(list)
    for tag, (a, _) in zip(u.tie_tags, u.ties, strict=True):
        found[tag[0]].append((tag, len(a), None))
    for tag, ids in zip(u.mark_tags, u.marks, strict=True):
        found[tag[0]].append((tag, len(ids), ids))
    return found


def _bind(
    u: Universe,
    parameters: Mapping[str, Value],
    s: Branches,
    stated: Mapping[str, Sequence[tuple[Tag, int, IntArray | None]]],
    classes: IntArray,
) -> IntArray | None:
    """The units that stand for the branches, followed by all that belongs to one; None if they differ."""
    for row in s.nodes:
        said = [[(*tag[1:], count) for tag, count, _ in stated.get(n, ())] for n in row]
        if any(x != said[0] for x in said):
            return None
    own = [_own(row, parameters, classes) for row in s.tensors]
    picked = [_picked(row, stated) for row in s.picks]
    if any(x is None for x in own) or any(x is None for x in picked):
        return None
    heads = u.new((s.count,))
    followers = [*(x for rows in own for x in rows or ()), *(x for x in picked if x is not None)]
    taken: dict[int, int] = {}
    for units in followers:
        for branch, mine in enumerate(_classes(classes, units)):
            if any(taken.setdefault(c, branch) != branch for c in mine):
                return None
    for units in followers:
        u.tie(units, heads[:, None], 0)
    return heads


def _classes(classes: IntArray, units: IntArray) -> list[list[int]]:
    """The distinct classes in each row of ``units`` [branch, n]."""
    return [np.unique(classes[row]).tolist() for row in units]


def _own(row: Sequence[str], parameters: Mapping[str, Value], classes: IntArray) -> list[IntArray] | None:
    """Units [branch, n] along each dimension that belong to one branch alone; None if the tensors differ."""
    found = []
    for labels in zip(*((parameters[n].labels or []) for n in row), strict=True):
        arrays = [x for x in labels if not isinstance(x, Whole)]
        if not arrays and all(x is labels[0] for x in labels):
            continue
        if len(arrays) < len(labels) or any(x.shape != arrays[0].shape for x in arrays):
            return None
        units = np.stack([x.ravel() for x in arrays])
        order = np.sort(classes[units], axis=0)
        shared, apart = (order[0] == order[-1]), (np.diff(order, axis=0) != 0).all(axis=0)
        if not (shared | apart).all():
            return None
        if apart.any():
            found.append(units[:, apart])
    return found


def _picked(
    row: Sequence[tuple[str, int]], stated: Mapping[str, Sequence[tuple[Tag, int, IntArray | None]]]
) -> IntArray | None:
    """The units [branch, n] that each branch picks; None where they do not move."""
    marked = [
        [ids for tag, _, ids in stated.get(node, ()) if ids is not None and tag[1] == part]
        for node, part in row
    ]
    sizes = {len(np.concatenate(x)) if x else 0 for x in marked}
    return np.stack([np.concatenate(x) for x in marked]) if len(sizes) == 1 and 0 not in sizes else None


def stacked(name: str, values: Sequence[Value], heads: IntArray) -> Value:
    """Tensors that correspond as one, [branch, ...]; a dimension that they do not label alike is fixed."""
    shape = values[0].shape
    labels: list[Labels] = [heads.reshape(-1, *[1] * len(shape))]
    for own in zip(*(v.labels or [] for v in values), strict=True):
        arrays = [x for x in own if not isinstance(x, Whole) and x.shape == np.shape(own[0])]
        alike = all(x is own[0] for x in own)
        labels.append(np.stack(arrays) if len(arrays) == len(own) else own[0] if alike else FIXED)
    return Value(name, (len(values), *shape), labels)


def stack_name(row: Sequence[str]) -> str:
    """One name for tensors that correspond: what differs stands in braces."""
    parts = [n.split(".") for n in row]
    if len({len(p) for p in parts}) > 1:
        return "{" + ",".join(row) + "}"
    columns = [list(dict.fromkeys(c)) for c in zip(*parts, strict=True)]
    return ".".join(c[0] if len(c) == 1 else "{" + ",".join(c) + "}" for c in columns)
