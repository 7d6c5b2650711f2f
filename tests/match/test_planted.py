"""Planted symmetries come back from under noise; ``tools/planted.py`` does this for every architecture."""

from __future__ import annotations

import importlib.util

import pytest
import torch
from torch import nn

import graphmerge as gm
from models_zoo.architectures import ARCHITECTURES
from models_zoo.planting import jitter, plant, recovered
from models_zoo.registry import load

NOISE = 0.05
SUBSET = (
    "gru_stacked_bidirectional", "lstm_projected", "transformer_encoder", "unet", "groupnorm_resnet",
    "grouped_convolutions", "grouped_query_attention", "mixtral", "mixtral_batched",
)  # fmt: skip


def made(name: str) -> tuple[gm.ModelGraph, nn.Module]:
    torch.manual_seed(0)
    model = ARCHITECTURES[name].build().eval()
    args, kwargs = ARCHITECTURES[name].inputs()
    graph = gm.trace(model, args, kwargs)
    jitter(model)
    return graph, model


@pytest.mark.parametrize("name", SUBSET)
def test_units_are_recovered_under_noise(name: str) -> None:
    if importlib.util.find_spec(ARCHITECTURES[name].needs) is None:
        pytest.skip(f"{ARCHITECTURES[name].needs} is not installed")
    assert plant(*made(name), NOISE, seed=3).share > 0.99


@pytest.mark.parametrize("seed", [1, 25, 34])
def test_groups_that_hold_each_other_in_the_wrong_place_are_placed_anew(seed: int) -> None:
    """The descent ends where it began, and each group is in its best order while the other stays."""
    assert plant(*made("grouped_convolutions"), NOISE, seed).share == 1


@pytest.mark.parametrize("seed", range(3))
def test_a_trained_residual_network_is_recovered_exactly_every_time(seed: int) -> None:
    model = load("resnet20", 0)
    graph = gm.trace(model, (torch.randn(2, 1, 28, 28),))
    assert plant(graph, model, NOISE, seed).share == 1


def test_units_of_the_same_weights_may_change_places_and_no_others() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(4, 5), nn.ReLU(), nn.Linear(5, 3))
    with torch.no_grad():
        for t, dim in ((model[0].weight, 0), (model[0].bias, 0), (model[2].weight, 1)):
            t.copy_(t.index_select(dim, torch.tensor([0, 1, 0, 3, 4])))  # type: ignore[operator]
    graph = gm.trace(model, (torch.randn(2, 4),))
    (group,) = (g.name for g in graph.groups)
    for order, share in (([2, 1, 0, 3, 4], 1), ([0, 3, 2, 1, 4], 3 / 5), ([1, 2, 0, 3, 4], 3 / 5)):
        moved = graph.identity().with_targets({group: torch.tensor([order])})
        assert recovered(graph, model.state_dict(), moved) == pytest.approx(share)
