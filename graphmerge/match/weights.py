"""Weight similarity: how alike the parameters of two units are, all other units being where they are.

Source: Git Re-Basin, Ainsworth et al. 2022, arXiv 2209.04836, section 3.2 (SOBLAP).
"""

from __future__ import annotations

import copy
import math
from collections.abc import Iterable, Iterator, Mapping, Sequence, Set
from dataclasses import dataclass, replace
from functools import reduce
from itertools import combinations

import numpy as np
import torch

from graphmerge.axes.units import IntArray
from graphmerge.match.circuits import circuits
from graphmerge.match.exchange import bend
from graphmerge.match.layout import Site
from graphmerge.match.twins import twins
from graphmerge.symmetry import Transform
from graphmerge.symmetry.structure import reorder

KEEP = 0.3
"""Most memory for the similarities that one descent keeps, as a part of one model."""

CHUNK = 1 / 16
"""Tensors are moved and multiplied in parts of this size, as a part of one model, or of ``LEAST`` bytes."""

LEAST = 1 << 20

PRODUCTS = 1 << 18
"""Entries that are multiplied at once for an inner product."""

PART = 0.5
"""Similarities are corrected, not computed anew, where at most this part of their rows moved."""

NARROW = 64
"""Rows shorter than this are joined before they are multiplied."""

Pair = tuple[torch.Tensor, torch.Tensor]


@dataclass(frozen=True)
class Kept:
    """A similarity matrix [fibre, i, j] summed over sites, and where b's units were when it was computed."""

    sites: tuple[Site, ...]
    gram: torch.Tensor
    phi: IntArray


