"""Two modules with the same tensors need not be the same network."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

import graphmerge as gm


def mlp(activation: nn.Module) -> nn.Module:
    return nn.Sequential(nn.Linear(4, 8), activation, nn.Linear(8, 3))


class Scaled(nn.Module):
    def __init__(self, factor: float) -> None:
        super().__init__()
        self.fc, self.factor = nn.Linear(4, 3), factor
        self.register_buffer("table", torch.tensor([factor, 1.0, 1.0]), persistent=False)
        self.table: Tensor

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.fc(x) * self.factor + self.table
        return out


def test_the_same_network_passes() -> None:
    graph = gm.trace(mlp(nn.ReLU()), (torch.randn(2, 4),))
    graph.require_same(mlp(nn.ReLU()))


@pytest.mark.parametrize(
    ("other", "seen"),
    [
        (mlp(nn.GELU()), "aten.relu.default of shape (2, 8) in 1, where the other has aten.gelu"),
        (mlp(nn.Identity()), "where the other has aten.linear"),
        (
            nn.Sequential(*mlp(nn.ReLU()), nn.ReLU()),
            "output in the model itself, where the other has aten.relu",
        ),
    ],
    ids=["activation", "one less", "one more"],
)
def test_row_28_the_first_operator_that_differs_is_named(other: nn.Module, seen: str) -> None:
    model = mlp(nn.ReLU())
    graph = gm.trace(model, (torch.randn(2, 4),))
    for call in (lambda: gm.match(graph, model, other), lambda: gm.merge(graph, [model, other])):
        with pytest.raises(gm.TraceError) as caught:
            call()
        assert caught.value.exit_code == 4
        assert seen in str(caught.value)


def test_constants_count_too() -> None:
    graph = gm.trace(Scaled(2.0), (torch.randn(2, 4),))
    graph.require_same(Scaled(2.0))
    with pytest.raises(gm.TraceError):
        graph.require_same(Scaled(3.0))
