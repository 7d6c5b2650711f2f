"""What the tests of the command line share: a small network, and how its commands begin."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from pathlib import Path

from typer.testing import Result

NET = """
import torch
from torch import nn

class Net(nn.Module):
    def __init__(self, width=8):
        super().__init__()
        self.conv, self.norm = nn.Conv2d(1, width, 3), nn.BatchNorm2d(width)
        self.fc1, self.fc2 = nn.Linear(width * 4, 12), nn.Linear(12, 3)
        self.drop = nn.Dropout(0.5)

    def forward(self, x):
        h = torch.relu(self.norm(self.conv(x)))
        return self.fc2(self.drop(torch.relu(self.fc1(h.flatten(1)))))

@torch.library.custom_op("tinynet::opaque", mutates_args=(), schema="(Tensor x) -> Tensor")
def opaque(x):
    return x.flatten().cumsum(0).view_as(x)  # every value depends on its place: nothing can be found out

@opaque.register_fake
def _(x):
    return torch.empty_like(x)

class Opaque(nn.Module):
    def __init__(self):
        super().__init__()
        self.one, self.two = nn.Linear(4, 8), nn.Linear(8, 2)

    def forward(self, x):
        return self.two(opaque(self.one(x)))

class Branch(nn.Module):
    def __init__(self):
        super().__init__()
        self.fc = nn.Linear(4, 2)

    def forward(self, x):
        if x.sum() > 0:
            return self.fc(x)
        return self.fc(-x)

def batches(n=4, size=40):
    torch.manual_seed(0)
    return [(torch.randn(size, 1, 4, 4), torch.randint(0, 3, (size,))) for _ in range(n)]
"""
MODEL = ["--model", "tinynet:Net", "--input", "2x1x4x4"]
MERGE = ["merge", "a.safetensors", "b.safetensors", *MODEL]

Run = Callable[..., Result]
Refused = Callable[..., str]
Pair = Callable[..., list[str]]


def fingerprint(folder: Path) -> dict[str, str]:
    """Every file of a folder with its hash."""
    return {p.name: hashlib.sha256(p.read_bytes()).hexdigest() for p in sorted(folder.iterdir())}


def contents(folder: Path) -> dict[str, bytes]:
    """Everything below a folder, with its bytes; those of folders are none."""
    return {str(p.relative_to(folder)): p.read_bytes() if p.is_file() else b"" for p in folder.rglob("*")}


def text(result: Result) -> str:
    """All that was printed, on one line."""
    return " ".join((result.stdout + result.stderr).split())
