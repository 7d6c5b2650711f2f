"""Layered drawing of a directed acyclic graph (Sugiyama, Tagawa and Toda 1981).

Every node gets a layer (longest way from a source; sources stand right above their first reader), an
edge over several layers gets a *bend* in each layer between. Layers are ordered by the barycentres of
their neighbours, and coordinates are least squares under the minimal distances: one isotonic
regression per layer (pool adjacent violators).
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

Edge = tuple[str, str]
Bend = tuple[str, str, int]
Spot = str | Bend

GAP = 26.0
"""Least distance between neighbours of one layer, in pixels."""

BEND = 0.2
"""How strongly a bend pulls its neighbours."""

SWEEPS = 16


@dataclass(frozen=True)
class Layout:
    """``layer`` and ``x`` (centre) of every node, and ``bends``: x by layer for every long edge."""

    layer: Mapping[str, int]
    x: Mapping[str, float]
    bends: Mapping[Edge, Mapping[int, float]]


def layered(widths: Mapping[str, float], edges: Sequence[Edge], weights: Mapping[str, float]) -> Layout:
    """Place nodes of the given widths, which stand in topological order.

    ``weights`` tell how strongly a node pulls its neighbours under or over it.
    """
    layer = _layers(list(widths), edges)
    rows: defaultdict[int, list[Spot]] = defaultdict(list)
    for n in widths:
        rows[layer[n]].append(n)
    near: defaultdict[Spot, list[Spot]] = defaultdict(list)
    for a, b in edges:
        chain: list[Spot] = [a, *((a, b, k) for k in range(layer[a] + 1, layer[b])), b]
        for k, spot in enumerate(chain[1:-1]):
            rows[layer[a] + 1 + k].append(spot)
        for upper, lower in zip(chain, chain[1:], strict=False):
            near[upper].append(lower)
            near[lower].append(upper)
    depth = {s: k for k, row in rows.items() for s in row}
    x = _coordinates(rows, near, depth, widths, weights)
    bends: defaultdict[Edge, dict[int, float]] = defaultdict(dict)
    for s in depth:
        if isinstance(s, tuple):
            bends[s[0], s[1]][s[2]] = x[s]
    return Layout(layer, {s: v for s, v in x.items() if isinstance(s, str)}, bends)


def _layers(nodes: Sequence[str], edges: Sequence[Edge]) -> dict[str, int]:
    above: defaultdict[str, list[str]] = defaultdict(list)
    below: defaultdict[str, list[str]] = defaultdict(list)
    for a, b in edges:
        above[b].append(a)
        below[a].append(b)
    layer: dict[str, int] = {}
    for n in nodes:
        layer[n] = 1 + max((layer[m] for m in above[n]), default=0)
    for n in nodes:
        if not above[n] and below[n]:
            layer[n] = min(layer[m] for m in below[n]) - 1
    return layer


def _coordinates(
    rows: Mapping[int, list[Spot]],
    near: Mapping[Spot, Sequence[Spot]],
    depth: Mapping[Spot, int],
    widths: Mapping[str, float],
    weights: Mapping[str, float],
) -> dict[Spot, float]:
    size: dict[Spot, float] = {s: widths[s] if isinstance(s, str) else 0.0 for s in depth}
    pull: dict[Spot, float] = {s: weights[s] if isinstance(s, str) else BEND for s in depth}
    x: dict[Spot, float] = {}
    for row in rows.values():
        _place(row, dict.fromkeys(row, 0.0), size, pull, x)
    levels = sorted(rows)
    for sweep in range(SWEEPS):
        down = sweep % 2 == 0
        for k in levels if down else reversed(levels):
            wanted = {}
            for s in rows[k]:
                side = [m for m in near.get(s, ()) if (depth[m] < k) == down] or near.get(s, ())
                total = sum(pull[m] for m in side)
                wanted[s] = sum(pull[m] * x[m] for m in side) / total if total else x[s]
            if sweep < SWEEPS - 2:
                rows[k].sort(key=wanted.__getitem__)
            _place(rows[k], wanted, size, pull, x)
    return x


def _place(
    row: Sequence[Spot],
    wanted: Mapping[Spot, float],
    size: Mapping[Spot, float],
    pull: Mapping[Spot, float],
    x: dict[Spot, float],
) -> None:
    """Put a row as near to the wanted places as its order and distances allow; changes ``x``."""
    offsets, total = [], 0.0
    for k, s in enumerate(row):
        total += (size[row[k - 1]] + size[s]) / 2 + GAP if k else 0.0
        offsets.append(total)
    pools: list[tuple[float, float, int]] = []  # mean, weight, members
    for s, offset in zip(row, offsets, strict=True):
        mean, weight, members = wanted[s] - offset, pull[s], 1
        while pools and pools[-1][0] >= mean:
            m, w, n = pools.pop()
            mean, weight, members = (m * w + mean * weight) / (w + weight), w + weight, n + members
        pools.append((mean, weight, members))
    places = [mean for mean, _, members in pools for _ in range(members)]
    x.update({s: p + o for s, p, o in zip(row, places, offsets, strict=True)})
