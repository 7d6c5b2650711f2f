"""Modules registered under two names, and tied parameters: one tensor, whatever it is called."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import Tensor, nn

import graphmerge as gm
from graphmerge.files import check_against_model
from graphmerge.repair import available


class Aliased(nn.Module):
    """Layers kept as attributes and in a Sequential, as is common."""

    def __init__(self) -> None:
        super().__init__()
        self.fc1, self.bn1, self.fc2 = nn.Linear(4, 8), nn.BatchNorm1d(8), nn.Linear(8, 8)
        self.net = nn.Sequential(self.fc1, self.bn1, nn.ReLU(), self.fc2, nn.ReLU(), nn.Linear(8, 3))

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.net(x)
        return out


DATA = [(torch.randn(40, 4), torch.randint(0, 3, (40,))) for _ in range(4)]


@pytest.fixture
def model() -> nn.Module:
    torch.manual_seed(0)
    return Aliased().eval()


def unchanged(model: nn.Module, before: dict[str, Tensor]) -> bool:
    parameters = all(isinstance(p, nn.Parameter) for _, p in model.named_parameters(remove_duplicate=False))
    return parameters and all(torch.equal(t, before[n]) for n, t in model.state_dict().items())


def test_running_it_under_other_weights_leaves_it_as_it_was(model: nn.Module) -> None:
    before = copy.deepcopy(model.state_dict())
    other = {n: torch.zeros_like(t) for n, t in before.items()}
    graph = gm.trace(model, (torch.randn(5, 4),))
    assert gm.verify(graph, model).passed
    assert unchanged(model, before)
    assert gm.evaluate(model, other, DATA).loss == pytest.approx(torch.tensor(3.0).log().item())
    gm.barrier(graph, model, other, DATA, points=2)
    assert unchanged(model, before)


def test_repairs_reach_every_name(model: nn.Module) -> None:
    graph = gm.trace(model, (torch.randn(5, 4),))
    assert {"bn-reset", "repair"} <= set(available(graph))
    state = model.state_dict()
    for repaired in (
        gm.reset_batchnorm(model, state, DATA),
        gm.repair(
            graph,
            {n: 0.5 * t if t.is_floating_point() else t for n, t in state.items()},
            [state, state],
            DATA,
        ),
    ):
        assert check_against_model(repaired, state, "repaired").state.keys() == state.keys()
        assert torch.equal(repaired["bn1.running_mean"], repaired["net.1.running_mean"])
        assert not torch.equal(repaired["bn1.running_mean"], state["bn1.running_mean"])


class Counting(nn.Module):
    """Counts its calls in a buffer."""

    def __init__(self) -> None:
        super().__init__()
        self.fc = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 3))
        self.register_buffer("calls", torch.zeros((), dtype=torch.int64))
        self.calls: Tensor

    def forward(self, x: Tensor) -> Tensor:
        self.calls.add_(1)
        out: Tensor = self.fc(x)
        return out


def test_buffers_that_a_call_changes_are_not_the_models_own() -> None:
    model = Counting()
    gm.verify(gm.trace(model, (torch.randn(5, 4),)), model)
    assert model.calls.item() == 0
