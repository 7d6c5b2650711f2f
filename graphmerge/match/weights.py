"""Weight similarity: how alike the parameters of two units are, all other units being where they are.

Source: Git Re-Basin, Ainsworth et al. 2022, arXiv 2209.04836, section 3.2 (SOBLAP).
"""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch

from graphmerge.axes.units import IntArray
from graphmerge.match.circuits import circuits
from graphmerge.match.layout import Site
from graphmerge.symmetry import Transform
from graphmerge.symmetry.structure import reorder

CACHE_BYTES = 2 << 30
"""Most memory for the similarities that one descent keeps, with their tensors; a fork counts for itself."""

PART = 0.5
"""Similarities are corrected, not computed anew, where at most this part of a dimension moved."""


@dataclass(frozen=True)
class Kept:
    """A similarity matrix [fibre, i, j], and where b's units were, and its tensor, when it was computed."""

    gram: torch.Tensor
    phi: IntArray
    tensor: torch.Tensor

    @property
    def nbytes(self) -> int:
        return self.gram.nbytes + self.tensor.nbytes


class WeightSimilarity:
    """Inner products of the rows of model a and of model b moved by the current transform.

    ``objective`` is sum_p <a_p, moved b_p> over all parameters that a group moves (float64). The
    similarities of a site are kept; when they are asked for after its tensor has moved, they are
    corrected by the part that did, which late in a descent is most of the work saved.
    """

    def __init__(
        self, a: Mapping[str, torch.Tensor], b: Mapping[str, torch.Tensor], transform: Transform
    ) -> None:
        self._a = a
        self.transform = transform
        self._moved = {name: transform.apply_to(name, t) for name, t in b.items()}
        self._kept: dict[int, tuple[Site, Kept]] = {}
        self._bytes = 0
        self.objective = self.measure()

    def measure(self) -> float:
        """The objective, computed anew."""
        return sum(_inner(self._a[name], t) for name, t in self._moved.items())

    def pair(self, name: str) -> tuple[torch.Tensor, torch.Tensor]:
        """A tensor of a, and that of b as it is moved now."""
        return self._a[name], self._moved[name]

    def fork(self) -> WeightSimilarity:
        """A copy that moves on its own; tensors are shared, for none is ever changed in place."""
        other = copy.copy(self)
        other._moved, other._kept = dict(self._moved), dict(self._kept)
        return other

    def within(self, site: Site) -> torch.Tensor:
        """Similarity of unit i of a and unit j of b in each fibre: [fibre, i, j]."""
        now = self._moved[site.name]
        _, kept = self._kept.pop(id(site), (site, None))
        if kept is not None:
            self._bytes -= kept.nbytes
        gram = self._corrected(site, kept, now) if kept is not None else None
        if gram is None:
            gram = _gram(site, self._a[site.name], now)
        fresh = Kept(gram, self.transform.phi, now)
        if self._bytes + fresh.nbytes <= CACHE_BYTES:
            self._bytes += fresh.nbytes
            self._kept[id(site)] = (site, fresh)
        return gram

    def _corrected(self, site: Site, kept: Kept, now: torch.Tensor) -> torch.Tensor | None:
        """Kept similarities brought up to now; None where computing them anew is no dearer."""
        if kept.tensor is now:
            return kept.gram
        sources = self.transform.structure.sources(site.name, self.transform.phi[np.argsort(kept.phi)])
        gram, before = kept.gram, kept.tensor
        if any(source.size != max(source.shape) for source in sources.values()):
            return None
        for dim in [d for d in sources if d in site.axes]:
            units = _unit_order(site, sources[dim].ravel())
            if units is None:
                return None
            columns = torch.from_numpy(units).to(gram.device).expand_as(gram)
            gram = gram.gather(-1, columns)  # many times faster than index_select along a last dimension
            before = reorder(before, {dim: sources.pop(dim)})
        if not sources:
            return gram
        if len(sources) > 1:
            return None
        ((dim, source),) = sources.items()
        changed = np.flatnonzero(source.ravel() != np.arange(source.size))
        if len(changed) > PART * source.size:
            return None
        index = torch.from_numpy(changed).to(now.device)
        part, a = (x.index_select(dim, index) for x in (now, self._a[site.name]))
        return gram + _gram(site, a, part - before.index_select(dim, index))

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

    def put(self, delta: IntArray, names: set[str]) -> None:
        """Move ``names`` further by ``delta``, whatever that does to the objective."""
        self._adopt(delta, self._reordered(delta, names))

    def move(self, delta: IntArray, names: set[str], least: float, gain: float | None, /) -> bool:
        """Move ``names`` further by ``delta`` if the objective rises by more than ``least``.

        ``gain`` is the rise where the caller knows it; it is measured otherwise.
        """
        if gain is not None and gain <= least:
            return False
        moved = self._reordered(delta, names)
        if (self._gain(moved) if gain is None else gain) <= least:
            return False
        self._adopt(delta, moved, gain)
        return True

    def _reordered(self, delta: IntArray, names: set[str]) -> dict[str, torch.Tensor]:
        structure = self.transform.structure
        return {n: reorder(self._moved[n], structure.sources(n, delta)) for n in names}

    def _gain(self, moved: Mapping[str, torch.Tensor]) -> float:
        return sum(_inner(self._a[n], t) - _inner(self._a[n], self._moved[n]) for n, t in moved.items())

    def _adopt(self, delta: IntArray, moved: Mapping[str, torch.Tensor], gain: float | None = None) -> None:
        self.objective += self._gain(moved) if gain is None else gain
        self._moved.update(moved)
        self.transform = replace(self.transform, phi=delta[self.transform.phi])


def _unit_order(site: Site, source: IntArray) -> IntArray | None:
    """The unit that comes to each place when rows are filled from ``source``; None if rows part ways."""
    if site.rows.shape[0] != 1 or len(site.axes) != 1:
        return None
    table = site.rows[0]
    unit_of_row = np.full(len(source), -1, dtype=np.int64)
    unit_of_row[table[:, 0]] = np.arange(len(table))
    units = unit_of_row[source[table[:, 0]]]
    return units if (units >= 0).all() and (source[table] == table[units]).all() else None


def _gram(site: Site, a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
    """Inner products [fibre, i, j] of the rows of unit i of ``a`` and unit j of ``b``."""
    left, right = (rows(site, x).flatten(2) for x in (a, b))
    return left @ right.transpose(1, 2)


def rows(site: Site, t: torch.Tensor) -> torch.Tensor:
    """Rows of a tensor as [.., .., role, rest] in the shape of ``site.rows``."""
    matrix = site.matrix(t)
    index = torch.from_numpy(site.rows.reshape(-1)).to(t.device)
    if index.numel() == len(matrix) and bool((index[1:] > index[:-1]).all()):
        return matrix.reshape(*site.rows.shape, -1)
    return matrix.index_select(0, index).reshape(*site.rows.shape, -1)


def _inner(a: torch.Tensor, b: torch.Tensor) -> float:
    return float((a * b).sum(dtype=torch.float64))
