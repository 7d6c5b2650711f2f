"""One memory under several names, or seen by other parts of the model: what moves, moves for all of them.

``load_state_dict`` writes into that memory, so a symmetry holds only if the live module, with the moved
weights loaded, returns what it did.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from parts import Small, linear
from torch import Tensor, nn

import graphmerge as gm


def chain(m: Any, x: Tensor) -> Tensor:
    out: Tensor = m.c(torch.relu(m.b(torch.relu(m.a(x)))))
    return out


def beside(m: Any, x: Tensor) -> Tensor:
    """A linear map, and what ``m.seen()`` says of the memory of its weight."""
    out: Tensor = m.c(torch.relu(m.a(x))) + F.linear(x, m.seen()).tanh()[:, :2]
    return out


def chained(view: Callable[[Tensor], Tensor], width: int = 6) -> nn.Module:
    """Three linear maps of which the second lies, as ``view`` tells, in the memory of the first."""
    model = Small(chain, a=linear(6, 6), b=linear(6, width), c=linear(width, 2))
    model.b.weight = nn.Parameter(view(model.a.weight.data))
    return model


def as_list() -> nn.Module:
    model = Small(beside, a=linear(6, 5), c=linear(5, 2))
    model.listed = [model.a.weight]
    model.seen = lambda: model.listed[0]
    return model


def as_attribute() -> nn.Module:
    model = Small(beside, a=linear(6, 5), c=linear(5, 2))
    model.cut = model.a.weight.data[:3]
    model.seen = lambda: model.cut
    return model


def as_lost_buffer() -> nn.Module:
    model = Small(beside, a=linear(6, 6), c=linear(6, 2))
    model.register_buffer("turned", model.a.weight.data.t(), persistent=False)
    model.seen = lambda: model.turned
    return model


def as_unread_buffer() -> nn.Module:
    model = Small(lambda m, x: m.c(torch.relu(m.a(x))), a=linear(6, 5), c=linear(5, 2))
    model.register_buffer("cut", model.a.weight.data[:3])
    return model


OTHERWISE = {
    "transposed": lambda: chained(torch.t),
    "in part": lambda: chained(lambda w: w[:3], 3),
    "in a list": as_list,
    "as an attribute": as_attribute,
    "as a buffer that is not saved": as_lost_buffer,
    "as a buffer that nobody reads": as_unread_buffer,
}


@torch.no_grad()
def change(graph: gm.ModelGraph, model: nn.Module) -> float:
    """Largest change of the live module's outputs when a random symmetry is loaded."""
    x = torch.randn(4, 6)
    before = model(x)
    model.load_state_dict(
        graph.random_transform(1).apply({n: t.clone() for n, t in model.state_dict().items()})
    )
    return float((model(x) - before).abs().max())


@pytest.mark.parametrize("case", OTHERWISE)
def test_what_is_seen_in_another_layout_stays(case: str) -> None:
    torch.manual_seed(0)
    model = OTHERWISE[case]()
    graph = gm.trace(model, (torch.randn(4, 6),))
    assert change(graph, model) < 1e-5
    reasons = [f.reason for f in graph.fixed if f.parameter == "a.weight"]
    assert len(reasons) == 2
    assert all("its memory" in r for r in reasons)


def test_two_parameters_of_one_memory_are_one_tensor() -> None:
    """``b.weight.data = a.weight.data``: the matrix has its rows and its columns in one order."""
    torch.manual_seed(0)
    model = chained(lambda w: w)
    graph = gm.trace(model, (torch.randn(4, 6),))
    assert graph.groups == ()
    assert graph.names["b.weight"] == graph.names["a.weight"] == "a.weight"
    assert change(graph, model) < 1e-5


def test_two_parameters_of_one_memory_still_move() -> None:
    torch.manual_seed(0)
    model = Small(
        lambda m, x: chain(m, m.i(x)), i=linear(6, 5), a=linear(5, 5), b=linear(5, 5), c=linear(5, 2)
    )
    model.b.weight = nn.Parameter(model.a.weight.data)
    graph = gm.trace(model, (torch.randn(4, 6),))
    (group,) = graph.groups
    members = {("i.weight", 0), ("a.weight", 0), ("a.weight", 1), ("b.bias", 0), ("c.weight", 1)}
    assert members <= set(group.members)
    assert gm.verify(graph, model).passed
    assert change(graph, model) < 1e-5


def test_parts_of_one_memory_that_do_not_meet_are_apart() -> None:
    """Recurrent layers on a GPU keep all their weights in one memory, one after the other."""
    torch.manual_seed(0)
    model = Small(chain, a=linear(6, 5), b=linear(5, 4), c=linear(4, 2))
    flat = torch.randn(5 * 6 + 4 * 5)
    model.a.weight = nn.Parameter(flat[:30].view(5, 6))
    model.b.weight = nn.Parameter(flat[30:].view(4, 5))
    graph = gm.trace(model, (torch.randn(4, 6),))
    assert [g.size for g in graph.groups] == [5, 4]
    assert change(graph, model) < 1e-5


def test_what_a_module_adds_to_its_state_dict_is_left_alone() -> None:
    class Versioned(nn.Linear):
        def get_extra_state(self) -> Any:
            return {"version": 3}

        def set_extra_state(self, state: Any) -> None:
            assert state == {"version": 3}

    model = nn.Sequential(Versioned(6, 5), nn.ReLU(), linear(5, 2))
    graph = gm.trace(model, (torch.randn(4, 6),))
    assert [g.size for g in graph.groups] == [5]
    assert gm.verify(graph, model).passed
    state = graph.random_transform(1).apply(model.state_dict())
    assert state["0._extra_state"] == {"version": 3}
    model.load_state_dict(state)


def renamed(state: dict[str, Tensor], at: str, old: str, new: str) -> None:
    state[at + new] = state.pop(at + old).t().clone()


class Saved(nn.Linear):
    """A layer of which the weight is saved transposed, under the name ``as_``."""

    def __init__(self, before: int, after: int, as_: str) -> None:
        super().__init__(before, after)
        self._register_state_dict_hook(lambda _, state, at, *__: renamed(state, at, "weight", as_))
        self._register_load_state_dict_pre_hook(lambda state, at, *_: renamed(state, at, as_, "weight"))


@pytest.mark.parametrize("name", ["weight", "kernel"])
def test_what_is_saved_in_another_form_stays(name: str) -> None:
    torch.manual_seed(0)
    model = Small(chain, a=linear(6, 5), b=Saved(5, 4, name), c=linear(4, 2))
    graph = gm.trace(model, (torch.randn(4, 6),))
    assert change(graph, model) < 1e-5
    (reason,) = [f.reason for f in graph.fixed if (f.parameter, f.dim) == ("b.weight", 1)]
    assert reason == "the state dict holds it in another form, or not at all (tensor at b.weight)"
