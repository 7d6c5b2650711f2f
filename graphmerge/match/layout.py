"""Which rows of which tensors a unit owns: the bridge from symmetry groups to cost matrices.

For a group and a tensor dimension that it moves, the tensor is read as rows: the dimension itself,
and every dimension that its order depends on, flattened in front; all other dimensions behind. A
unit owns the rows that move when it moves (a head: all rows of its dimensions), in one order for
all units, so that two units can be compared row by row.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch

from graphmerge.axes.units import IntArray
from graphmerge.symmetry import ModelGraph
from graphmerge.symmetry.structure import Structure


@dataclass(frozen=True)
class Site:
    """Rows of one tensor that a group moves.

    ``axes`` are the tensor's dimensions that make up a row number, in front to back order;
    ``rows`` [fibre, unit, role] are the rows of each unit.
    """

    name: str
    axes: tuple[int, ...]
    rows: IntArray
    classes: IntArray

    def matrix(self, t: torch.Tensor) -> torch.Tensor:
        """A tensor as [row, rest]."""
        rest = [d for d in range(t.ndim) if d not in self.axes]
        count = math.prod(t.shape[d] for d in self.axes)
        return t.permute(*self.axes, *rest).reshape(count, -1)

    @cached_property
    def ascending(self) -> bool:
        """The rows are in the order in which the tensor has them."""
        return bool((np.diff(self.rows.ravel()) > 0).all())


def owners(structure: Structure, k: int) -> IntArray:
    """For each class the unit of sort ``k`` (its place in the sort) that it moves with, or -1."""
    owner = np.full(len(structure.sort_of), -1, dtype=np.int64)
    for j, sort in enumerate(structure.sorts):
        if j == k:
            owner[sort.units] = np.arange(len(sort.units))
        else:
            for parent, image in zip(sort.parents, sort.images, strict=True):
                if k in structure.ancestors(parent):
                    owner[sort.units] = owner[image]
                    break
    return owner


def sites(structure: Structure, k: int, labels: Mapping[str, Sequence[IntArray | None]]) -> list[Site]:
    """Where the units of atom ``k`` show among tensors labelled by ``labels`` (name -> class per dim)."""
    owner = owners(structure, k)
    found = []
    for name, dims in labels.items():
        moved = [d for d, x in enumerate(dims) if x is not None and (owner[x] >= 0).any()]
        for d in moved:
            classes = dims[d]
            assert classes is not None
            axes = _axes(classes, d)
            if any(d in _axes(dims[e], e) for e in moved if e != d):
                continue  # its units are seen, with what they contain, along the other dimension
            site = _site(structure, k, name, axes, classes, owner)
            if site is not None:
                found.append(site)
    return found


def _axes(classes: IntArray | None, d: int) -> tuple[int, ...]:
    assert classes is not None
    return tuple(e for e, n in enumerate(classes.shape) if n > 1 or e == d)


def _site(
    structure: Structure, k: int, name: str, axes: tuple[int, ...], classes: IntArray, owner: IntArray
) -> Site | None:
    flat = classes.ravel()
    mine = owner[flat]
    rows = np.flatnonzero(mine >= 0)
    units = len(structure.sorts[k].units)
    if len(rows) % units:
        return None
    order = np.argsort(mine[rows], kind="stable")
    table = rows[order].reshape(units, -1)
    if (mine[table] != np.arange(units)[:, None]).any():
        return None
    sort = structure.sorts[k]
    return Site(name, axes, table.reshape(sort.order, sort.size, -1), flat)


def children(structure: Structure, k: int) -> tuple[int, ...]:
    """The atoms that have an order of their own inside each unit of atom ``k``."""
    return tuple(j for j in structure.atoms if j != k and k in structure.ancestors(j))


@dataclass(frozen=True)
class Plan:
    """All that coordinate steps on one atom need, worked out once.

    ``own`` are sites whose rows no child reorders, ``inner[child]`` the sites that this child alone
    reorders (all of its sites, if there is none such), as rows [unit, child unit, role]. ``pairs`` are
    the tensors with a dimension of pairs of the atom's own units.
    """

    atom: int
    sites: tuple[Site, ...]
    own: tuple[Site, ...]
    inner: Mapping[int, tuple[Site, ...]]
    pairs: frozenset[str] = frozenset()

    @cached_property
    def names(self) -> frozenset[str]:
        """The tensors that the atom moves."""
        return frozenset(s.name for s in self.sites)

    @cached_property
    def tangled(self) -> frozenset[str]:
        """Tensors that the atom moves in two ways at once, where a unit meets others that move with it."""
        times = Counter(s.name for s in self.sites)
        return self.pairs | {n for n, count in times.items() if count > 1}

    @property
    def linear(self) -> bool:
        """No tensor is tangled: the assignment's gain is that of the objective."""
        return not self.tangled


def plan(structure: Structure, k: int, labels: Mapping[str, Sequence[IntArray | None]]) -> Plan:
    """Lay out atom ``k`` and, where it has any, its children."""
    mine = sites(structure, k, labels)
    below = [j for j in children(structure, k) if structure.sorts[j].order == len(structure.sorts[k].units)]
    owner = {j: owners(structure, j) for j in below}

    def among(site: Site) -> set[int]:
        classes = site.classes[site.rows.ravel()]
        return {j for j in below if (owner[j][classes] >= 0).any()}

    inner = {}
    for j in below:
        theirs = sites(structure, j, labels)
        if not theirs:
            continue  # nothing of it is seen: its units stay as they are
        alone = [s for s in theirs if _only(s, j, below, owner)]
        inner[j] = tuple(_by_parent(structure, k, j, s, owners(structure, k)) for s in alone or theirs)
    pairs = frozenset(s.name for s in mine if _of_pairs(structure, k, s))
    return Plan(k, tuple(mine), tuple(s for s in mine if not among(s)), inner, pairs)


def _of_pairs(structure: Structure, k: int, site: Site) -> bool:
    """The rows stand for pairs of units of ``k``: each moves with two of them."""
    sorts = {int(x) for x in structure.sort_of[site.classes[site.rows.ravel()]]} - {k}
    return any(sum(k in structure.ancestors(p) for p in structure.sorts[j].parents) > 1 for j in sorts)


def _only(site: Site, j: int, below: Sequence[int], owner: Mapping[int, IntArray]) -> bool:
    """No other child of the same atom reorders the site's rows, unless it is above or below ``j``."""
    classes = site.classes[site.rows.ravel()]
    return not any((owner[i][classes] >= 0).any() for i in below if i != j)


def _by_parent(structure: Structure, k: int, j: int, site: Site, owner_k: IntArray) -> Site:
    """The rows of child ``j`` as [unit of k, unit of j inside it, role]."""
    units = structure.sorts[j].units
    parent = owner_k[units]
    order = np.argsort(parent, kind="stable")
    rows = site.rows.reshape(len(units), -1)[order]
    return Site(
        site.name, site.axes, rows.reshape(len(structure.sorts[k].units), -1, rows.shape[1]), site.classes
    )


def plans(
    graph: ModelGraph, structure: Structure, labels: Mapping[str, Sequence[IntArray | None]]
) -> dict[str, Plan]:
    """The plan of every group of ``graph`` that shows among ``labels``."""
    made = {name: plan(structure, k, labels) for name, k in graph.atom_of.items()}
    return {name: p for name, p in made.items() if p.sites}
