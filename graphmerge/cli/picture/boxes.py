"""What is drawn: a box per operator and per module's parameters, a chip per dimension, a wire per tie."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass, field

from graphmerge.symmetry import ModelGraph
from graphmerge.symmetry.groups import Place
from graphmerge.symmetry.modules import module_of

HEAVY, LIGHT = 4.0, 0.05
"""How strongly operators and parameters pull their neighbours: the flow of data stays upright."""


@dataclass
class Box:
    """``rows`` are the tensors in it, with how each is labelled; ``title`` above them, ``place`` beside."""

    key: str
    title: str
    place: str
    weight: float
    rows: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Wire:
    """Dimensions ``a`` and ``b`` are tied at operator box ``at``; ``atoms`` move both."""

    a: Place
    b: Place
    at: str
    atoms: frozenset[int]
    title: str


@dataclass(frozen=True)
class Picture:
    """``boxes`` in topological order; ``owner`` is the box of each tensor; ``edges`` say who reads whom."""

    boxes: Mapping[str, Box]
    owner: Mapping[str, str]
    shapes: Mapping[str, tuple[int, ...]]
    edges: tuple[tuple[str, str], ...]
    wires: tuple[Wire, ...]


def picture(graph: ModelGraph) -> Picture:
    """Parameters, and the operators that a group passes through or that read a parameter."""
    shapes = {v.name: v.shape for v in reversed([*graph.facts.values.values()])} | graph.shapes
    reads = _reads(graph, shapes)
    drawn = _drawn(graph, reads)
    reads = {n: [t for t in sources if t in drawn] for n, sources in reads.items() if n in drawn}
    same = _merged(reads, shapes, graph)
    boxes, owner = _boxes(graph, reads, same)
    edges = {(owner[t], owner[n]): None for n, sources in reads.items() for t in sources}
    between = tuple((a, b) for a, b in edges if a != b)
    return Picture(boxes, owner, shapes, between, _wires(graph, owner, shapes, same))


def _reads(graph: ModelGraph, shapes: Mapping[str, tuple[int, ...]]) -> dict[str, list[str]]:
    """For each operator that returns a drawn tensor, the tensors that its facts relate, in order."""
    found: dict[str, dict[str, None]] = defaultdict(dict)
    for link in graph.facts.universe.links:
        for place in (link.a, link.b):
            if place is not None and place[0] in shapes and link.where.node in shapes:
                found[link.where.node][place[0]] = None
    return {n: [t for t in tensors if t != n] for n, tensors in found.items()}


def _drawn(graph: ModelGraph, reads: Mapping[str, list[str]]) -> set[str]:
    labels = graph.shapes
    moving = {name for (name, _), atoms in graph.moved_by.items() if atoms & graph.named.keys()}
    operators = {n for n, sources in reads.items() if n in moving or any(t in labels for t in sources)}
    return operators | {t for n in operators for t in reads[n] if t in labels or t in operators}


def _merged(
    reads: Mapping[str, list[str]], shapes: Mapping[str, tuple[int, ...]], graph: ModelGraph
) -> dict[str, str]:
    """Operators of one operand that change no shape and alone read it share the box of the operand."""
    readers: defaultdict[str, int] = defaultdict(int)
    for sources in reads.values():
        for t in sources:
            readers[t] += 1
    same: dict[str, str] = {}
    for n, sources in reads.items():
        alone = len(sources) == 1 and readers[sources[0]] == 1 and sources[0] not in graph.shapes
        if alone and shapes[n] == shapes[sources[0]]:
            same[n] = same.get(sources[0], sources[0])
    return same


def _boxes(
    graph: ModelGraph, reads: Mapping[str, list[str]], same: Mapping[str, str]
) -> tuple[dict[str, Box], dict[str, str]]:
    where = {x.where.node: x.where for x in graph.facts.universe.links}
    boxes: dict[str, Box] = {}
    owner: dict[str, str] = {}
    for n, sources in reads.items():
        for t in sources:
            if t in graph.shapes and t not in owner:
                owner[t] = f"{module_of(t)} for {n}"
                box = boxes.setdefault(owner[t], Box(owner[t], module_of(t) or t, "", LIGHT))
                box.rows[t] = t.rpartition(".")[2]
        short = _short(where[n].op)
        if n in same:
            owner[n] = same[n]
            boxes[same[n]].title += f" + {short}"
        else:
            owner[n] = n
            boxes[n] = Box(n, short, where[n].module, HEAVY, {n: ""})
    return boxes, owner


def _short(op: str) -> str:
    """``batch_norm`` for ``aten._native_batch_norm_legit_no_training``."""
    name = op.rpartition(".")[2].strip("_")
    return re.sub(r"^native_|_legit(_no_training)?$", "", name)


def _wires(
    graph: ModelGraph,
    owner: Mapping[str, str],
    shapes: Mapping[str, tuple[int, ...]],
    same: Mapping[str, str],
) -> tuple[Wire, ...]:
    """The facts between drawn dimensions, each once; those inside of a merged box are not told."""
    found: dict[tuple[Place, Place, str], Wire] = {}
    for link in graph.facts.universe.links:
        at = link.where.node
        if link.b is None or not {link.a[0], link.b[0], at} <= owner.keys() or at in same:
            continue
        a, b = ((same.get(t, t), d) for t, d in (link.a, link.b))
        if shapes[a[0]][a[1]] > 1 and a != b:
            atoms = graph.moved_by.get(a, frozenset()) & graph.moved_by.get(b, frozenset())
            source = graph.source(link.where)
            title = f"{a[0]}:{a[1]} and {b[0]}:{b[1]} by {link.where}" + (f"\n{source}" if source else "")
            found.setdefault((a, b, at), Wire(a, b, at, atoms, title))
    return tuple(found.values())
