"""Sinkhorn's matrix scaling as a differentiable function, its gradient by the implicit function theorem.

Source: Pena et al. 2022, Re-basin via implicit Sinkhorn differentiation, arXiv 2212.12042, section 3, after
Eisenberger et al. 2022, A unified framework for implicit Sinkhorn differentiation, arXiv 2205.06688.
"""

from __future__ import annotations

from typing import Any

import torch

RIDGE = 1e-12
"""Added to the diagonal of the backward system: at a permutation it is singular, and its right side zero."""


class _Sinkhorn(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, scores: torch.Tensor, temperature: float, iterations: int) -> torch.Tensor:
        p = scaled(scores, temperature, iterations)
        ctx.save_for_backward(p)
        ctx.temperature = temperature
        return p

    @staticmethod
    def backward(ctx: Any, gradient: torch.Tensor) -> tuple[torch.Tensor, None, None]:
        """With G = P * dL/dP: dL/dX = (G - P * (u + v)) / T, where u + v makes all row and column sums zero.

        u is eliminated; what is left is one system of n equations for v, of which a constant is free.
        """
        (p,) = ctx.saved_tensors
        wide = p.double()
        g = wide * gradient.double()
        rows, columns = wide.sum(-1), wide.sum(-2)
        share = wide / rows[..., :, None]
        system = torch.diag_embed(columns) - wide.mT @ share
        right = g.sum(-2) - (g.sum(-1)[..., None, :] @ share)[..., 0, :]
        ones = torch.ones_like(system) / system.shape[-1]  # fixes the free constant of v
        system = system + ones + RIDGE * torch.eye(system.shape[-1], dtype=wide.dtype, device=wide.device)
        v = torch.linalg.solve(system, right[..., None])[..., 0]
        u = (g.sum(-1) - (wide @ v[..., None])[..., 0]) / rows
        found = (g - wide * (u[..., :, None] + v[..., None, :])) / ctx.temperature
        return found.to(p.dtype), None, None


def scaled(scores: torch.Tensor, temperature: float, iterations: int) -> torch.Tensor:
    """exp(scores / temperature) [..., n, n], rows and columns scaled in turn to sums of one."""
    x = scores / temperature
    for _ in range(iterations):
        x = x - x.logsumexp(-1, keepdim=True)
        x = x - x.logsumexp(-2, keepdim=True)
    return x.exp()


def sinkhorn(scores: torch.Tensor, temperature: float, iterations: int) -> torch.Tensor:
    """The doubly stochastic P [..., n, n] that maximises <scores, P> + temperature * entropy(P).

    Differentiable in ``scores``; memory does not grow with the iterations. The gradient is that of the
    limit, to which P is as close as the iterations bring it.
    """
    return _Sinkhorn.apply(scores, temperature, iterations)  # type: ignore[no-any-return, no-untyped-call]
