"""Small networks of several families, each with models fine-tuned from one base, to merge."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache

import torch
from torch import Tensor, nn

import graphmerge as gm
from models_zoo.gpt import gpt
from models_zoo.vit import vit

State = dict[str, Tensor]
Data = list[tuple[Tensor, Tensor]]


class ConvNet(nn.Module):
    """A residual block with BatchNorm, a depthwise convolution and a strided one without padding."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.norm = nn.Conv2d(1, 6, 3, padding=1), nn.BatchNorm2d(6)
        self.depth, self.norm2 = nn.Conv2d(6, 6, 3, padding=1, groups=6), nn.BatchNorm2d(6)
        self.down, self.head = nn.Conv2d(6, 8, 2, stride=2), nn.Linear(8, 4)

    def forward(self, x: Tensor) -> Tensor:
        h = torch.relu(self.norm(self.stem(x)))
        h = torch.relu(h + self.norm2(self.depth(h)))
        out: Tensor = self.head(torch.relu(self.down(h)).mean((2, 3)))
        return out


def mlp() -> nn.Module:
    return nn.Sequential(nn.Linear(5, 8), nn.ReLU(), nn.Linear(8, 7), nn.ReLU(), nn.Linear(7, 4))


@dataclass(frozen=True)
class Family:
    """A traced network, a base, two models near it, and labelled data of each."""

    graph: gm.ModelGraph
    base: State
    models: tuple[State, State]
    data: tuple[Data, ...]


def strangers(model: nn.Module, n: int = 2) -> list[State]:
    """Weights that have nothing in common, each drawn from the normal distribution."""
    return [{k: torch.randn_like(t) for k, t in model.state_dict().items()} for _ in range(n)]


def _randomised(state: State, by: float) -> State:
    """Every floating tensor moved a little; variances stay positive."""
    return {
        n: t + by * torch.rand_like(t)
        if "var" in n
        else t + by * torch.randn_like(t)
        if t.is_floating_point()
        else t.clone()
        for n, t in state.items()
    }


def _tied(graph: gm.ModelGraph, state: State) -> State:
    """Tied names hold one tensor again."""
    return {n: state[graph.names.get(n, n)] for n in state}


def _images(shape: tuple[int, ...], classes: int) -> Data:
    return [(torch.randn(12, *shape), torch.randint(0, classes, (12,))) for _ in range(2)]


def _tokens() -> Data:
    return [(torch.randint(0, 11, (6, 5)), torch.randint(0, 11, (6, 5))) for _ in range(2)]


FAMILIES: dict[str, tuple[Callable[[], nn.Module], Callable[[], Data]]] = {
    "mlp": (mlp, lambda: _images((5,), 4)),
    "cnn": (ConvNet, lambda: _images((1, 6, 6), 4)),
    "vit": (lambda: vit(7, 8, 1, 2, 12, 4), lambda: _images((1, 28, 28), 4)),
    "gpt": (lambda: gpt(11, 5, 8, 1, 2), _tokens),
}


@cache
def family(name: str, dtype: torch.dtype = torch.float64) -> Family:
    """Build one of ``FAMILIES``; float64 leaves no doubt whether two results are the same."""
    make, draw = FAMILIES[name]
    torch.manual_seed(0)
    model = make().to(dtype).eval()
    data = tuple([(x.to(dtype) if x.is_floating_point() else x, y) for x, y in draw()] for _ in range(2))
    graph = gm.trace(model, (data[0][0][0],))
    base = _tied(graph, _randomised(model.state_dict(), 0.1))
    a, b = (_tied(graph, _randomised(base, 0.2)) for _ in range(2))
    return Family(graph, base, (a, b), data)


def close(a: State, b: State, tolerance: float = 1e-9) -> bool:
    """Equal names in equal order, and tensors that are alike."""
    return list(a) == list(b) and all(
        torch.allclose(a[n].double(), b[n].double(), rtol=tolerance, atol=tolerance) for n in a
    )
