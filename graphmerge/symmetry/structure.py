"""The symmetries of a set of labelled parameters, and how a symmetry moves them.

A symmetry is given by where each unit of each atom goes; sorts that their images determine follow.
Every parameter dimension knows the class of the unit at each of its positions, so a symmetry
becomes an index per dimension: the k-th position of a class goes to the k-th position of its image.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property

import numpy as np
import torch

from graphmerge.axes.units import IntArray, Value, Whole
from graphmerge.symmetry.branches import Branches
from graphmerge.symmetry.solve import Sort
from graphmerge.symmetry.stacks import stack_name, stacked


@dataclass(frozen=True)
class Structure:
    """``labels[name][dim]``: class of the unit at each position (None: the dimension never moves).

    ``atoms`` are the sorts that move freely, ``frozen`` those found irregular and kept in place.
    ``classes`` [unit] is the class of every unit that the facts speak of, ``unit_seats`` [unit] its seat in
    it, ``seats`` those of the units in ``labels``: a class moves seat by seat. ``stacks`` names tensors of
    the state dict that stand under one name here, [branch, ...]; ``branches`` are the sets of parallel
    branches with the units that stand for them.
    """

    sorts: tuple[Sort, ...]
    sort_of: IntArray
    labels: Mapping[str, tuple[IntArray | None, ...]]
    shapes: Mapping[str, tuple[int, ...]]
    frozen: frozenset[int]
    classes: IntArray
    seats: Mapping[str, tuple[IntArray | None, ...]]
    unit_seats: IntArray
    stacks: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    branches: tuple[tuple[Branches, IntArray], ...] = ()

    @cached_property
    def tensors(self) -> frozenset[str]:
        """The names of all tensors of the state dict that stand here, those inside stacks included."""
        return frozenset(self.labels) - frozenset(self.stacks) | {n for x in self.stacks.values() for n in x}

    @cached_property
    def places(self) -> dict[tuple[str, int], tuple[str, int]]:
        """Where the dimensions of the state dict's tensors stand here; -1 is a tensor as a whole."""
        return {
            (own, d - (name in self.stacks)): (name, d)
            for name, dims in self.labels.items()
            for own in self.stacks.get(name, (name,))
            for d in range(len(dims))
        }

    def stands_in(self, name: str) -> str:
        """The stack that a tensor of the state dict is part of, or its own name."""
        return self.places[name, -1][0] if (name, -1) in self.places else name

    def gather(self, state: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        """The tensors of a state dict by their names here: those of parallel branches stacked."""
        inside = {n for names in self.stacks.values() for n in names}
        found = {n: t for n, t in state.items() if n not in inside}
        for name, parts in self.stacks.items():
            if all(n in state for n in parts):
                found[name] = torch.stack([state[n] for n in parts])
        return found

    def spread(self, tensors: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        """The way back from ``gather``."""
        found = {n: t for n, t in tensors.items() if n not in self.stacks}
        for name, parts in self.stacks.items():
            if name in tensors:
                found |= dict(zip(parts, tensors[name].unbind(), strict=True))
        return found

    def label(self, values: Mapping[str, Value]) -> Structure:
        """The same symmetries, for other labelled tensors of the graph (activations)."""
        stacks = {
            stack_name(row): row
            for branches, _ in self.branches
            for row in branches.nodes
            if all(n in values for n in row)
        }
        heads = {row: units for branches, units in self.branches for row in branches.nodes}
        inside = {n for row in stacks.values() for n in row}
        found = {n: v for n, v in values.items() if n not in inside}
        found |= {n: stacked(n, [values[m] for m in row], heads[row]) for n, row in stacks.items()}
        arrays = {n: classes_along(self.classes, v, n in stacks) for n, v in found.items()}
        seats = {n: at_positions(self.unit_seats, v, arrays[n]) for n, v in found.items()}
        labels = {
            n: tuple(x if x is not None and (self.sort_of[x] >= 0).any() else None for x in dims)
            for n, dims in arrays.items()
        }
        shapes = {n: v.shape for n, v in found.items()}
        return replace(self, labels=labels, seats=seats, shapes=shapes, stacks=stacks)

    @cached_property
    def _seat_count(self) -> int:
        return int(self.unit_seats.max(initial=0)) + 1

    @cached_property
    def atoms(self) -> tuple[int, ...]:
        return tuple(k for k, s in enumerate(self.sorts) if s.size > 1 and k not in self.frozen)

    def ancestors(self, k: int) -> set[int]:
        """The sort itself and all that it projects to."""
        found = {k}
        for p in self.sorts[k].parents:
            found |= self.ancestors(p)
        return found

    def fibres(self, k: int, phi: IntArray) -> IntArray | None:
        """Where each fibre of sort ``k`` goes when its images move by ``phi``; None if nowhere."""
        sort = self.sorts[k]
        if not sort.parents:
            return np.zeros(1, dtype=np.int64)
        here = sort.images[:, :: sort.size]
        there = phi[here]
        return np.arange(sort.order) if (here == there).all() else _find_columns(here, there)

    def extend(self, inner: Mapping[int, IntArray]) -> IntArray:
        """The permutation of all classes [class] for orders ``inner[atom]`` [fibre, position]."""
        phi = np.arange(len(self.sort_of))
        for k, sort in enumerate(self.sorts):
            to = self.fibres(k, phi)
            if to is None:
                raise IrregularError(k)
            places = inner.get(k, np.arange(sort.size)[None])
            phi[sort.units] = sort.units[(to[:, None] * sort.size + places).ravel()]
        return phi

    def targets(self, k: int, phi: IntArray) -> IntArray:
        """Where each unit of sort ``k`` goes, as a position in the sort [n]."""
        units = self.sorts[k].units
        order = np.argsort(units)
        return order[np.searchsorted(units[order], phi[units])]

    def moved(self, name: str, phi: IntArray) -> tuple[int, ...]:
        """The dimensions of a tensor that ``phi`` moves."""
        return tuple(d for d, x in enumerate(self.labels[name]) if x is not None and (phi[x] != x).any())

    def sources(self, name: str, phi: IntArray) -> dict[int, IntArray]:
        """For each dimension that moves, the position from which each position is filled.

        The arrays broadcast against each other: an order that varies along another dimension (a
        fibre inside one tensor) gives an array that varies along it too.
        """
        found: dict[int, IntArray] = {}
        for d in sorted(self.moved(name, phi), key=lambda d: len(self._reach(name, d))):
            classes, seats = self.labels[name][d], self.seats[name][d]
            assert classes is not None
            assert seats is not None
            before, after = phi[classes] * self._seat_count + seats, classes * self._seat_count + seats
            for e, source in found.items():  # rows come from where the outer dimension comes from
                if classes.shape[e] > 1:
                    before, rows = np.broadcast_arrays(before, source)
                    before = np.take_along_axis(before, rows, e)
            found[d] = _matching(before, np.broadcast_to(after, before.shape), d)
        return found

    def first_sources(self, name: str, phi: IntArray) -> dict[int, IntArray]:
        """The same for the first position of each class alone, where a dimension's order is one for all."""
        found = {}
        for d, source in self.sources(name, phi).items():
            classes = self.labels[name][d]
            assert classes is not None
            if source.size == classes.size == max(source.shape):
                first = np.zeros(source.size, dtype=bool)
                first[np.unique(classes, return_index=True)[1]] = True
                found[d] = np.where(
                    first.reshape(source.shape), source, np.arange(source.size).reshape(source.shape)
                )
        return found

    def _reach(self, name: str, d: int) -> set[int]:
        """The dimensions that the order of dimension ``d`` varies along, and those that theirs vary along."""
        found: set[int] = set()
        todo = {d}
        while todo:
            k = todo.pop()
            classes = self.labels[name][k]
            found.add(k)
            todo |= {e for e, n in enumerate(classes.shape if classes is not None else ()) if n > 1} - found
        return found


class IrregularError(Exception):
    """A sort whose fibres have nowhere to go under a candidate symmetry."""

    def __init__(self, sort: int) -> None:
        super().__init__(sort)
        self.sort = sort


def _matching(before: IntArray, after: IntArray, axis: int) -> IntArray:
    """For each position of ``after`` along ``axis`` the position in ``before`` of the same seat of a class.

    Where one stands at several positions, the k-th matches the k-th.
    """
    a = np.argsort(before, axis=axis, kind="stable")
    b = np.argsort(after, axis=axis, kind="stable")
    index = np.empty_like(a)
    if index.size == index.shape[axis]:  # the same, without the price of the general case
        index.ravel()[b.ravel()] = a.ravel()
    else:
        np.put_along_axis(index, b, a, axis)
    return index


def _find_columns(table: IntArray, wanted: IntArray) -> IntArray | None:
    """For each column of ``wanted`` its place among the (distinct) columns of ``table``."""
    n = table.shape[1]
    _, code = np.unique(np.concatenate([table, wanted], axis=1), axis=1, return_inverse=True)
    code = code.ravel()
    order = np.argsort(code[:n])
    place = np.searchsorted(code[:n][order], code[n:])
    if (place >= n).any() or (code[:n][order][np.minimum(place, n - 1)] != code[n:]).any():
        return None
    return order[place]


def reorder(t: torch.Tensor, sources: Mapping[int, IntArray]) -> torch.Tensor:
    """``t`` filled position by position from ``sources`` (dimension -> positions, broadcasting)."""
    if all(max(s.shape) == s.size for s in sources.values()):
        for d, s in sources.items():
            t = t.index_select(d, torch.from_numpy(np.ascontiguousarray(s.ravel())).to(t.device))
        return t
    index = []
    for d in range(t.ndim):
        shape = [1] * t.ndim
        shape[d] = t.shape[d]
        place = sources.get(d, np.arange(t.shape[d]).reshape(shape))
        index.append(torch.from_numpy(np.ascontiguousarray(place)).to(t.device))
    return t[tuple(index)]


def random_inner(
    structure: Structure, rng: np.random.Generator, only: Sequence[int] | None = None
) -> dict[int, IntArray]:
    """Random orders for every atom (or those of ``only``), each different from the identity."""
    inner = {}
    for k in structure.atoms if only is None else only:
        sort = structure.sorts[k]
        rows = np.stack([rng.permutation(sort.size) for _ in range(sort.order)])
        for row in rows:
            if (row == np.arange(sort.size)).all():
                row[:] = np.roll(row, 1)
        inner[k] = rows
    return inner


def generators(
    structure: Structure, rng: np.random.Generator, only: Sequence[int] | None = None
) -> tuple[dict[int, IntArray], dict[int, IntArray]]:
    """Two orders for every atom (or those of ``only``) from which all others are composed: a random cycle
    of all its units, and the exchange of two that are neighbours in it. Of pairs, for which that is the
    same, some only are exchanged: all at once might hold where one alone does not."""
    cycles, swaps = {}, {}
    for k in structure.atoms if only is None else only:
        sort = structure.sorts[k]
        cycles[k] = np.tile(np.arange(sort.size), (sort.order, 1))
        swaps[k] = cycles[k].copy()
        along = rng.permuted(cycles[k], axis=1)
        np.put_along_axis(cycles[k], along, np.roll(along, -1, axis=1), axis=1)
        some = rng.random(sort.order) < (0.5 if sort.size == 2 else 1)
        np.put_along_axis(
            swaps[k], along[:, :2], np.where(some[:, None], along[:, 1::-1], along[:, :2]), axis=1
        )
    return cycles, swaps


def at_positions(
    of_unit: IntArray, value: Value, like: Sequence[IntArray | None]
) -> tuple[IntArray | None, ...]:
    """What ``of_unit`` says of the unit at each position, in the shapes of ``like``."""
    return tuple(
        None if isinstance(x, Whole) or y is None else of_unit[x][: len(y)]
        for x, y in zip(value.labels or (None,) * value.rank, like, strict=True)
    )


def classes_along(of_unit: IntArray, value: Value, is_stack: bool) -> tuple[IntArray | None, ...]:
    """Classes along each dimension; in a stack, what all branches share does not depend on the branch."""
    arrays = [None if isinstance(x, Whole) else of_unit[x] for x in value.labels or ()]
    return tuple(
        x[:1] if x is not None and is_stack and d > 0 and bool((x == x[:1]).all()) else x
        for d, x in enumerate(arrays)
    )
