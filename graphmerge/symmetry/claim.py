"""A symmetry that a person claims and the graph does not show: checked by running the model."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from torch import nn

from graphmerge.errors import GateError, UsageError, refusal
from graphmerge.progress import Progress, silent
from graphmerge.symmetry.graph import ModelGraph
from graphmerge.symmetry.groups import Place
from graphmerge.symmetry.solve import Sort
from graphmerge.symmetry.structure import Structure
from graphmerge.symmetry.verify import verify


def claim(
    graph: ModelGraph,
    model: nn.Module,
    members: Sequence[Place],
    seed: int = 0,
    *,
    progress: Progress = silent,
) -> ModelGraph:
    """The graph with one more group: ``members`` (parameter, dimension), which the graph keeps in place.

    Says that their positions may be reordered, all in the same way, without changing the network: for
    operators that graphmerge fixes since it does not know them. The claim has to pass the gate like
    every symmetry that was derived.

    Raises UsageError for dimensions that are unknown, of unequal sizes, or moved by a group already;
    GateError where the model does not bear the claim out.
    """
    places = [graph.place(*m) for m in members]
    _require_free(graph, places)
    inside = [graph.structure.places[p] for p in places]
    larger = replace(graph, structure=_with_sort(graph.structure, inside))
    (name,) = [g.name for g in larger.groups if g.name not in {old.name for old in graph.groups}]
    result = verify(larger, model, seed, progress=progress)
    (check,) = [g for g in result.groups if g.name == name]
    if not check.passed or not check.observable:
        still = "nothing changes, whatever is moved"
        seen = still if check.passed else f"they change by {check.error:.1e}"
        raise GateError(
            refusal(
                f"The claim that {_words(places)} move together does not hold.",
                expected=f"outputs that change by at most {result.tolerance:.0e} when all move alike, and by"
                " more when one of them moves alone",
                seen=seen,
                means="by this group models would be aligned wrongly",
                fix="name every parameter dimension that has to move with these, or leave the group out",
            )
        )
    return larger


def _require_free(graph: ModelGraph, places: Sequence[Place]) -> None:
    sizes = {graph.shapes[n][d] for n, d in places}
    if len(sizes) != 1 or min(sizes) < 2:
        raise UsageError(f"a claim needs dimensions of one size, of 2 or more; {_words(places)}: {sizes}")
    for place in places:
        moving = [g.name for g in graph.groups if place in g.members]
        name, dim = graph.structure.places[place]
        if moving or graph.structure.labels[name][dim] is not None:
            by = f" by group {moving[0]}" if moving else ", in part"
            raise UsageError(f"{place[0]} dimension {place[1]} is moved{by} already")


def _words(places: Sequence[Place]) -> str:
    return ", ".join(f"{n}:{d}" for n, d in places)


def _with_sort(structure: Structure, places: Sequence[Place]) -> Structure:
    """One more sort, whose units lie along ``places``."""
    name, dim = places[0]
    size, known = structure.shapes[name][dim], len(structure.sort_of)
    units = np.arange(known, known + size, dtype=np.int64)
    labels = {n: list(dims) for n, dims in structure.labels.items()}
    seats = {n: list(dims) for n, dims in structure.seats.items()}
    for n, d in places:
        labels[n][d] = units.reshape([-1 if k == d else 1 for k in range(len(structure.shapes[n]))])
        seats[n][d] = np.zeros_like(labels[n][d])
    sort = Sort(units, (), np.zeros((0, size), np.int64), size)
    return replace(
        structure,
        sorts=(*structure.sorts, sort),
        sort_of=np.concatenate([structure.sort_of, np.full(size, len(structure.sorts))]),
        labels={n: tuple(dims) for n, dims in labels.items()},
        seats={n: tuple(dims) for n, dims in seats.items()},
    )
