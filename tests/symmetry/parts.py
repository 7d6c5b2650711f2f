"""What small networks are made of, and the inputs that they take."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn


class Small(nn.Module):
    """Modules and parameters by name, and a function that runs them."""

    def __init__(self, run: Callable[..., Any], **parts: nn.Module | Tensor) -> None:
        super().__init__()
        for name, part in parts.items():
            setattr(self, name, nn.Parameter(part) if isinstance(part, Tensor) else part)
        self.run = run

    def forward(self, *inputs: Tensor) -> Any:
        return self.run(self, *inputs)


def linear(before: int, after: int, bias: bool = True) -> nn.Linear:
    return nn.Linear(before, after, bias)


def conv(before: int, after: int, size: int = 3, **options: Any) -> nn.Conv2d:
    return nn.Conv2d(before, after, size, **options)


def floats(*shapes: tuple[int, ...]) -> Callable[[], tuple[Tensor, ...]]:
    return lambda: tuple(torch.randn(s) for s in shapes)


def ids(bound: int, *shape: int) -> Callable[[], tuple[Tensor, ...]]:
    return lambda: (torch.randint(0, bound, shape),)


def heads(x: Tensor, count: int) -> Tensor:
    """[n, s, count * d] -> [n, count, s, d]"""
    return x.unflatten(-1, (count, -1)).transpose(1, 2)


def together(x: Tensor) -> Tensor:
    """[n, h, s, d] -> [n, s, h * d]"""
    return x.transpose(1, 2).flatten(2)
