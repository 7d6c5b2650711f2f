"""Symmetries relaxed: each permutation becomes a doubly stochastic matrix, through which gradients flow.

A relaxed symmetry gives every atom one matrix per fibre, ``soft[atom]`` [fibre, i, j]: how much of unit
j of the fibre, as b has it, comes to place i. A unit inside another (a dimension of a head) comes to a
place as much as what contains it comes to what contains the place, times the entry of its own
matrix: the matrix of all dimensions of all heads is the outer matrix, block by block, times the inner
one of the head that they come from. It is doubly stochastic where each factor is, and the permutation
itself where each factor is one, for any depth of nesting.

A tensor is moved along each of its dimensions by such products. Where the order along one dimension
varies along another (stacked heads or experts), both are moved together, and a factor that both have
counts once. The product is never formed where positions are a grid of places, one axis for each factor,
as they are in every network so far: the factors are applied one by one, the innermost first.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch

from graphmerge.axes.units import IntArray
from graphmerge.match.assign import assign
from graphmerge.precision import wide
from graphmerge.symmetry import Transform
from graphmerge.symmetry.structure import Structure

Soft = Mapping[int, torch.Tensor]
"""For each atom its matrices [fibre, place, unit]."""

Factor = tuple[int, IntArray]
"""A sort, and its unit (a place in the sort) at each position of a block."""


@dataclass(frozen=True)
class Block:
    """Positions that change places among themselves: ``rows`` [copy, position], each copy moved alike.

    ``grid`` [factor] are the sizes of the grid that the positions are, in order; empty if they are none.
    """

    rows: IntArray
    factors: tuple[Factor, ...]
    grid: tuple[int, ...] = ()


@dataclass(frozen=True)
class Part:
    """Dimensions of a tensor that are moved together, and the blocks of their joint positions."""

    axes: tuple[int, ...]
    blocks: tuple[Block, ...]


def parts(structure: Structure, name: str) -> tuple[Part, ...]:
    """How a symmetry moves one tensor, worked out once."""
    found = (Part(axes, _blocks(structure, name, axes)) for axes in _coupled(structure, name))
    return tuple(p for p in found if p.blocks)


def _coupled(structure: Structure, name: str) -> list[tuple[int, ...]]:
    """The dimensions that carry units, those whose order varies along each other taken together."""
    dims = structure.labels[name]
    sets = [{d, *(e for e, n in enumerate(x.shape) if n > 1)} for d, x in enumerate(dims) if x is not None]
    merged: list[set[int]] = []
    for s in sets:
        apart = [m for m in merged if not m & s]
        merged = [*apart, s.union(*(m for m in merged if m & s))]
    return [tuple(sorted(m)) for m in merged]


def _blocks(structure: Structure, name: str, axes: tuple[int, ...]) -> tuple[Block, ...]:
    """Joint positions along ``axes``, by the sorts, seats and copies of their units."""
    shape = tuple(structure.shapes[name][d] for d in axes)
    keys, units = [], []
    for k, d in enumerate(axes):
        classes = structure.labels[name][d]
        place = np.broadcast_to(
            np.arange(shape[k]).reshape([-1 if j == k else 1 for j in range(len(axes))]), shape
        )
        if classes is None:
            keys += [np.full(shape, -1), place]
            units.append(place)
            continue
        seats = structure.seats[name][d]
        assert seats is not None
        joint, seat = (
            np.broadcast_to(x.reshape([x.shape[e] for e in axes]), shape) for x in (classes, seats)
        )
        sorts = structure.sort_of[joint]
        copy = _copy_number(joint * (seat.max() + 1) + seat, k) * (seat.max() + 1) + seat
        keys += [sorts, np.where(sorts >= 0, copy, place)]
        units.append(joint)
    table, number = np.unique(np.stack([x.ravel() for x in keys]), axis=1, return_inverse=True)
    order = np.argsort(number.ravel(), kind="stable")
    ends = np.cumsum(np.bincount(number.ravel()))[:-1]
    found: dict[bytes, tuple[list[IntArray], tuple[Factor, ...]]] = {}
    for column, rows in zip(table.T, np.split(order, ends), strict=True):
        own = [(int(k), u.ravel()[rows]) for k, u in zip(column[::2], units, strict=True) if k >= 0]
        factors = _distinct(
            f for k, classes in own for f in _factors(structure, k, _place_of(structure, k)[classes])
        )
        if factors:
            key = b"".join(k.to_bytes(8) + u.tobytes() for k, u in factors)
            found.setdefault(key, ([], factors))[0].append(rows)
    return tuple(_as_grid(structure, Block(np.stack(rows), factors)) for rows, factors in found.values())


def _as_grid(structure: Structure, block: Block) -> Block:
    """The same block with its positions in the order of a grid, what contains others in front."""
    factors = sorted(block.factors, key=lambda f: f[0])  # sorts stand after those that contain them
    sizes = tuple(structure.sorts[k].size for k, _ in factors)
    place = np.ravel_multi_index([u % n for (_, u), n in zip(factors, sizes, strict=True)], sizes)
    order = np.argsort(place)
    if not np.array_equal(place[order], np.arange(int(np.prod(sizes)))):
        return block
    ordered = tuple((k, units[order]) for k, units in factors)
    for axis, (_, units) in enumerate(ordered):
        fibre = (units // sizes[axis]).reshape(int(np.prod(sizes[:axis])), -1)
        if (fibre != fibre[:, :1]).any():
            return block
    return Block(block.rows[:, order], ordered, sizes)


def _copy_number(classes: IntArray, axis: int) -> IntArray:
    """For each position how many of the same class stand before it along ``axis``."""
    order = np.argsort(classes, axis=axis, kind="stable")
    ranked = np.take_along_axis(classes, order, axis)
    place = np.broadcast_to(
        np.arange(classes.shape[axis]).reshape([-1 if d == axis else 1 for d in range(classes.ndim)]),
        classes.shape,
    )
    first = np.diff(ranked, axis=axis, prepend=-1) != 0
    since = place - np.maximum.accumulate(np.where(first, place, 0), axis=axis)
    found = np.empty_like(since)
    np.put_along_axis(found, order, since, axis)
    return found


def _place_of(structure: Structure, k: int) -> IntArray:
    """For each class its place in sort ``k``; classes of other sorts hold anything."""
    place = np.zeros(len(structure.sort_of), dtype=np.int64)
    place[structure.sorts[k].units] = np.arange(len(structure.sorts[k].units))
    return place


def _factors(structure: Structure, k: int, units: IntArray) -> Iterator[Factor]:
    """The unit itself, and all that contains it."""
    sort = structure.sorts[k]
    if sort.size > 1:
        yield k, units
    for parent, images in zip(sort.parents, sort.images, strict=True):
        yield from _factors(structure, parent, _place_of(structure, parent)[images[units]])


def _distinct(factors: Iterator[Factor]) -> tuple[Factor, ...]:
    return tuple({(k, units.tobytes()): (k, units) for k, units in factors}.values())


def _moved(structure: Structure, block: Block, x: torch.Tensor, soft: Soft) -> torch.Tensor:
    """The positions of a block [copy, position, rest], moved."""
    if not block.grid:
        return torch.einsum("ij,cjr->cir", _kernel(structure, block, soft).to(x), x)
    shape = x.shape
    for axis, size in reversed(list(enumerate(block.grid))):
        k, units = block.factors[axis]
        if k not in soft:  # kept in place
            continue
        outer = int(np.prod(block.grid[:axis]))
        fibres = torch.from_numpy(units.reshape(outer, -1)[:, 0] // size).to(x.device)
        matrices = soft[k] if len(soft[k]) == 1 else soft[k][fibres]
        x = x.reshape(shape[0], outer, size, -1)
        if len(matrices) == 1:
            x = torch.einsum("ij,cbjr->cbir", matrices[0].to(x), x)
        else:
            x = torch.einsum("bij,cbjr->cbir", matrices.to(x), x)
    return x.reshape(shape)


def _kernel(structure: Structure, block: Block, soft: Soft) -> torch.Tensor:
    """How much of each position comes to each place of a block: [place, position]."""
    total: torch.Tensor | None = None
    for k, units in block.factors:
        size = structure.sorts[k].size
        matrix = soft.get(k)
        fibre, place = np.divmod(units, size)
        if matrix is not None and len(matrix) == 1 and np.array_equal(place, np.arange(size)):
            factor = matrix[0]
        else:
            where = torch.from_numpy(np.stack([fibre, place]))
            if matrix is None:  # kept in place: only itself comes to a place
                factor = (where[1][:, None] == where[1]).float()
            else:
                fibre_t, place_t = where.to(matrix.device)
                factor = matrix[fibre_t[None, :], place_t[:, None], place_t[None, :]]
        total = factor if total is None else total * factor.to(total)
    assert total is not None, "a block has factors"
    return total


def move(structure: Structure, cut: Sequence[Part], t: torch.Tensor, soft: Soft) -> torch.Tensor:
    """A tensor moved by a relaxed symmetry, along the parts of it (see ``parts``)."""
    value = wide(t)
    for part in cut:
        rest = [d for d in range(t.ndim) if d not in part.axes]
        order = [*part.axes, *rest]
        table = value.permute(order).reshape(int(np.prod([t.shape[d] for d in part.axes])), -1)
        moved = table
        for block in part.blocks:
            rows = torch.from_numpy(block.rows).to(t.device)
            new = _moved(structure, block, table[rows], soft)
            if rows.numel() == len(table) and bool(
                (rows.reshape(-1) == torch.arange(len(table), device=t.device)).all()
            ):
                moved = new.reshape(table.shape)
            else:
                moved = moved.index_copy(0, rows.reshape(-1), new.reshape(-1, table.shape[1]))
        value = moved.reshape([t.shape[d] for d in order]).permute([order.index(d) for d in range(t.ndim)])
    return value.to(t.dtype)


def exact(transform: Transform, device: torch.device) -> dict[int, torch.Tensor]:
    """A symmetry as matrices of zeros and ones (float32)."""
    structure = transform.structure
    found = {}
    for k in structure.atoms:
        sort = structure.sorts[k]
        places = structure.targets(k, transform.phi).reshape(sort.order, sort.size) % sort.size
        matrix = torch.zeros(sort.order, sort.size, sort.size)
        matrix.scatter_(1, torch.from_numpy(places)[:, None, :], 1.0)
        found[k] = matrix.to(device)
    return found


def hardened(identity: Transform, soft: Soft) -> Transform:
    """The symmetry whose matrices have the largest sum of entries with the relaxed ones."""
    inner = {k: assign(m.detach()).argsort(-1).cpu().numpy() for k, m in soft.items()}
    return Transform(identity.structure, identity.names, identity.groups, identity.structure.extend(inner))
