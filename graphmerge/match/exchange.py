"""Exchanges of two units, for groups that stand on both sides of one tensor.

The objective is not linear in the order of such a group (the hidden units of a recurrent layer), and an
assignment of its linearisation is often no step up. What the exchange of units i and j gains is exact: with
G the similarities and d = e_i - e_j it is G_ij + G_ji - G_ii - G_jj, and for a tensor with the units along
two dimensions (d'Ad)(d'Bd) more. Local search by exchanges is that of quadratic assignment
(Burkard, Dell'Amico and Martello 2012, Assignment Problems, section 8.2.3).
"""

from __future__ import annotations

import torch

from graphmerge.axes.units import IntArray
from graphmerge.match.layout import Site


def bend(one: Site, other: Site, a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
    """(d'Ad)(d'Bd) for every pair of units [fibre, i, j], for a tensor of both models at two of its sites."""
    fibres, units, roles = one.rows.shape
    found = torch.zeros(fibres, units, units, dtype=a.dtype, device=a.device)
    left, right = (_table(one, other, t) for t in (a, b))
    for fibre in range(fibres):
        columns = other.rows[fibre].ravel()
        for role in range(roles):
            rows = one.rows[fibre, :, role]
            found[fibre] += _across(left, rows, columns).mul_(_across(right, rows, columns)).sum(-1)
    return found


def _table(one: Site, other: Site, t: torch.Tensor) -> torch.Tensor:
    """A tensor as [row of one site, row of the other, rest]."""
    axes = (*one.axes, *other.axes)
    rest = [d for d in range(t.ndim) if d not in axes]
    return t.permute(*axes, *rest).reshape(one.rows.size, other.rows.size, -1)


def _across(table: torch.Tensor, rows: IntArray, columns: IntArray) -> torch.Tensor:
    """d'Td for every pair of units, from their rows and columns of a table: [i, j, rest]."""
    i, j = (torch.from_numpy(x).to(table.device) for x in (rows, columns))
    x = table.index_select(0, i).index_select(1, j).reshape(len(rows), len(rows), -1)
    own = x.diagonal(dim1=0, dim2=1).mT
    return (own[:, None] + own[None]).sub_(x).sub_(x.transpose(0, 1))


def mutual(gains: torch.Tensor) -> torch.Tensor:
    """Places [fibre, unit] after all exchanges that are the best one of both of their units, and gain."""
    value, best = gains.max(-1)
    stays = torch.arange(gains.shape[-1], device=gains.device).expand_as(best)
    return torch.where((best.gather(-1, best) == stays) & (value > 0), best, stays)


def highest(gains: torch.Tensor) -> torch.Tensor:
    """Places [fibre, unit] after the one exchange that gains most."""
    places = torch.arange(gains.shape[-1], device=gains.device).repeat(len(gains), 1)
    fibre, i, j = (int(k) for k in torch.unravel_index(gains.argmax(), gains.shape))
    places[fibre, i], places[fibre, j] = j, i
    return places
