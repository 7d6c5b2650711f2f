"""Exact linear assignment, with a dual presolve that makes hard matrices easy.

Subtracting u_i + v_j from a cost leaves its optimal assignments unchanged. A few rounds of Sinkhorn
scaling at falling temperatures give potentials close to the optimal duals; what is left is solved
exactly. On trained weights of 1024 units and more this is several times faster than solving cold.
"""

from __future__ import annotations

import numpy as np
import torch
from scipy.optimize import linear_sum_assignment

PRESOLVE_SIZE = 1024
"""Matrices below this size are solved directly."""

_COLLISIONS = 0.4


def assign(similarity: torch.Tensor, keep: float = 1e-9) -> torch.Tensor:
    """The permutation [..., n] that maximises sum_i similarity[..., i, p(i)], for [..., n, n].

    Row i of the result is the column assigned to row i (int64, on the device of ``similarity``).
    The identity is returned where no assignment is better by more than ``keep``, relative to the
    largest entry times n: ties never move anything. Exact (Jonker-Volgenant, via scipy).
    """
    n = similarity.shape[-1]
    flat = similarity.reshape(-1, n, n)
    solved = torch.stack([_solve(s, keep) for s in flat])
    return solved.reshape(*similarity.shape[:-2], n).to(similarity.device)


def _solve(s: torch.Tensor, keep: float) -> torch.Tensor:
    n = len(s)
    values = presolve(s) if _is_hard(s) else s
    columns = torch.from_numpy(linear_sum_assignment(values.cpu().numpy(), maximize=True)[1].astype(np.int64))
    columns = columns.to(s.device)
    gain = s.gather(1, columns[:, None])[:, 0].double().sum() - s.diagonal().double().sum()
    lowest, highest = s.aminmax()
    return columns if gain > keep * n * max(-lowest, highest) else torch.arange(n, device=s.device)


def _is_hard(s: torch.Tensor) -> bool:
    """Large, and many rows want the same column (rows of zeros aside)."""
    if len(s) < PRESOLVE_SIZE:
        return False
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
