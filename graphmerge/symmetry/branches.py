"""Parallel branches: parts of a graph that are alike and are summed, multiplied or laid side by side.

Experts held as separate modules, heads held as separate modules, a block written as many small ones: the
branches change places as wholes. They are found by colouring: two nodes have one colour if they compute
alike from nodes of like colours and are used alike, where the order of summands, factors and concatenated
parts, and which position of a dimension is picked, do not count. The connected parts of what shares its
colour with something else are the branches.

What corresponds in them is then stated alike (``Stacks.alike``), every unit that belongs to one branch
alone follows the unit that stands for that branch, and so do the positions that each branch picks (the
gate of its expert) or fills in a concatenation, where what reads their order holds the branches in place.
The parameters that correspond are stacked to one tensor [branch, ...].
"""

from __future__ import annotations

import operator
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import networkx as nx
from torch import fx

from graphmerge.trace import Program
from graphmerge.trace.program import content, op_name, shape_of

COMMUTE = frozenset(f"aten.{op}" for op in ("add", "mul", "maximum", "minimum"))
JOIN = frozenset(f"aten.{op}" for op in ("cat", "concat", "stack"))
CUT = frozenset(f"aten.{op}" for op in ("split_with_sizes", "split", "unbind", "chunk"))
_ROUNDS = 2


@dataclass(frozen=True)
class Branches:
    """Branches that may change places.

    ``nodes`` [node][branch] are the names of what corresponds, ``tensors`` the same for the state dict;
    ``picks`` [pick][branch] are the node and the piece of it where different positions of one dimension
    are picked, or filled by laying the branches side by side; ``parts`` names the branch behind each
    operand, or piece, of a node that joins the branches or cuts up what they start from.
    """

    nodes: tuple[tuple[str, ...], ...]
    tensors: tuple[tuple[str, ...], ...]
    picks: tuple[tuple[tuple[str, int], ...], ...]
    parts: Mapping[str, Mapping[int, int]]

    @property
    def count(self) -> int:
        return len(self.nodes[0])


@dataclass(frozen=True)
class Layout:
    """The graph as branches see it: a sum of sums is one node with many ``operands``, ``inner`` names
    the whole sum for every sum inside one."""

    operands: Mapping[fx.Node, tuple[fx.Node, ...]] = field(default_factory=dict)
    inner: Mapping[fx.Node, fx.Node] = field(default_factory=dict)
    sets: tuple[Branches, ...] = ()

    @property
    def joins(self) -> frozenset[str]:
        """The names of nodes that join branches."""
        return frozenset(name for s in self.sets for name in s.parts)


def lay_out(program: Program) -> Layout:
    """The sums of a graph, and its sets of parallel branches."""
    nodes = [n for n in program.graph.graph.nodes if n.op in ("placeholder", "call_function", "get_attr")]
    operands, inner = _sums(nodes)
    colours = _colours(program, [n for n in nodes if n not in inner], operands)
    sets = tuple(_sets(program, colours, operands))
    joined = {name for s in sets for name in s.parts}
    kept = {n: x for n, x in operands.items() if n.name in joined}
    return Layout(kept, {n: root for root in kept for n in _below(root, inner)}, sets)


def _sums(nodes: Sequence[fx.Node]) -> tuple[dict[fx.Node, tuple[fx.Node, ...]], frozenset[fx.Node]]:
    """The summands of every sum that is no summand itself, and the sums inside such sums."""
    sums = {n for n in nodes if _is_sum(n)}
    inner = frozenset(n for n in sums if len(n.users) == 1 and next(iter(n.users)) in sums)
    return {n: tuple(_summands(n, inner)) for n in sums - inner}, inner


def _is_sum(node: fx.Node) -> bool:
    """Whether a node adds two tensors of its own shape, or 0 to one, as Python's ``sum`` does first."""
    if node.op != "call_function" or op_name(node.target) != "aten.add" or node.kwargs or len(node.args) != 2:
        return False
    own = shape_of(node)
    return all(shape_of(a) == own if isinstance(a, fx.Node) else a == 0 for a in node.args)


def _summands(node: fx.Node, inner: frozenset[fx.Node]) -> Iterator[fx.Node]:
    for a in node.args:
        if isinstance(a, fx.Node):
            yield from _summands(a, inner) if a in inner else (a,)


def _below(root: fx.Node, inner: frozenset[fx.Node]) -> Iterator[fx.Node]:
    for a in root.all_input_nodes:
        if a in inner:
            yield a
            yield from _below(a, inner)


def _uses(node: fx.Node, operands: Mapping[fx.Node, tuple[fx.Node, ...]]) -> list[tuple[object, fx.Node]]:
    """The nodes that a node computes from, each with its place where places count."""
    if node in operands:
        return [("any", a) for a in operands[node]]
    name = op_name(node.target) if node.op == "call_function" else node.op
    found: list[tuple[object, fx.Node]] = []
    for k, arg in enumerate((*node.args, *node.kwargs.values())):
        for i, a in enumerate(arg if isinstance(arg, list | tuple) else [arg]):
            if isinstance(a, fx.Node) and not (name in JOIN and shape_of(a) == [(0,)]):
                free = (name in JOIN and k == 0) or (name in COMMUTE and k < 2 and not node.kwargs)
                found.append(("any" if free else (k, i), a))
    return found


