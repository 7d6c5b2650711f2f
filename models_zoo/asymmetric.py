"""Perceptrons without symmetries: fixed numbers tell the hidden units apart.

Source: Lim et al. 2024, "The Empirical Impact of Neural Parameter Symmetries, or Lack Thereof",
arXiv 2405.20231, section 3 (W-Asymmetric and sigma-Asymmetric networks). The fixed numbers are those of a
generator with a seed of its own, so that all networks of one architecture share them.
"""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise

import torch
from torch import Tensor, nn

FIXED_SEED = 2405


class FixedEntriesLinear(nn.Module):
    """A linear map in whose every row another set of entries stays fixed: M * W + (1 - M) * F."""

    mask: Tensor
    fixed: Tensor

    def __init__(
        self, fan_in: int, fan_out: int, fixed: int, scale: float, generator: torch.Generator
    ) -> None:
        """``fixed`` entries a row are normal, of deviation ``scale``; they are no part of the state dict."""
        super().__init__()
        plain = nn.Linear(fan_in, fan_out)
        self.weight, self.bias = plain.weight, plain.bias
        order = torch.rand(fan_out, fan_in, generator=generator).argsort(1)
        self.register_buffer("mask", (order >= fixed).float(), persistent=False)
        values = scale * torch.randn(fan_out, fan_in, generator=generator)
        self.register_buffer("fixed", values * (1 - self.mask), persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        return nn.functional.linear(x, self.mask * self.weight + self.fixed, self.bias)


class FixedGate(nn.Module):
    """The activation x * sigmoid(C x), with a fixed C that mixes all units."""

    mixing: Tensor

    def __init__(self, width: int, generator: torch.Generator) -> None:
        super().__init__()
        values = torch.randn(width, width, generator=generator) / width**0.5
        self.register_buffer("mixing", values, persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        return x * torch.sigmoid(nn.functional.linear(x, self.mixing))


def w_asymmetric_mlp(
    width: int = 64,
    hidden: int = 3,
    fixed: int = 8,
    scale: float = 1.0,
    features: int = 784,
    classes: int = 10,
) -> nn.Sequential:
    """ReLU layers with ``fixed`` fixed entries a row: [batch, ...] -> logits [batch, classes]."""
    generator = torch.Generator().manual_seed(FIXED_SEED)

    def layer(fan_in: int, fan_out: int) -> nn.Module:
        return FixedEntriesLinear(fan_in, fan_out, fixed, scale, generator)

    return _mlp(width, hidden, features, classes, layer, nn.ReLU)


def sigma_asymmetric_mlp(
    width: int = 64, hidden: int = 3, features: int = 784, classes: int = 10
) -> nn.Sequential:
    """Plain linear layers with the activation of ``FixedGate``: [batch, ...] -> logits [batch, classes]."""
    generator = torch.Generator().manual_seed(FIXED_SEED)
    return _mlp(width, hidden, features, classes, nn.Linear, lambda: FixedGate(width, generator))


def _mlp(
    width: int,
    hidden: int,
    features: int,
    classes: int,
    layer: Callable[[int, int], nn.Module],
    activation: Callable[[], nn.Module],
) -> nn.Sequential:
    sizes = [features] + [width] * hidden
    layers: list[nn.Module] = [nn.Flatten()]
    for fan_in, fan_out in pairwise(sizes):
        layers += [layer(fan_in, fan_out), activation()]
    return nn.Sequential(*layers, nn.Linear(sizes[-1], classes))
