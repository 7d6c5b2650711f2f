"""A zoo small enough to check in a second: a network with BatchNorm, trained apart twice, and its data."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from typer.testing import Result

Zoo = Callable[..., Result]
"""`graphmerge zoo ...` with its words."""

NETS = '''
import torch
from torch import nn


def net(width: int = 12) -> nn.Module:
    hidden = [m for _ in range(2) for m in (nn.Linear(width, width), nn.ReLU())]
    return nn.Sequential(nn.Linear(6, width), nn.ReLU(), *hidden, nn.Linear(width, 3))


class Turned(nn.Module):
    """A roll of the samples, which leaves the units alone."""

    def __init__(self) -> None:
        super().__init__()
        self.one, self.two = nn.Linear(6, 12), nn.Linear(12, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.two(torch.relu(self.one(x)).roll(1, 0))


def batches(seed: int = 0, count: int = 4):
    """Three clouds of points in six dimensions."""
    generator = torch.Generator().manual_seed(seed)
    centres = torch.randn(3, 6, generator=torch.Generator().manual_seed(7)) * 1.5
    found = []
    for _ in range(count):
        y = torch.randint(0, 3, (64,), generator=generator)
        found.append((centres[y] + torch.randn(64, 6, generator=generator), y))
    return found


def train(seed: int) -> nn.Module:
    torch.manual_seed(seed)
    model = net()
    optimiser = torch.optim.Adam(model.parameters(), lr=0.02)
    for x, y in batches(seed, 60):
        optimiser.zero_grad()
        torch.nn.functional.cross_entropy(model(x), y).backward()
        optimiser.step()
    return model.eval()


if __name__ == "__main__":
    import sys

    from safetensors.torch import save_file

    save_file(train(int(sys.argv[1])).state_dict(), sys.argv[2])
'''

ZOO = """\
# a comment that stays
version: 1
models:
  pair:  # merging and its data
    model: toynets:net
    example_inputs: [3x6]
    data: toynets:batches(seed=1)
    test: toynets:batches(seed=2)
    match: {method: activation}
    repair: repair
    onnx: none
    tolerances: {time: 100}  # stages of milliseconds, on a machine that does other things
    train: python FOLDER/toynets.py {index} {path}
    inputs:
      - {path: pair-0.safetensors, sha256: HASH0}
      - {path: pair-1.safetensors, sha256: HASH1}
  turned:  # an architecture alone
    model: toynets:Turned
    example_inputs: [3x6]
    tolerances: {time: 100}
    onnx: none
  exported:
    model: toynets:net(width=4)
    example_inputs: [3x6]
    tolerances: {time: 100}
"""


def make(folder: Path) -> None:
    """Write the zoo: its code, two trained checkpoints, zoo.yml."""
    (folder / "toynets.py").write_text(NETS)
    scope: dict[str, Any] = {"__name__": "toynets"}
    exec(NETS, scope)
    text = ZOO.replace("FOLDER", str(folder))
    for seed in (0, 1):
        path = folder / f"pair-{seed}.safetensors"
        with torch.random.fork_rng(devices=[]):
            save_file(scope["train"](seed).state_dict(), path)
        text = text.replace(f"HASH{seed}", hashlib.sha256(path.read_bytes()).hexdigest())
    (folder / "zoo.yml").write_text(text)
