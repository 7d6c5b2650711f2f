"""Symmetries that the search finds and the engine has not."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

import numpy as np
import torch
from exchanges import Exchange, factorings, swap
from network import TOLERANCE, Network, drawn, drawn_inputs, outputs
from oracle import Search

from graphmerge.axes.units import IntArray
from graphmerge.symmetry.structure import Structure


def combined(found: Sequence[Exchange], shapes: Mapping[str, Sequence[int]]) -> dict[str, IntArray]:
    """For each parameter that changes, the element (by number) that each of its elements comes from."""
    result: dict[str, torch.Tensor] = {}
    for e in found:
        shape = tuple(shapes[e.name])
        before = result.get(e.name, torch.arange(int(np.prod(shape))).reshape(shape))
        result[e.name] = e.of(before)
    return {n: s.numpy() for n, s in result.items() if not torch.equal(s.ravel(), torch.arange(s.numel()))}


def contains(structure: Structure, sources: Mapping[str, IntArray], ignore: set[str]) -> bool:
    """Whether rearranging every parameter by ``sources`` is one of the structure's symmetries."""
    phi = np.full(len(structure.sort_of), -1, dtype=np.int64)
    for name, dims in structure.labels.items():
        if name in ignore:
            continue
        shape = structure.shapes[name]
        source = sources.get(name, np.arange(int(np.prod(shape)))).ravel()
        for d, classes in enumerate(dims):
            if classes is None:
                places = np.unravel_index(np.arange(source.size), shape)[d]
                if (places[source] != places).any():
                    return False
            else:
                units = np.broadcast_to(classes, shape).ravel()
                if not _consistent(phi, units[source], units):
                    return False
    return _respects(structure, phi)


def _consistent(phi: IntArray, a: IntArray, b: IntArray) -> bool:
    """Enter phi[a] = b; False where a unit would go to two places."""
    known = phi[a] >= 0
    if (phi[a[known]] != b[known]).any():
        return False
    phi[a] = b
    return bool((phi[a] == b).all())


def _respects(structure: Structure, phi: IntArray) -> bool:
    """Whether units stay in their sort, and go where their images go."""
    atoms = set(structure.atoms)
    for k in reversed(range(len(structure.sorts))):
        sort = structure.sorts[k]
        known = phi[sort.units] >= 0
        units, to = sort.units[known], phi[sort.units[known]]
        if (structure.sort_of[to] != k).any():
            return False
        column = np.full(len(structure.sort_of), -1, dtype=np.int64)
        column[sort.units] = np.arange(len(sort.units))
        for images in sort.images:
            if not _consistent(phi, images[column[units]], images[column[to]]):
                return False
        if k in structure.frozen and (units != to).any():
            return False
        if not (structure.ancestors(k) & atoms) and (units != to).any():
            return False
    return True


def starts(net: Network, breadth: int) -> Iterator[tuple[Exchange, int, int]]:
    """Exchanges to start from: neighbours, blocks, and the same pair in every block, of each dimension.

    Pairs that the engine lets change places are left out, as are parameters that nothing depends on.
    """
    for name in net.parameters:
        for dim, size in enumerate(net.state[name].shape if name not in net.dead else ()):
            kinds = sorted(factorings(size), key=lambda x: (x[0] > 1, -x[1]))
            for repeats, units in kinds[: 2 + breadth]:
                pairs = [(a, a + 1) for a in range(units - 1)]
                for a, b in pairs[:: max(1, len(pairs) // breadth)][:breadth]:
                    order = tuple(swap(size, repeats, units, a, b).tolist())
                    if not _exchangeable(net.graph.structure, name, dim, order):
                        yield Exchange(name, dim, order), a, b


def _exchangeable(structure: Structure, name: str, dim: int, order: Sequence[int]) -> bool:
    """Whether the engine permits the exchange in this dimension, whatever else moves with it."""
    classes = structure.labels[name][dim]
    if classes is None:
        return False
    phi = np.full(len(structure.sort_of), -1, dtype=np.int64)
    moved = np.take(classes, np.array(order), dim)
    return _consistent(phi, moved.ravel(), classes.ravel()) and _respects(structure, phi)


def missed(net: Network, breadth: int = 3, enough: int = 5) -> list[str]:
    """Symmetries that the search finds and that are none of the engine's; it stops when it has ``enough``."""
    complaints: list[str] = []
    tried: set[Exchange] = set()
    for start, a, b in starts(net, breadth):
        if start in tried or len(complaints) >= enough:
            continue
        tried.add(start)
        beside = Search(net, a, b)._moves(start.name, len(net.nodes))
        for move in [m for m in beside if m[0] == start]:
            found = Search(net, a, b).complete(move)
            if found is None:
                continue
            sources = combined(found, {n: t.shape for n, t in net.state.items()})
            if contains(net.graph.structure, sources, net.dead) or not confirmed(net, sources):
                continue
            complaints.append(" with ".join(map(str, found)))
            break
    return complaints


def confirmed(net: Network, sources: Mapping[str, IntArray]) -> bool:
    """Whether the module itself, with other weights and inputs, does not notice the exchange."""
    for seed in range(1, 4):
        state = drawn(net.model, net.graph, seed)
        args = tuple(drawn_inputs(x, seed) for x in net.args)
        moved = {n: state[n].take(torch.from_numpy(s)) for n, s in sources.items()}
        before, after = (outputs(net.model, net.tied(m, state), args) for m in ({}, moved))
        if not torch.allclose(before, after, rtol=0, atol=TOLERANCE):
            return False
    return bool(sources)
