"""Inference is near-linear in the size of the graph: twice the layers, about twice the work."""

from __future__ import annotations

import sys
from collections.abc import Callable
from types import FrameType
from typing import Any

import pytest
import torch
from torch import nn

from graphmerge.axes import RULES
from graphmerge.cli.picture import draw
from graphmerge.symmetry.build import build
from graphmerge.symmetry.graph import ModelGraph
from graphmerge.symmetry.modules import module_tree
from graphmerge.symmetry.propagate import propagate
from graphmerge.symmetry.unread import unread
from graphmerge.trace import export_program

WIDTH = 16


def transformer(layers: int) -> tuple[nn.Module, torch.Tensor]:
    one = nn.TransformerEncoderLayer(WIDTH, 2, 24, batch_first=True, norm_first=True)
    body = nn.TransformerEncoder(one, layers, enable_nested_tensor=False)
    return nn.Sequential(nn.Linear(5, WIDTH), body, nn.Linear(WIDTH, 3)), torch.randn(3, 7, 5)


class Shuffled(nn.Module):
    """Channel shuffle: many fixed axes, and groups tied over long distances."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(WIDTH, WIDTH, 3, padding=1, groups=4)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = torch.relu(self.conv(x))
        return x.view(x.shape[0], 4, 4, *x.shape[2:]).transpose(1, 2).reshape(x.shape)


def shuffled(layers: int) -> tuple[nn.Module, torch.Tensor]:
    return nn.Sequential(nn.Conv2d(3, WIDTH, 1), *(Shuffled() for _ in range(layers))), torch.randn(
        2, 3, 5, 5
    )


def calls(work: Callable[[], object]) -> int:
    """How many functions are called: unlike seconds, the same on every machine and under any load."""
    count = 0

    def see(_frame: FrameType, event: str, _value: Any) -> None:
        nonlocal count
        count += event in ("call", "c_call")

    sys.setprofile(see)
    try:
        work()
    finally:
        sys.setprofile(None)
    return count


def work_of(made: tuple[nn.Module, torch.Tensor]) -> dict[str, int]:
    """Calls of each step from the traced graph to what is shown of it."""
    model, x = made
    program = export_program(model.eval(), (x,))
    found: dict[str, int] = {}
    kept: dict[str, Any] = {}

    def step(name: str, work: Callable[[], object]) -> None:
        found[name] = calls(lambda: kept.update({name: work()}))

    step("facts", lambda: propagate(program))
    step("structure", lambda: build(kept["facts"].universe, kept["facts"].parameters, kept["facts"].branches))
    step("unread", lambda: unread(kept["structure"], program, kept["facts"]))
    graph = ModelGraph(model, program, kept["structure"], kept["facts"], RULES)
    step("groups", lambda: graph.groups)
    step("fixed", lambda: graph.fixed)
    step("tree", lambda: module_tree(graph.structure.labels, graph.groups, graph.fixed))
    step("explanation", lambda: graph.explain(*graph.groups[0].members[0]))
    step("picture", lambda: draw(graph))
    return found


@pytest.mark.parametrize("family", [transformer, shuffled])
def test_twice_the_layers_are_about_twice_the_work(
    family: Callable[[int], tuple[nn.Module, torch.Tensor]],
) -> None:
    small, large = (work_of(family(n)) for n in (5, 10))
    grown = {name: round(large[name] / small[name], 2) for name in small}
    assert max(grown.values()) < 2.4, grown
