"""Exact linear assignment, with a dual presolve that makes hard matrices easy, and certificates.

Subtracting u_i + v_j from a cost leaves its optimal assignments unchanged. A few rounds of Sinkhorn
scaling at falling temperatures give potentials close to the optimal duals; what is left is solved
exactly. On trained weights of 512 units and more this is several times faster than solving cold.
Where the optional package lapx is installed its solver takes the place of both.
"""

from __future__ import annotations

import numpy as np
import torch
from scipy.optimize import linear_sum_assignment

from graphmerge.axes.units import IntArray

try:
    from lap import lapjvr
except ImportError:
    lapjvr = None

PRESOLVE_SIZE = 512
"""Matrices below this size are solved directly."""

WORK = 1 << 27
"""Entries read in search of a certificate: 128 rounds at 1024 units, of which a few dozen are usual."""

_COLLISIONS = 0.4


def assign(similarity: torch.Tensor, keep: float = 1e-9) -> torch.Tensor:
    """The permutation [..., n] that maximises sum_i similarity[..., i, p(i)], for [..., n, n].

    Row i of the result is the column assigned to row i (int64, on the device of ``similarity``).
    The identity is returned where no assignment is better by more than ``keep``, relative to the
    largest entry times n: ties never move anything. Exact (Jonker-Volgenant, by scipy or lapx).
    """
    n = similarity.shape[-1]
    flat = similarity.reshape(-1, n, n)
    values = torch.stack([presolve(s) for s in flat]) if _wants_presolve(flat) else flat
    solved = np.stack([_solve(s) for s in values.cpu().numpy()]) if len(flat) else np.zeros((0, n), np.int64)
    columns = torch.from_numpy(solved).to(flat.device)
    own = flat.diagonal(dim1=-2, dim2=-1)
    gain = (flat.gather(-1, columns[..., None])[..., 0].double() - own.double()).sum(-1)
    better = gain > keep * n * flat.abs().amax((-2, -1))
    columns = torch.where(better[:, None], columns, torch.arange(n, device=flat.device))
    return columns.reshape(*similarity.shape[:-2], n)


def _solve(values: np.ndarray) -> IntArray:
    if lapjvr is not None:
        found: IntArray = lapjvr(-values, return_cost=False)[1]
        return found
    return linear_sum_assignment(values, maximize=True)[1].astype(np.int64)


def _wants_presolve(flat: torch.Tensor) -> bool:
    """scipy will solve few large matrices, in one of which many rows want the same column."""
    return lapjvr is None and flat.shape[-1] >= PRESOLVE_SIZE and any(_is_hard(s) for s in flat)


def _is_hard(s: torch.Tensor) -> bool:
    """Many rows want the same column (rows of zeros aside)."""
    live = s.abs().amax(1) > 0
    wanted = s.argmax(1)[live]
    distinct = int(torch.bincount(wanted).count_nonzero())
    return wanted.numel() > 0 and distinct < (1 - _COLLISIONS) * wanted.numel()


def presolve(s: torch.Tensor) -> torch.Tensor:
    """``s`` [n, n] less row and column potentials (float64): the same optimal assignments.

    Sinkhorn scaling with absorbed potentials at temperatures 1, 0.3 and 0.1 standard deviations.
    """
    x = s.double()
    u, v = x.new_zeros(len(x)), x.new_zeros(len(x))
    for factor in (1.0, 0.3, 0.1):
        t = factor * x.std()
        u = (x - v).amax(1)
        k = torch.exp((x - u[:, None] - v) / t)
        a, b = torch.ones_like(u), torch.ones_like(v)
        for _ in range(3):
            a = 1 / (k @ b).clamp_min(1e-300)
            b = 1 / (k.T @ a).clamp_min(1e-300)
        u, v = u - t * a.log(), v - t * b.log()
    return x - u[:, None] - v


def gap(similarity: torch.Tensor) -> torch.Tensor:
    """How much better than the identity an assignment of [..., n, n] could be: [...] (float64).

    The bound sum_i u_i + sum_j v_j over potentials with u_i + v_j >= similarity_ij, less what the
    identity has: no assignment gains more, so zero certifies that the identity is optimal. Potentials
    are raised until none need be, which takes n rounds at most where the identity is optimal (they are
    longest paths, Bellman and Ford); when that many, or ``WORK``, are used up the bound is what it is.
    """
    own = similarity.diagonal(dim1=-2, dim2=-1).double()
    v = torch.zeros_like(own)
    excess = similarity - own.to(similarity.dtype)[..., :, None]
    n = own.shape[-1]
    for _ in range(min(n, max(1, WORK // max(1, similarity.numel())))):
        risen = torch.maximum(v, (excess + v[..., :, None]).amax(-2))
        if torch.equal(risen, v):
            break
        v = risen
    u = (similarity - v[..., None, :]).amax(-1)
    return ((u - own) + v).sum(-1).clamp_min(0)
