"""Exact linear assignment, stable on ties, and certificates.

Many small matrices go to scipy (Jonker-Volgenant), or to lapx where that optional package is
installed; large ones are solved through few of their pairs (see ``pricing``).
"""

from __future__ import annotations

import math

import numpy as np
import torch
from scipy.optimize import linear_sum_assignment

from graphmerge.axes.units import IntArray
from graphmerge.match.pricing import assign_large

try:
    from lap import lapjvr
except ImportError:
    lapjvr = None

LARGE = 512
"""Matrices of this size and more are solved by pricing."""

DEAD = 0.05
"""Rows of zeros, as a part of all, beyond which a matrix is solved as it is: ties price badly."""

BLOCK = 1 << 18
"""Entries that are read at once, in float64."""

ROUNDING = 1e-15
"""Rise of a potential, relative to the largest similarity of a pair, that is none."""

WORK = 1 << 29
"""Entries read in search of a certificate: 128 rounds at 2048 units, of which a few dozen are usual."""


def assign(similarity: torch.Tensor, keep: float = 1e-9) -> torch.Tensor:
    """The permutation [..., n] that maximises sum_i similarity[..., i, p(i)], for [..., n, n].

    Row i of the result is the column assigned to row i (int64, on the device of ``similarity``).
    The identity is returned where no assignment is better by more than ``keep``, relative to the
    largest entry times n: ties never move anything. Exact.
    """
    return solve(similarity, keep)[0]


def solve(similarity: torch.Tensor, keep: float = 1e-9) -> tuple[torch.Tensor, float]:
    """``assign``, and how much better than that other permutations could be at most, in all.

    It is infinite where the solver tells no duals (then ``gap`` finds it).
    """
    n = similarity.shape[-1]
    flat = similarity.reshape(-1, n, n)
    solved = [_solve(s) for s in _where_solved(flat)]
    columns = torch.from_numpy(np.array([c for c, _ in solved], np.int64).reshape(-1, n)).to(flat.device)
    own = flat.diagonal(dim1=-2, dim2=-1)
    gain = (flat.gather(-1, columns[..., None])[..., 0].double() - own.double()).sum(-1)
    largest = torch.maximum(flat.amax((-2, -1)), -flat.amin((-2, -1)))
    better = gain > keep * n * largest
    columns = torch.where(better[:, None], columns, torch.arange(n, device=flat.device))
    left = sum(slack for _, slack in solved) + float(gain[~better].clamp_min(0).sum())
    return columns.reshape(*similarity.shape[:-2], n), left


def _where_solved(flat: torch.Tensor) -> torch.Tensor:
    """Large matrices stay on their device, many small ones go to the CPU together."""
    return flat if flat.shape[-1] >= LARGE else flat.cpu()


def _solve(s: torch.Tensor) -> tuple[IntArray, float]:
    if len(s) >= LARGE:
        dead = (s.amax(1) == 0) & (s.amin(1) == 0)
        if float(dead.float().mean()) <= DEAD:
            return assign_large(s)
    values = s.cpu().numpy()
    if lapjvr is not None:
        return lapjvr(-values, return_cost=False)[1], math.inf
    return linear_sum_assignment(values, maximize=True)[1].astype(np.int64), math.inf


def gap(similarity: torch.Tensor) -> torch.Tensor:
    """How much better than the identity an assignment of [..., n, n] could be: [...] (float64).

    The bound sum_i u_i + sum_j v_j over potentials with u_i + v_j >= similarity_ij, less what the
    identity has: no assignment gains more, so zero certifies that the identity is optimal. Potentials
    are raised until none need be, which takes n rounds at most where the identity is optimal (they are
    longest paths, Bellman and Ford); when that many, or ``WORK``, are used up the bound is what it is.
    """
    own = similarity.diagonal(dim1=-2, dim2=-1).double()
    n = own.shape[-1]
    blocks = range(0, n, max(1, BLOCK * n // max(1, similarity.numel())))
    step = blocks.step
    v = torch.zeros_like(own)
    for _ in range(min(n, max(1, WORK // max(1, similarity.numel())))):
        risen = v
        for k in blocks:
            rows = slice(k, k + step)
            offers = similarity[..., rows, :] + (v - own)[..., rows, None]
            risen = torch.maximum(risen, offers.amax(-2))
        if bool((risen <= v + ROUNDING * own.abs().amax()).all()):
            break
        v = risen
    u = torch.cat([(similarity[..., k : k + step, :] - v[..., None, :]).amax(-1) for k in blocks], -1)
    return ((u - own) + v).sum(-1).clamp_min(0)
