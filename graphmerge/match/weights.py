"""Weight similarity: how alike the parameters of two units are, all other units being where they are.

Source: Git Re-Basin, Ainsworth et al. 2022, arXiv 2209.04836, section 3.2 (SOBLAP).
"""

from __future__ import annotations

from collections.abc import Mapping

import torch

from graphmerge.match.layout import Site
from graphmerge.symmetry import Transform


class WeightSimilarity:
    """Inner products of the rows of model a and of model b moved by the current transform.

    ``objective`` is sum_p <a_p, moved b_p> over all parameters that a group moves (float64).
    """

    def __init__(self, a: Mapping[str, torch.Tensor], b: Mapping[str, torch.Tensor], transform: Transform) -> None:
        self._a, self._b = a, b
        self.transform = transform
        self._moved = {name: transform.apply_to(name, t) for name, t in b.items()}
        self._parts = {name: _inner(a[name], t) for name, t in self._moved.items()}

    @property
    def objective(self) -> float:
        return sum(self._parts.values())

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

    def propose(self, transform: Transform, names: set[str]) -> float:
        """The objective if ``names`` were moved by ``transform``; ``accept`` makes it so."""
        self._proposed = {n: transform.apply_to(n, self._b[n]) for n in names}
        self._proposed_parts = {n: _inner(self._a[n], t) for n, t in self._proposed.items()}
        self._candidate = transform
        return sum({**self._parts, **self._proposed_parts}.values())

    def accept(self) -> None:
        """Move to what was proposed last."""
        self.transform = self._candidate
        self._moved.update(self._proposed)
        self._parts.update(self._proposed_parts)


def _rows(site: Site, t: torch.Tensor) -> torch.Tensor:
    """Rows of a tensor as [.., .., role, rest] in the shape of ``site.rows``."""
    matrix = site.matrix(t)
    index = torch.from_numpy(site.rows.reshape(-1)).to(t.device)
    if index.numel() == len(matrix) and bool((index[1:] > index[:-1]).all()):
        return matrix.reshape(*site.rows.shape, -1)
    return matrix.index_select(0, index).reshape(*site.rows.shape, -1)


def _inner(a: torch.Tensor, b: torch.Tensor) -> float:
    return float((a * b).sum(dtype=torch.float64))
