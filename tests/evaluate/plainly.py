"""Small networks that the tests of evaluation share, and plain ways to run them."""

from __future__ import annotations

import functools
from collections.abc import Callable

import torch
from torch import nn

import graphmerge as gm


def mlp(seed: int) -> nn.Sequential:
    torch.manual_seed(seed)
    return nn.Sequential(nn.Linear(5, 8), nn.ReLU(), nn.Linear(8, 6), nn.ReLU(), nn.Linear(6, 3))


class Residual(nn.Module):
    """A stem, a block around which the stream also flows, and a head."""

    def __init__(self, seed: int) -> None:
        super().__init__()
        torch.manual_seed(seed)
        self.stem, self.block, self.head = nn.Linear(5, 7), nn.Linear(7, 7), nn.Linear(7, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        h = torch.relu(self.stem(x))
        h = h + torch.relu(self.block(h))
        out: torch.Tensor = self.head(torch.tanh(h))
        return out


def conv(seed: int) -> nn.Sequential:
    torch.manual_seed(seed)
    return nn.Sequential(
        nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Flatten(), nn.Linear(64, 3)
    ).eval()


def labelled(count: int = 24, batch: int = 12) -> list[tuple[torch.Tensor, torch.Tensor]]:
    torch.manual_seed(9)
    x, y = torch.randn(count, 5), torch.randint(0, 3, (count,))
    return list(zip(x.split(batch), y.split(batch), strict=True))


@functools.cache
def traced(build: Callable[[int], nn.Module], *shape: int) -> gm.ModelGraph:
    """The graph of one of these networks at an input of this shape; traced once."""
    return gm.trace(build(0), (torch.randn(shape),))


def steps(model: nn.Sequential, x: torch.Tensor) -> list[torch.Tensor]:
    """What each module of a chain returns."""
    found = []
    for module in model:
        x = module(x)
        found.append(x.detach())
    return found


def middle(a: nn.Module, b: nn.Module, into: nn.Module, at: float = 0.5) -> nn.Module:
    """``into`` with the weights (1 - at) a + at b."""
    into.load_state_dict(gm.average([a.state_dict(), b.state_dict()], [1 - at, at]))
    return into
