"""Weight similarity: how alike the parameters of two units are, all other units being where they are.

Source: Git Re-Basin, Ainsworth et al. 2022, arXiv 2209.04836, section 3.2 (SOBLAP).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import torch

from graphmerge.axes.units import IntArray
from graphmerge.match.layout import Site
from graphmerge.symmetry import Transform
from graphmerge.symmetry.structure import reorder


class WeightSimilarity:
    """Inner products of the rows of model a and of model b moved by the current transform.

    ``objective`` is sum_p <a_p, moved b_p> over all parameters that a group moves (float64).
    """

    def __init__(
        self, a: Mapping[str, torch.Tensor], b: Mapping[str, torch.Tensor], transform: Transform
    ) -> None:
        self._a = a
        self.transform = transform
        self._moved = {name: transform.apply_to(name, t) for name, t in b.items()}
        self.objective = self.measure()

    def measure(self) -> float:
        """The objective, computed anew."""
        return sum(_inner(self._a[name], t) for name, t in self._moved.items())

    def within(self, site: Site) -> torch.Tensor:
        """Similarity of unit i of a and unit j of b in each fibre: [fibre, i, j]."""
        a, b = (_rows(site, x[site.name]).flatten(2) for x in (self._a, self._moved))
        return a @ b.transpose(1, 2)

    def across(self, site: Site, fibres: int) -> torch.Tensor:
        """The same for child units of every pair of units: [fibre, unit, unit, i, j]."""
        a, b = (_rows(site, x[site.name]).flatten(2) for x in (self._a, self._moved))
        units, inner, _ = a.shape
        a, b = (x.reshape(fibres, -1, x.shape[-1]) for x in (a, b))
        n = units // fibres
        return (a @ b.transpose(1, 2)).reshape(fibres, n, inner, n, inner).permute(0, 1, 3, 2, 4)

    def move(self, delta: IntArray, names: set[str], least: float, gain: float | None) -> bool:
        """Move ``names`` further by ``delta`` if the objective rises by more than ``least``.

        ``gain`` is the rise where the caller knows it; it is measured otherwise.
        """
        if gain is not None and gain <= least:
            return False
        structure = self.transform.structure
        moved = {n: reorder(self._moved[n], structure.sources(n, delta)) for n in names}
        if gain is None:
            gain = sum(_inner(self._a[n], t) - _inner(self._a[n], self._moved[n]) for n, t in moved.items())
        if gain <= least:
            return False
        self._moved.update(moved)
        self.objective += gain
        self.transform = replace(self.transform, phi=delta[self.transform.phi])
        return True


def _rows(site: Site, t: torch.Tensor) -> torch.Tensor:
    """Rows of a tensor as [.., .., role, rest] in the shape of ``site.rows``."""
    matrix = site.matrix(t)
    index = torch.from_numpy(site.rows.reshape(-1)).to(t.device)
    if index.numel() == len(matrix) and bool((index[1:] > index[:-1]).all()):
        return matrix.reshape(*site.rows.shape, -1)
    return matrix.index_select(0, index).reshape(*site.rows.shape, -1)


def _inner(a: torch.Tensor, b: torch.Tensor) -> float:
    return float((a * b).sum(dtype=torch.float64))
