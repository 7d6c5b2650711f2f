"""Symmetry groups: which dimensions each atom of a structure moves, and what it is called."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np

from graphmerge.symmetry.naming import distinct, own_names
from graphmerge.symmetry.structure import Structure

Place = tuple[str, int]
"""A tensor and one of its dimensions."""


@dataclass(frozen=True)
class SymmetryGroup:
    """Units that may be permuted among themselves without changing the network.

    ``size`` units in each of ``copies`` fibres: a plain group has one copy; a group that is
    ``within`` others has its own order inside each of their units (the dimensions within each head).
    ``members`` are the (parameter, dimension) pairs that move with it; dimension -1 stands for a tensor
    that changes places, as a whole, with those of parallel branches.
    """

    name: str
    size: int
    copies: int
    kind: str
    members: tuple[Place, ...]
    within: tuple[str, ...]

    @property
    def units(self) -> int:
        """How many units the group has, those of all fibres."""
        return self.size * self.copies


def moved_by(structure: Structure) -> dict[Place, frozenset[int]]:
    """For each labelled dimension the atoms that move it, themselves or through what follows them.

    Tensors of parallel branches stand under their own names; with dimension -1 they change places as wholes.
    """
    atoms = frozenset(structure.atoms)
    above = [atoms & structure.ancestors(k) for k in range(len(structure.sorts))]
    found: dict[Place, frozenset[int]] = {}
    for place, (name, d) in structure.places.items():
        classes = structure.labels[name][d]
        present = np.unique(structure.sort_of[classes]).tolist() if classes is not None else []
        found[place] = frozenset().union(*(above[k] for k in present if k >= 0))
    return found


def members(structure: Structure) -> dict[int, tuple[Place, ...]]:
    """For each atom the parameter dimensions that it moves."""
    found: dict[int, list[Place]] = {k: [] for k in structure.atoms}
    for place, atoms in moved_by(structure).items():
        for k in atoms:
            found[k].append(place)
    return {k: tuple(v) for k, v in found.items()}


def named_groups(structure: Structure) -> dict[int, SymmetryGroup]:
    """The group of each atom, frozen ones too, in the order of the parameters that they move."""
    structure = replace(structure, frozen=frozenset())  # names stay when groups are frozen
    places = {k: v for k, v in members(structure).items() if v}
    outer = {k: structure.ancestors(k) - {k} for k in places}
    number = {place: i for i, place in enumerate(structure.places)}
    atoms = sorted(places, key=lambda k: (number[places[k][0]], len(outer[k])))
    rank = {k: i for i, k in enumerate(atoms)}
    above = frozenset().union(*outer.values())
    names = distinct([own_names(places[k], k in above) for k in atoms])
    return {k: _group(structure, k, places, outer[k], rank, names) for k in atoms}


def _group(
    structure: Structure,
    k: int,
    places: Mapping[int, tuple[Place, ...]],
    outer: set[int],
    rank: Mapping[int, int],
    names: list[str],
) -> SymmetryGroup:
    sort = structure.sorts[k]
    within = tuple(names[i] for i in sorted(rank[p] for p in outer & rank.keys()))
    return SymmetryGroup(names[rank[k]], sort.size, sort.order, "permutation", places[k], within)
