"""What stays in place, and why."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import networkx as nx
import numpy as np

from graphmerge.symmetry.constraints import Node, way_to_reason
from graphmerge.symmetry.cuts import first_cut
from graphmerge.symmetry.groups import Place, named_groups
from graphmerge.symmetry.propagate import Facts
from graphmerge.symmetry.structure import Structure

UNREAD = "no operator reads its units at these shapes"
KEPT = "its group is kept in place"
APART = "its units go separate ways"
UNLIKE = "no other unit is used like them"


@dataclass(frozen=True)
class FixedAxis:
    """A parameter dimension (or the part of one) that never moves, and the reason.

    ``cause`` is the reason without the place in the model that it comes from.
    """

    parameter: str
    dim: int
    units: int
    reason: str
    cause: str


def fixed_axes(
    structure: Structure,
    facts: Facts,
    alone: frozenset[int],
    constraints: nx.Graph[Any],
    step: Mapping[Node, Node],
) -> Iterator[FixedAxis]:
    """Every parameter dimension, of more than one unit, that does not move (wholly).

    ``alone`` are the sorts that nobody reads, ``step`` leads through ``constraints`` to the nearest reason
    (``toward_reasons``).
    """
    live = _live(structure)
    kept = _kept(structure, alone)
    for place, (name, d) in structure.places.items():
        units = still(structure, live, (name, d)) if place[1] >= 0 else 0
        if units:
            way = way_to_reason(step, place)
            known = (str(way[-1][1]), constraints.nodes[way[-1]]["cause"]) if way else None
            reason, cause = kept.get(place) or known or _apart(structure, facts, place)
            part = "" if structure.labels[name][d] is None else "in part: "
            yield FixedAxis(*place, units, part + reason, cause)


def _kept(structure: Structure, alone: frozenset[int]) -> dict[Place, tuple[str, str]]:
    """Reason and cause for dimensions that a frozen group would move."""
    found: dict[Place, tuple[str, str]] = {}
    for k, group in named_groups(structure).items():
        if k in alone:
            found |= dict.fromkeys(group.members, (UNREAD, UNREAD))
        elif k in structure.frozen:
            found |= dict.fromkeys(group.members, (f"group {group.name} is kept in place", KEPT))
    return found


def _apart(structure: Structure, facts: Facts, place: Place) -> tuple[str, str]:
    """Reason and cause where no operator fixes a dimension: each of its units has a use of its own."""
    cut = first_cut(structure, facts, *place)
    return (f"{APART} ({cut})", APART) if cut else (UNLIKE, UNLIKE)


def still(structure: Structure, live: np.ndarray, place: Place) -> int:
    """How many positions of a dimension no group moves."""
    name, dim = place
    size = structure.shapes[name][dim]
    classes = structure.labels[name][dim]
    if classes is None:
        return size if size > 1 else 0
    moving = live[structure.sort_of[classes]]
    others = tuple(k for k in range(moving.ndim) if k != dim)
    return size - int(moving.any(axis=others).sum())


def _live(structure: Structure) -> np.ndarray:
    """Whether each sort [sort] moves with an atom that is not frozen; the last entry stands for no sort."""
    atoms = set(structure.atoms)
    return np.array([*(bool(structure.ancestors(k) & atoms) for k in range(len(structure.sorts))), False])