class WeightSimilarity:
    """Inner products of the rows of model a and of model b moved by the current transform.

    ``objective`` is sum_p <a_p, moved b_p> over all parameters that a group moves (float64). Model b
    is moved part by part where it is read: no copy of it is held. The similarity of a group is kept;
    when it is asked for after others have moved, it is corrected by the part that did, which late in
    a descent is most of the work saved.
    """

    def __init__(
        self, a: Mapping[str, torch.Tensor], b: Mapping[str, torch.Tensor], transform: Transform
    ) -> None:
        self._a, self._b = a, b
        self.transform = transform
        size = sum(t.nbytes for t in a.values())
        self._chunk, self._most = max(LEAST, CHUNK * size), KEEP * size
        self._kept: dict[tuple[int, ...], Kept] = {}
        self._values: dict[str, float] = {}
        self._objective: float | None = None

    @property
    def objective(self) -> float:
        """Measured when it is asked for and not known."""
        if self._objective is None:
            self._objective = self.measure()
        return self._objective

    def measure(self) -> float:
        """The objective without the rounding of a sum of gains: of all tensors that moved, computed anew."""
        return sum(self._value(name) for name in self._a)

    def _value(self, name: str) -> float:
        if name not in self._values:
            self._values[name] = self._inner(name, self.transform)
        return self._values[name]

    def alike(self, names: Iterable[str]) -> float:
        """The cosine of the angle between some tensors of a, and those of b as they are moved now."""
        found = size_a = size_b = 0.0
        for name in sorted(names):  # a set has another order in each process, which rounds otherwise
            a, b = self._a[name], self._b[name]
            found, size_a, size_b = found + self._value(name), size_a + inner(a, a), size_b + inner(b, b)
        return found / (math.sqrt(size_a * size_b) or 1.0)

    def pair(self, name: str) -> Pair:
        """A tensor of a, and that of b as it is moved now."""
        return self._a[name], self.transform.apply_to(name, self._b[name])

    def fork(self) -> WeightSimilarity:
        """A copy that moves on its own; tensors are shared, for none is ever changed in place."""
        other = copy.copy(self)
        other._kept, other._values = dict(self._kept), dict(self._values)
        return other

    def at(self, transform: Transform) -> WeightSimilarity:
        """The same models, b moved by another transform."""
        other = copy.copy(self)
        other.transform, other._kept, other._values, other._objective = transform, {}, {}, None
        return other

    def forget(self) -> None:
        """Drop the similarities that are kept."""
        self._kept.clear()

    def total(self, sites: Sequence[Site]) -> torch.Tensor:
        """Similarity of unit i of a and unit j of b in each fibre, summed over sites: [fibre, i, j]."""
        key = tuple(map(id, sites))
        kept = self._kept.pop(key, None)
        gram = self._corrected(kept) if kept is not None else None
        if gram is None:
            kept = None  # its memory is free before the new one is made
            gram = self.fresh(sites)
        if sum(k.gram.nbytes for k in self._kept.values()) + gram.nbytes <= self._most:
            self._kept[key] = Kept(tuple(sites), gram, self.transform.phi)
        return gram

    def fresh(self, sites: Sequence[Site]) -> torch.Tensor:
        """``total`` computed from all parameters of the sites, and not kept."""
        dtype = self._a[sites[0].name].dtype
        for site in sites:
            dtype = torch.promote_types(dtype, self._a[site.name].dtype)
        fibres, units, _ = sites[0].rows.shape
        gram = torch.zeros(fibres, units, units, dtype=dtype, device=self._a[sites[0].name].device)
        short: list[Pair] = []
        for site in sites:
            for part in self._parts(site.name, _widest(site, self._a[site.name]), self.transform):
                a, b = (rows(site, x).flatten(2).to(dtype) for x in part)
                if a.shape[-1] < NARROW:
                    short.append((a, b))
                else:
                    gram.baddbmm_(a, b.mT)
        if short:
            a, b = (torch.cat([pair[k] for pair in short], -1) for k in (0, 1))
            gram.baddbmm_(a, b.mT)
        return gram

    def some(self, site: Site, few: int) -> Pair:
        """About ``few`` entries of every unit of both models, evenly spaced: [fibre, unit, entry]."""
        a = self._a[site.name]
        dim = _widest(site, a)
        if dim is None:
            b = self.transform.apply_to(site.name, self._b[site.name])
        else:
            entries = a.numel() // (site.rows.shape[0] * site.rows.shape[1])
            places = np.arange(0, a.shape[dim], max(1, entries // few))
            a = a.index_select(dim, torch.from_numpy(places).to(a.device))
            b = self._part(site.name, dim, places, self.transform)
        return rows(site, a).flatten(2), rows(site, b).flatten(2)

    def across(self, site: Site, fibres: int) -> torch.Tensor:
        """The same for child units of every pair of units: [fibre, unit, unit, i, j]."""
        a, b = self._children(site, fibres)
        _, n, inner, _ = a.shape
        product = a.flatten(1, 2) @ b.flatten(1, 2).mT
        return product.reshape(fibres, n, inner, n, inner).permute(0, 1, 3, 2, 4)

    def circuits(self, sites: Sequence[Site], fibres: int) -> torch.Tensor:
        """Similarity of every pair of units whatever the order of their child units: [fibre, unit, unit]."""
        a, b = zip(*(self._children(site, fibres) for site in sites), strict=True)
        return circuits(a, b)

    def _children(self, site: Site, fibres: int) -> list[torch.Tensor]:
        """The rows of the child units of both models: [fibre, unit, i, entry]."""
        pair = (rows(site, x).flatten(2) for x in self.pair(site.name))
        return [x.reshape(fibres, -1, *x.shape[1:]) for x in pair]

    def room(self, names: Set[str]) -> dict[str, float]:
        """How much more alike tensors could be at most: by Cauchy and Schwarz, the product of their norms."""
        pairs = {n: (self._a[n], self._b[n]) for n in names}
        return {
            n: max(0.0, math.sqrt(inner(a, a) * inner(b, b)) - self._value(n)) for n, (a, b) in pairs.items()
        }

    def bends(self, sites: Sequence[Site]) -> torch.Tensor | None:
        """What exchanges gain beyond their linear part [fibre, i, j] (see ``exchange``); None: nothing."""
        both = [
            (s, t) for s, t in combinations(sites, 2) if s.name == t.name and not set(s.axes) & set(t.axes)
        ]
        found = [bend(s, t, *self.pair(s.name)) for s, t in both]
        return reduce(torch.add, found) if found else None

    def twins(self, sites: Sequence[Site]) -> int:
        """How many units could change places with another at no loss: dead or duplicates in one model."""
        small = sorted(sites, key=lambda s: self._a[s.name].numel())
        own = twins(rows(s, self._a[s.name]) for s in small)
        other = twins(rows(s, self.transform.apply_to(s.name, self._b[s.name])) for s in small)
        return int((own | other).sum())

    def put(self, delta: IntArray, names: set[str]) -> None:
        """Move ``names`` further by ``delta``, whatever that does to the objective."""
        self._adopt(delta, {}, names)
        self._objective = None

    def move(self, delta: IntArray, names: set[str], least: float, gain: float | None, /) -> bool:
        """Move ``names`` further by ``delta`` if the objective rises by more than ``least``.

        ``gain`` is the rise where the caller knows it; it is measured otherwise.
        """
        values: dict[str, float] = {}
        if gain is None:
            after = replace(self.transform, phi=delta[self.transform.phi])
            values = {n: self._inner(n, after) for n in names}
            gain = sum(x - self._value(n) for n, x in values.items())
        if gain <= least:
            return False
        self._objective = self.objective + gain
        self._adopt(delta, values, names)
        return True

    def _adopt(self, delta: IntArray, values: Mapping[str, float], names: set[str]) -> None:
        self.transform = replace(self.transform, phi=delta[self.transform.phi])
        self._values = {n: x for n, x in self._values.items() if n not in names} | dict(values)

    def _inner(self, name: str, transform: Transform) -> float:
        """Inner product of a tensor of a with that of b moved by ``transform`` (float64)."""
        found = 0.0
        for a, b in self._parts(name, 0 if self._a[name].ndim else None, transform):
            found += inner(a, b)
        return found

    def _parts(self, name: str, dim: int | None, transform: Transform) -> Iterator[Pair]:
        """A tensor of a and the moved one of b, in parts along one dimension (None: whole)."""
        a = self._a[name]
        count = int(np.ceil(a.nbytes / self._chunk))
        if dim is None or count <= 1:
            yield a, transform.apply_to(name, self._b[name])
            return
        for places in np.array_split(np.arange(a.shape[dim]), min(count, a.shape[dim])):
            yield a.narrow(dim, int(places[0]), len(places)), self._part(name, dim, places, transform)

    def _part(self, name: str, dim: int, places: IntArray, transform: Transform) -> torch.Tensor:
        """Some places along one dimension of the moved tensor of b."""
        sources, t = transform.sources(name), self._b[name]
        if not _is_flat(sources):
            return reorder(t, sources).index_select(dim, torch.from_numpy(places).to(t.device))
        here = sources.get(dim, np.arange(t.shape[dim])).ravel()[places]
        t = t.index_select(dim, torch.from_numpy(here).to(t.device))
        return reorder(t, {d: s for d, s in sources.items() if d != dim})

    def _corrected(self, kept: Kept) -> torch.Tensor | None:
        """Kept similarities brought up to now; None where computing them anew is no dearer."""
        phi = self.transform.phi
        if np.array_equal(kept.phi, phi):
            return kept.gram
        found = self._changes(kept, phi[np.argsort(kept.phi)])
        if found is None:
            return None
        units, changes = found
        gram = kept.gram
        if not np.array_equal(units, np.arange(len(units))):
            columns = torch.from_numpy(units).to(gram.device).expand_as(gram)
            gram = gram.gather(-1, columns)  # many times faster than index_select along a last dimension
        elif changes:
            gram = gram.clone()  # forks share it
        for site, dim, source in changes:
            changed = np.flatnonzero(source != np.arange(len(source)))
            a = self._a[site.name].index_select(dim, torch.from_numpy(changed).to(gram.device))
            b = self._part(site.name, dim, changed, self.transform)
            b = b - self._part(site.name, dim, np.argsort(source)[changed], self.transform)
            left, right = (rows(site, x).flatten(2).to(gram.dtype) for x in (a, b))
            gram.baddbmm_(left, right.mT)
        return gram

    def _changes(
        self, kept: Kept, delta: IntArray
    ) -> tuple[IntArray, list[tuple[Site, int, IntArray]]] | None:
        """What ``delta`` does to the sites: the order of their units, and what moved along other dimensions.

        None where sites differ in the order of units, or more moved than is worth correcting.
        """
        orders: list[IntArray] = []
        changes: list[tuple[Site, int, IntArray]] = []
        work, whole = 0.0, 0
        for site in kept.sites:
            sources = self.transform.structure.sources(site.name, delta)
            if not _is_flat(sources):
                return None
            own = [sources.pop(d).ravel() for d in site.axes if d in sources]
            order = _unit_order(site, own[0]) if own else np.arange(site.rows.shape[1])
            if order is None or len(sources) > 1 or not all(np.array_equal(order, x) for x in orders[:1]):
                return None
            orders.append(order)
            size = self._a[site.name].numel()
            whole += size
            for dim, source in sources.items():
                flat = source.ravel()
                changes.append((site, dim, flat))
                work += size * float((flat != np.arange(len(flat))).mean())
        return (orders[0], changes) if work <= PART * whole else None


def inner(a: torch.Tensor, b: torch.Tensor) -> float:
    """Inner product of two tensors: rows in their own dtype, their sum in float64."""
    if a.ndim < 2:
        return float((a * b).sum(dtype=torch.float64))
    step = max(1, PRODUCTS // max(1, a[:1].numel()))  # rows, whose products are held at once
    parts = zip(*(torch.split(t.flatten(1), step) for t in (a, b)), strict=True)
    return float(torch.stack([torch.linalg.vecdot(x, y).sum(dtype=torch.float64) for x, y in parts]).sum())


def _is_flat(sources: Mapping[int, IntArray]) -> bool:
    """No dimension is ordered otherwise at other places of the tensor."""
    return all(s.size == max(s.shape) for s in sources.values())


def _widest(site: Site, t: torch.Tensor) -> int | None:
    """The longest dimension that is not part of the row numbers."""
    rest = [d for d in range(t.ndim) if d not in site.axes]
    return max(rest, key=lambda d: t.shape[d], default=None)


def _unit_order(site: Site, source: IntArray) -> IntArray | None:
    """The unit that comes to each place when rows are filled from ``source``; None if rows part ways."""
    if site.rows.shape[0] != 1 or len(site.axes) != 1:
        return None
    table = site.rows[0]
    unit_of_row = np.full(len(source), -1, dtype=np.int64)
    unit_of_row[table[:, 0]] = np.arange(len(table))
    units = unit_of_row[source[table[:, 0]]]
    return units if (units >= 0).all() and (source[table] == table[units]).all() else None


def rows(site: Site, t: torch.Tensor) -> torch.Tensor:
    """Rows of a tensor as [.., .., role, rest] in the shape of ``site.rows``."""
    matrix = site.matrix(t)
    if site.rows.size != len(matrix) or not site.ascending:
        matrix = matrix.index_select(0, torch.from_numpy(site.rows.reshape(-1)).to(t.device))
    return matrix.reshape(*site.rows.shape, -1)
