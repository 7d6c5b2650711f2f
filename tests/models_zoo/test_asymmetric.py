"""Networks without symmetries: the engine finds that nothing moves, and it is right."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import nn

import graphmerge as gm
from models_zoo.asymmetric import FixedEntriesLinear, sigma_asymmetric_mlp, w_asymmetric_mlp
from models_zoo.mlp import mlp

SMALL = {"width": 12, "features": 9, "classes": 5}


def w_asymmetric() -> nn.Sequential:
    return w_asymmetric_mlp(fixed=3, **SMALL)


def sigma_asymmetric() -> nn.Sequential:
    return sigma_asymmetric_mlp(**SMALL)


@pytest.mark.parametrize("build", [w_asymmetric, sigma_asymmetric])
def test_nothing_moves(build: Callable[[], nn.Sequential]) -> None:
    graph = gm.trace(build(), (torch.randn(4, 9),))
    assert graph.groups == ()
    hidden = {f.reason for f in graph.fixed if f.parameter == "1.bias"}
    assert all(reason.startswith("constant of the model") for reason in hidden)
    assert hidden
    assert not graph.pinned


def test_without_the_fixed_numbers_the_same_layers_move() -> None:
    assert [g.size for g in gm.trace(mlp(width=12), (torch.randn(4, 784),)).groups] == [12, 12, 12]


@pytest.mark.parametrize("build", [w_asymmetric, sigma_asymmetric])
def test_exchanging_any_two_units_of_a_layer_changes_the_outputs(build: Callable[[], nn.Sequential]) -> None:
    torch.manual_seed(0)
    model, x = build(), torch.randn(6, 9)
    before, state = model(x), {n: t.clone() for n, t in model.state_dict().items()}
    for i in range(12):
        for j in range(i):
            order = torch.arange(12)
            order[[i, j]] = order[[j, i]]
            moved = {n: t[order] for n, t in state.items() if n.startswith("1.")}
            moved["3.weight"] = state["3.weight"][:, order]
            model.load_state_dict(state | moved)
            assert (model(x) - before).abs().max() > 1e-4


def test_networks_of_one_architecture_share_the_fixed_numbers_and_not_the_weights() -> None:
    torch.manual_seed(0)
    a, b = w_asymmetric(), w_asymmetric()
    first, second = a[1], b[1]
    assert isinstance(first, FixedEntriesLinear)
    assert isinstance(second, FixedEntriesLinear)
    assert torch.equal(first.mask, second.mask)
    assert torch.equal(first.fixed, second.fixed)
    assert not torch.equal(first.weight, second.weight)
    assert (first.mask == 0).sum(1).tolist() == [3] * 12
    assert len({tuple(row.tolist()) for row in first.fixed}) == 12
    assert not any("mask" in n or "fixed" in n for n in a.state_dict())


def test_fixed_numbers_that_are_saved_with_the_weights_are_kept_in_place_by_name() -> None:
    """In a state dict they are parts of the model like any other, and would move with its units."""
    model = w_asymmetric()
    for module in model:
        module._non_persistent_buffers_set.clear()
    graph = gm.trace(model, (torch.randn(4, 9),))
    assert len(graph.groups) == 3
    assert graph.freeze(["*.mask"]).groups == ()
