"""Small networks with something wrong, or unusual, about them."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import nn


class Mlp(nn.Module):
    """Four inputs, eight hidden units, three classes."""

    def __init__(self, classes: int = 3) -> None:
        super().__init__()
        self.fc1, self.fc2 = nn.Linear(4, 8), nn.Linear(8, classes)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.fc2(torch.relu(self.fc1(x)))


class Tanh(Mlp):
    """The same tensors in another network."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.fc2(torch.tanh(self.fc1(x)))


class Tied(nn.Module):
    """Encoder and decoder share one weight."""

    def __init__(self) -> None:
        super().__init__()
        self.up, self.down = nn.Linear(4, 8, bias=False), nn.Linear(4, 8, bias=False)
        self.down.weight = self.up.weight

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.relu(self.up(x)) @ self.down.weight


class Table(Mlp):
    """A buffer of integers that decides the order of the inputs."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("order", torch.arange(4))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return super().forward(x[:, self.order])


class Complex(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.w = nn.Parameter(torch.randn(4, 3, dtype=torch.complex64))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return (x.to(torch.complex64) @ self.w).abs()


class Noisy(Mlp):
    """Dropout that evaluation mode does not switch off."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.fc2(F.dropout(torch.relu(self.fc1(x)), 0.5, training=True))


class Hum(Mlp):
    """Outputs that differ from run to run by little."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        out = super().forward(x)
        return out + 1e-7 * torch.rand_like(out)


def in_training(dropout: float = 0.9) -> nn.Module:
    """A network with dropout that was left in training mode."""
    made = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Dropout(dropout), nn.Linear(8, 3))
    return made.train()


def greedy() -> nn.Module:
    """More memory than there is."""
    return nn.Linear(1 << 28, 1 << 28)


def batches(n: int = 4, size: int = 40, width: int = 4, one: bool = False, nan: bool = False):  # type: ignore[no-untyped-def]
    """Batches for the networks above: all of one class, or with a NaN in the last, if so wanted."""
    torch.manual_seed(0)
    made = [(torch.randn(size, width), torch.randint(0, 3, (size,))) for _ in range(n)]
    if one:
        made = [(x, torch.full_like(y, 2)) for x, y in made]
    if nan:
        made[-1][0][0, 0] = torch.nan
    return made


def doubles():  # type: ignore[no-untyped-def]
    """Batches of another dtype than the network takes."""
    return [(x.double(), y) for x, y in batches()]


def from_one():  # type: ignore[no-untyped-def]
    """Batches whose classes are counted from 1."""
    return [(x, y + 1) for x, y in batches()]


def fractions():  # type: ignore[no-untyped-def]
    """Batches whose targets are numbers."""
    return [(x, y / 2) for x, y in batches()]


def fewer():  # type: ignore[no-untyped-def]
    """Batches with a target too few."""
    return [(x, y[1:]) for x, y in batches()]


def without_targets():  # type: ignore[no-untyped-def]
    """Batches of inputs alone."""
    return [(x,) for x, _ in batches()]


def ragged():  # type: ignore[no-untyped-def]
    """Batches of different sizes."""
    return [(x[: 40 - 3 * k], y[: 40 - 3 * k]) for k, (x, y) in enumerate(batches(n=6))]


def nothing():  # type: ignore[no-untyped-def]
    """A loader that forgot to return."""


def bare():  # type: ignore[no-untyped-def]
    """Batches that are tensors."""
    return [x for x, _ in batches()]
