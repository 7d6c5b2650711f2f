"""The facts of a graph as a networkx graph: what ties two dimensions, and what holds one in place."""

from __future__ import annotations

from collections import deque
from collections.abc import Collection, Mapping
from typing import Any

import networkx as nx

from graphmerge.axes import Universe

Node = tuple[str, int | str]
"""A (tensor, dimension) pair, or ("fixed", reason)."""


def constraint_graph(u: Universe) -> nx.Graph[Any]:
    """Nodes are (tensor, dimension) and ("fixed", reason); an edge has the ``where`` that states it.

    A node of a reason also has its ``cause``, the reason without its place.
    """
    graph: nx.Graph[Any] = nx.Graph()
    for link in u.links:
        b: Node = link.b if link.b is not None else ("fixed", f"{link.reason} ({link.where})")
        if link.b is None:
            graph.add_node(b, cause=link.reason)
        if not graph.has_edge(link.a, b):
            graph.add_edge(link.a, b, where=link.where)
    return graph


def is_reason(node: Node) -> bool:
    """Whether a node is a reason, not a dimension (of a tensor that may well be called "fixed")."""
    return isinstance(node[1], str)


def toward_reasons(graph: nx.Graph[Any]) -> dict[Node, Node]:
    """For every node that leads to a reason, the next one on a shortest way to it.

    A reason leads to itself. Of two reasons equally near the first by name counts. One breadth-first
    search from all reasons at once: linear in the size of the graph.
    """
    reason: dict[Node, Node] = {n: n for n in graph if is_reason(n)}
    step = dict(reason)
    front = list(reason)
    while front:
        found: dict[Node, Node] = {}
        for n in front:
            for m in graph[n]:
                if m not in reason and (m not in found or reason[n] < reason[found[m]]):
                    found[m] = n
        step |= found
        reason |= {m: reason[n] for m, n in found.items()}
        front = list(found)
    return step


def way_to_reason(step: Mapping[Node, Node], place: Node) -> list[Node]:
    """The nodes from ``place`` to its reason, both included; empty where none is known."""
    way = [place] if place in step else []
    while way and step[way[-1]] != way[-1]:
        way.append(step[way[-1]])
    return way


def ways_between(
    graph: nx.Graph[Any], start: Node, among: Collection[Node] | None = None
) -> dict[Node, Node]:
    """For every node that ties lead to from ``start``, the one before it on a shortest way.

    Reasons tie nothing: no way leads through one. ``among`` are the nodes that a way may use.
    """
    before = {start: start}
    todo = deque([start] if start in graph else [])
    while todo:
        n = todo.popleft()
        for m in graph[n]:
            if m not in before and not is_reason(m) and (among is None or m in among):
                before[m] = n
                todo.append(m)
    return before
