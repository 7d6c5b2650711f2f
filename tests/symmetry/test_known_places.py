"""Places that are told when tracing: written to, picked by a constant index, numbered on both sides."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from parts import Small, conv, linear
from torch import Tensor, nn

import graphmerge as gm

Run = Callable[[Any, Tensor], Tensor]


def sizes(run: Run, **parts: nn.Module | Tensor) -> list[int]:
    """The group sizes of a network over [5, 6], every group seen to hold."""
    torch.manual_seed(0)
    model = Small(run, **parts)
    graph = gm.trace(model, (torch.randn(5, 6),), strict=True)
    assert gm.verify(graph, model).passed
    return sorted(g.size for g in graph.groups)


def test_a_unit_that_is_written_to_stays_and_the_others_move() -> None:
    def run(m: Any, x: Tensor) -> Tensor:
        h = torch.relu(m.a(x)).clone()
        h[:, 2] = x[:, 0]
        h[:, 3:5] *= 2
        return m.b(h)

    assert sizes(run, a=linear(6, 7), b=linear(7, 2)) == [2, 4]


def test_what_is_written_with_a_stride_moves_on_its_own() -> None:
    def run(m: Any, x: Tensor) -> Tensor:
        h = torch.relu(m.a(x)).clone()
        h[:, ::2] += m.c(x)
        return m.b(h)

    assert sizes(run, a=linear(6, 7), c=linear(6, 4), b=linear(7, 2)) == [3, 4]


def test_a_constant_index_is_a_reordering() -> None:
    order = torch.tensor([3, 0, 4, 1, 2])
    assert sizes(lambda m, x: m.b(torch.relu(m.a(x))[:, order]), a=linear(6, 5), b=linear(5, 2)) == [5]


def test_units_picked_by_a_list_move_apart_from_the_others() -> None:
    def run(m: Any, x: Tensor) -> Tensor:
        h = torch.relu(m.a(x))
        return m.b(h) + m.c(h[:, [0, 2, -1]])

    assert sizes(run, a=linear(6, 7), b=linear(7, 2), c=linear(3, 2)) == [3, 4]


def test_an_index_that_is_saved_is_no_constant() -> None:
    """Another checkpoint of the same network may hold another order."""
    torch.manual_seed(0)
    model = Small(lambda m, x: m.b(torch.relu(m.a(x))[:, m.order]), a=linear(6, 5), b=linear(5, 2))
    model.register_buffer("order", torch.randperm(5))
    assert gm.trace(model, (torch.randn(5, 6),), strict=True).groups == ()


IDENTITY: dict[str, Callable[[Any], Tensor]] = {
    "added": lambda m: torch.eye(4) + m.w,
    "all but the diagonal": lambda m: m.w * (1 - torch.eye(4)),
    "numbers compared": lambda m: m.w * (torch.arange(4)[:, None] != torch.arange(4)),
    "a diagonal matrix": lambda m: torch.diag(m.w.sum(0)) + m.w,
}


@pytest.mark.parametrize("matrix", IDENTITY)
def test_the_identity_matrix_has_rows_and_columns_in_one_order(matrix: str) -> None:
    def run(m: Any, x: Tensor) -> Tensor:
        return m.b(torch.relu(m.a(x) @ IDENTITY[matrix](m)))

    assert sizes(run, a=linear(6, 4), b=linear(4, 2), w=torch.randn(4, 4)) == [4]


def test_a_triangle_and_a_rectangle_stay() -> None:
    def run(m: Any, x: Tensor) -> Tensor:
        lower = torch.arange(4)[:, None] >= torch.arange(4)
        return m.b(torch.relu(m.a(x) @ (m.w * lower) @ torch.eye(4, 3)))

    assert sizes(run, a=linear(6, 4), b=linear(3, 2), w=torch.randn(4, 4)) == []


def test_maxima_put_back_to_their_places_keep_to_their_channels() -> None:
    def run(m: Any, x: Tensor) -> Tensor:
        largest, places = F.max_pool2d(m.a(x), 2, return_indices=True)
        return m.b(F.max_unpool2d(torch.relu(largest), places, 2))

    model = Small(run, a=conv(2, 5, 1), b=conv(5, 2, 1))
    graph = gm.trace(model, (torch.randn(3, 2, 4, 4),), strict=True)
    assert [g.size for g in graph.groups] == [5]
    assert gm.verify(graph, model).passed


def test_a_check_of_the_operator_is_no_unknown_operator() -> None:
    """``torch.linalg.inv`` checks that there is an inverse."""

    def run(m: Any, x: Tensor) -> Tensor:
        return m.b(m.a(x) @ torch.linalg.inv(2 * torch.eye(4) + m.w))

    assert sizes(run, a=linear(6, 4), b=linear(4, 2), w=0.1 * torch.randn(4, 4)) == [4]


def test_what_no_float_holds_stays_and_says_so() -> None:
    torch.manual_seed(0)
    model = Small(lambda m, x: m.b(F.linear(x, m.w * m.kept)), w=torch.randn(5, 6), b=linear(5, 2))
    model.register_buffer("kept", torch.rand(5, 6) > 0.5)
    graph = gm.trace(model, (torch.randn(5, 6),), strict=True)
    (reason,) = [f.reason for f in graph.fixed if (f.parameter, f.dim) == ("w", 0)]
    assert reason == "buffer of no floats (buffer at kept)"