def _picked(node: fx.Node) -> tuple[Any, object] | None:
    """What a node picks by number, and what of it counts all the same; None where it picks nothing."""
    if node.target is operator.getitem:
        source = node.args[0]
        cut = isinstance(source, fx.Node) and source.op == "call_function" and op_name(source.target) in CUT
        return (node.args[1], "piece") if cut else None
    name = op_name(node.target)
    if name == "aten.select":
        return node.args[2], node.args[1]
    if name == "aten.slice" and len(node.args) >= 4 and all(isinstance(x, int) for x in node.args[1:]):
        _, dim, start, end, *step = node.args
        return (start, end), (dim, *step)
    if name in ("aten.eq", "aten.ne") and len(node.args) == 2 and not isinstance(node.args[1], fx.Node):
        return node.args[1], "number"
    return None


def _own(program: Program, node: fx.Node) -> object:
    """What a node is by itself, without what it computes from and which position it picks."""
    shapes = tuple(shape_of(node))
    if node.op == "placeholder":
        t, constant = program.tensors.get(node.name), program.constants.get(node.name)
        if t:
            return ("parameter", t.is_buffer, t.dtype, shapes)
        return node.name if constant is None else ("constant", content(constant), shapes)
    if node.op == "get_attr":
        return node.name
    picked = _picked(node)
    rest = picked[1] if picked else fx.map_arg((node.args, node.kwargs), lambda _: None)
    return (str(node.target), str(rest), shapes)


def _colours(
    program: Program, nodes: Sequence[fx.Node], operands: Mapping[fx.Node, tuple[fx.Node, ...]]
) -> dict[fx.Node, int]:
    """A number for every node; nodes that might correspond share one."""
    uses = {n: _uses(n, operands) for n in nodes}
    users: dict[fx.Node, list[tuple[object, fx.Node]]] = defaultdict(list)
    for n, used in uses.items():
        for place, a in used:
            users[a].append((place, n))
    returned = {a: k for k, a in enumerate(_outputs(program))}
    colour: dict[fx.Node, int] = {n: hash(_own(program, n)) for n in nodes}
    for _ in range(_ROUNDS):
        for n in nodes:  # arguments stand before what uses them
            colour[n] = hash((colour[n], *sorted(hash((str(p), colour[a])) for p, a in uses[n])))
        for n in reversed(nodes):
            after = sorted(hash((str(p), colour[m])) for p, m in users[n])
            colour[n] = hash((colour[n], returned.get(n), *after))
    return colour


def _outputs(program: Program) -> list[fx.Node]:
    (node,) = [n for n in program.graph.graph.nodes if n.op == "output"]
    return list(node.all_input_nodes)


def _sets(
    program: Program, colours: Mapping[fx.Node, int], operands: Mapping[fx.Node, tuple[fx.Node, ...]]
) -> Iterator[Branches]:
    count = Counter(colours.values())
    shared = [n for n, c in colours.items() if count[c] > 1]
    if not shared:
        return
    order = {n: k for k, n in enumerate(colours)}
    graph: nx.Graph[fx.Node] = nx.Graph()
    graph.add_nodes_from(shared)
    graph.add_edges_from((n, a) for n in shared for _, a in _uses(n, operands) if a in graph)
    alike: dict[tuple[int, ...], list[dict[int, fx.Node]]] = defaultdict(list)
    for part in nx.connected_components(graph):
        by_colour = {colours[n]: n for n in part}
        if len(by_colour) == len(part) and any(n.name in program.tensors for n in part):
            alike[tuple(sorted(by_colour))].append(by_colour)
    for branches in alike.values():
        if len(branches) > 1:
            branches.sort(key=lambda b: min(order[n] for n in b.values()))
            yield _set(program, branches, operands)


def _set(
    program: Program,
    branches: Sequence[Mapping[int, fx.Node]],
    operands: Mapping[fx.Node, tuple[fx.Node, ...]],
) -> Branches:
    rows = sorted(
        (tuple(b[c] for b in branches) for c in branches[0]), key=lambda row: (row[0].op, row[0].name)
    )
    number = {n: i for i, b in enumerate(branches) for n in b.values()}
    parts: dict[str, dict[int, int]] = defaultdict(dict)
    laid: dict[fx.Node, list[tuple[str, int]]] = defaultdict(list)
    for n, i in number.items():
        for root in {_root(user, operands) for user in n.users if user not in number}:
            places = [k for k, (_, a) in enumerate(_uses(root, operands)) if a is n]
            parts[root.name] |= dict.fromkeys(places, i)
            if root.op == "call_function" and op_name(root.target) in JOIN:
                laid[n] += [(root.name, k) for k in places]
        if n.target is operator.getitem and _picked(n):
            source, piece = n.args
            parts[source.name][piece] = i  # type: ignore[union-attr,index]
    nodes = tuple(tuple(n.name for n in row) for row in rows)
    tensors = tuple(tuple(program.tensors[n].name for n in row) for row in nodes if row[0] in program.tensors)
    picked = [tuple(map(_place, row)) for row in rows if row[0].op == "call_function" and _differ(row)]
    joined = [x for row in rows for x in zip(*(sorted(laid[n]) for n in row), strict=True)]
    return Branches(nodes, tensors, (*picked, *joined), parts)


def _place(node: fx.Node) -> tuple[str, int]:
    """The node that states what is picked, and the piece of what it cuts."""
    if node.target is operator.getitem:
        source, piece = node.args
        return source.name, piece  # type: ignore[union-attr,return-value]
    return node.name, -1


def _root(node: fx.Node, operands: Mapping[fx.Node, tuple[fx.Node, ...]]) -> fx.Node:
    """The whole sum that a sum is part of."""
    while node not in operands and _is_sum(node):
        node = next(iter(node.users))
    return node


def _differ(row: Sequence[fx.Node]) -> bool:
    picked = [_picked(n) for n in row]
    return any(p != picked[0] for p in picked)
