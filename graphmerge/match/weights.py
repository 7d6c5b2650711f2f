"""Weight similarity: how alike the parameters of two units are, all other units being where they are.

Source: Git Re-Basin, Ainsworth et al. 2022, arXiv 2209.04836, section 3.2 (SOBLAP).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import numpy as np
import torch

from graphmerge.axes.units import IntArray
from graphmerge.match.layout import Site
from graphmerge.symmetry import Transform
from graphmerge.symmetry.structure import reorder

CACHE_BYTES = 1 << 30
"""Most memory that kept similarities may take."""

PART = 0.5
"""Similarities are corrected, not computed anew, where at most this part of a dimension moved."""


class WeightSimilarity:
    """Inner products of the rows of model a and of model b moved by the current transform.

    ``objective`` is sum_p <a_p, moved b_p> over all parameters that a group moves (float64). The
    similarities of a site are kept until its tensor moves; where only a part of it moves, they are
    corrected by that part, which late in a descent is most of the work saved.
    """

    def __init__(
        self, a: Mapping[str, torch.Tensor], b: Mapping[str, torch.Tensor], transform: Transform
    ) -> None:
        self._a = a
        self.transform = transform
        self._moved = {name: transform.apply_to(name, t) for name, t in b.items()}
        self._kept: dict[str, dict[int, tuple[Site, torch.Tensor]]] = {name: {} for name in a}
        self._bytes = 0
        self.objective = self.measure()

    def measure(self) -> float:
        """The objective, computed anew."""
        return sum(_inner(self._a[name], t) for name, t in self._moved.items())

    def pair(self, name: str) -> tuple[torch.Tensor, torch.Tensor]:
        """A tensor of a, and that of b as it is moved now."""
        return self._a[name], self._moved[name]

    def put(self, delta: IntArray, names: set[str]) -> None:
        """Move ``names`` further by ``delta``, whatever that does to the objective."""
        structure = self.transform.structure
        for n in names:
            self._moved[n] = reorder(self._moved[n], structure.sources(n, delta))
            self._bytes -= sum(gram.nbytes for _, gram in self._kept[n].values())
            self._kept[n].clear()
        self.transform = replace(self.transform, phi=delta[self.transform.phi])
        self.objective = self.measure()

    def within(self, site: Site) -> torch.Tensor:
        """Similarity of unit i of a and unit j of b in each fibre: [fibre, i, j]."""
        kept = self._kept[site.name].get(id(site))
        if kept is not None:
            return kept[1]
        found = _gram(site, self._a[site.name], self._moved[site.name])
        if self._bytes + found.nbytes <= CACHE_BYTES:
            self._bytes += found.nbytes
            self._kept[site.name][id(site)] = (site, found)
        return found

    def across(self, site: Site, fibres: int) -> torch.Tensor:
        """The same for child units of every pair of units: [fibre, unit, unit, i, j]."""
        a, b = (rows(site, x[site.name]).flatten(2) for x in (self._a, self._moved))
        units, inner, _ = a.shape
        a, b = (x.reshape(fibres, -1, x.shape[-1]) for x in (a, b))
        n = units // fibres
        return (a @ b.transpose(1, 2)).reshape(fibres, n, inner, n, inner).permute(0, 1, 3, 2, 4)

    def move(self, delta: IntArray, names: set[str], least: float, gain: float | None, /) -> bool:
        """Move ``names`` further by ``delta`` if the objective rises by more than ``least``.

        ``gain`` is the rise where the caller knows it; it is measured otherwise.
        """
        if gain is not None and gain <= least:
            return False
        structure = self.transform.structure
        sources = {n: structure.sources(n, delta) for n in names}
        moved = {n: reorder(self._moved[n], sources[n]) for n in names}
        if gain is None:
            gain = sum(_inner(self._a[n], t) - _inner(self._a[n], self._moved[n]) for n, t in moved.items())
        if gain <= least:
            return False
        for name, t in moved.items():
            self._follow(name, sources[name], t)
        self._moved.update(moved)
        self.objective += gain
        self.transform = replace(self.transform, phi=delta[self.transform.phi])
        return True

    def _follow(self, name: str, sources: Mapping[int, IntArray], new: torch.Tensor) -> None:
        """Correct what is kept of a tensor that is about to become ``new``, or forget it."""
        kept = self._kept[name]
        for key, (site, gram) in list(kept.items()):
            after = _corrected(site, gram, sources, self._a[name], self._moved[name], new)
            if after is None:
                self._bytes -= gram.nbytes
                del kept[key]
            else:
                kept[key] = (site, after)


def _corrected(
    site: Site,
    gram: torch.Tensor,
    sources: Mapping[int, IntArray],
    a: torch.Tensor,
    old: torch.Tensor,
    new: torch.Tensor,
) -> torch.Tensor | None:
    """Similarities after one dimension of b has moved; None where computing them anew is no dearer."""
    if not sources:
        return gram
    if len(sources) > 1:
        return None
    ((dim, source),) = sources.items()
    if source.size != max(source.shape):
        return None
    source = source.ravel()
    if dim in site.axes:
        units = _unit_order(site, source)
        return None if units is None else gram[..., torch.from_numpy(units).to(gram.device)]
    changed = np.flatnonzero(source != np.arange(len(source)))
    if len(changed) > PART * len(source):
        return None
    index = torch.from_numpy(changed).to(a.device)
    part = (new.index_select(dim, index) - old.index_select(dim, index), a.index_select(dim, index))
    return gram + _gram(site, part[1], part[0])


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
