"""Why a dimension moves with what it moves with, or why it does not move: chains of facts."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from graphmerge.symmetry.constraints import Node, is_reason, way_to_reason, ways_between
from graphmerge.symmetry.groups import Place

if TYPE_CHECKING:
    from graphmerge.symmetry.graph import ModelGraph


UNCHAINED = "several operators together"
BRANCHES = "parallel branches, which are alike"
"""How units are tied where no chain of facts between two dimensions tells it."""


def explain_one(graph: ModelGraph, place: Place) -> str:
    """The groups that move a dimension, with every member and the fact that ties it; or its reason."""
    return "\n".join([_heading(graph, place), *_moves(graph, place), *_stays(graph, place)])


def explain_two(graph: ModelGraph, a: Place, b: Place) -> str:
    """Whether two dimensions move together, with the facts in between; or where each of them ends."""
    shared = graph.moved_by[a] & graph.moved_by[b] & set(graph.atom_of.values())
    if shared:
        names = ", ".join(graph.named[k].name for k in graph.named if k in shared)
        tied = f"  moves with {_words(b)}, by group {names}:"
        before = _ways(graph, a, shared)
        chain = _chain(graph, _way(before, b)) if b in before else [f"    {_last_fact(graph, before, b)}"]
        return "\n".join([_heading(graph, a), tied, *chain])
    lines = [_heading(graph, a), f"  is not tied to {_words(b)}: no group moves both"]
    for place in (a, b):
        moving = [f"    {_words(place)} moves with group {name}" for name in _names(graph, place)]
        lines += [*moving, *(f"  {line}" for line in _stays(graph, place, _words(place) + " "))]
    return "\n".join(lines)


def _words(place: Place) -> str:
    return f"{place[0]} dimension {place[1]}" if place[1] >= 0 else f"{place[0]} as a whole"


def _heading(graph: ModelGraph, place: Place) -> str:
    return f"{_words(place)} ({graph.shapes[place[0]][place[1]]} positions)"


def _names(graph: ModelGraph, place: Place) -> list[str]:
    """The groups that move a dimension, in their order."""
    return [g.name for g in graph.groups if graph.atom_of[g.name] in graph.moved_by[place]]


def _moves(graph: ModelGraph, place: Place) -> list[str]:
    lines = []
    for g in graph.groups:
        k = graph.atom_of[g.name]
        if k in graph.moved_by[place]:
            copies = f"{g.copies} x " if g.copies > 1 else ""
            lines.append(f"  moves with group {g.name} ({copies}{g.size} units), together with")
            before = _ways(graph, place, {k})
            for member in [m for m in g.members if m != place]:
                lines.append(f"    {_words(member)}, by {_last_fact(graph, before, member)}")
    return lines


def _stays(graph: ModelGraph, place: Place, subject: str = "") -> list[str]:
    """Why (a part of) a dimension is fixed, with the facts that lead to the reason."""
    fixed = next((f for f in graph.fixed if (f.parameter, f.dim) == place), None)
    if fixed is None:
        alone = graph.shapes[place[0]][place[1]] == 1
        return [f"  {subject}has one position: there is nothing to move"] if alone else []
    way = way_to_reason(graph.toward_reasons, place)
    led = bool(way) and fixed.reason.endswith(str(way[-1][1]))
    return [f"  {subject}is fixed: {fixed.reason}", *(_chain(graph, way) if led else [])]


def _ways(graph: ModelGraph, place: Place, atoms: set[int] | frozenset[int]) -> Mapping[Node, Node]:
    """Shortest ways from ``place`` over dimensions that the atoms move, and those never labelled."""
    inside = {n for n in graph.constraints if n not in graph.moved_by or graph.moved_by[n] & atoms}
    return ways_between(graph.constraints, place, inside)


def _way(before: Mapping[Node, Node], b: Node) -> list[Node]:
    way = [b] if b in before else []
    while way and before[way[-1]] != way[-1]:
        way.append(before[way[-1]])
    return way[::-1]


def _last_fact(graph: ModelGraph, before: Mapping[Node, Node], member: Place) -> str:
    if member not in before:
        return UNCHAINED if graph.structure.stands_in(member[0]) == member[0] else BRANCHES
    where = graph.constraints.edges[before[member], member]["where"]
    source = graph.source(where)
    return f"{where} ({source})" if source else str(where)


def _chain(graph: ModelGraph, way: Sequence[Node]) -> list[str]:
    """Two lines for each fact on the way: what it relates, by which operator, and the line of code."""
    lines = []
    for a, b in zip(way, way[1:], strict=False):
        where = graph.constraints.edges[a, b]["where"]
        end = b[1] if is_reason(b) else f"{b[0]}:{b[1]}, by {where}"
        lines.append(f"    {a[0]}:{a[1]} -> {end}")
        source = graph.source(where)
        lines += [f"      {source}"] if source else []
    return lines
