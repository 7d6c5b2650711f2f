"""Operators without a rule are tried out; what holds is used and reported as tried, the rest is fixed."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import graphmerge as gm
from graphmerge.symmetry import probe as probing

runs = 0


@pytest.fixture(scope="module", autouse=True)
def operators() -> Iterator[None]:
    """Operators of a library of one's own, gone again after these tests."""
    with torch.library._scoped_library("tried", "DEF") as library:

        def define(
            schema: str, function: Callable[..., Any], shape: Callable[..., Any] | None = None
        ) -> None:
            library.define(schema)
            name = schema.partition("(")[0]
            library.impl(name, function, "CPU")
            torch.library.register_fake(f"tried::{name}", shape or function, lib=library)

        def counted(x: Tensor) -> Tensor:
            global runs
            runs += 1
            return x.tanh() * 2

        define("squash(Tensor x) -> Tensor", counted, torch.empty_like)
        define("share(Tensor x, int dim) -> Tensor", lambda x, dim: x.exp() / x.exp().sum(dim, keepdim=True))
        define(
            "apply(Tensor x, Tensor w, Tensor? b) -> Tensor",
            lambda x, w, b: x @ w.mT + (0 if b is None else b),
        )
        define("shift(Tensor x) -> Tensor", lambda x: x.roll(1, -1))
        define("halves(Tensor x) -> (Tensor, Tensor)", lambda x: (x[..., :3].clone(), x.sum(-1)))
        define("noise(Tensor x) -> Tensor", lambda x: x + torch.rand_like(x), torch.empty_like)
        define("single(Tensor x) -> Tensor", _only_float32, torch.empty_like)
        define("pick(Tensor x, Tensor rows) -> Tensor", lambda x, rows: x[..., rows])
        define("fill(Tensor x, Tensor mask, Tensor y) -> Tensor", _fill)
        define("never(Tensor x) -> Tensor", _never, torch.empty_like)
        yield


def _only_float32(x: Tensor) -> Tensor:
    if x.dtype != torch.float32:
        raise RuntimeError("float32 only")
    return x * x


def _fill(x: Tensor, mask: Tensor, y: Tensor) -> Tensor:
    return x.masked_scatter(mask, y)


def _never(_: Tensor) -> Tensor:
    raise RuntimeError("no kernel on this machine")


class Between(nn.Module):
    """A function of [batch, time, 6] between two linear maps."""

    def __init__(self, middle: Callable[[Tensor], Tensor], after: int = 6) -> None:
        super().__init__()
        self.before, self.after, self.middle = nn.Linear(5, 6), nn.Linear(after, 2), middle

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.after(self.middle(self.before(x)))
        return out


def _trace(middle: Callable[[Tensor], Tensor], after: int = 6) -> gm.ModelGraph:
    model = Between(middle, after)
    graph = gm.trace(model, (torch.randn(3, 4, 5),))
    assert gm.verify(graph, model).passed
    return graph


OPS = torch.ops.tried


def test_an_elementwise_operator_is_found_to_be_one() -> None:
    graph = _trace(lambda x: OPS.squash(x))
    assert [g.size for g in graph.groups] == [6]
    ((where, text),) = graph.probed
    assert (where.op, text) == ("tried.squash", "... -> ...")
    assert "tried.squash" in graph.summary()


def test_orders_that_vary_by_head_go_through_an_elementwise_operator_only() -> None:
    def heads(operator: Callable[[Tensor], Tensor]) -> Callable[[Tensor], Tensor]:
        return lambda x: operator(x.unflatten(-1, (2, 3))).flatten(-2)

    assert {(g.size, g.copies) for g in _trace(heads(lambda x: OPS.squash(x))).groups} == {(2, 1), (3, 2)}
    mixed = _trace(heads(lambda x: OPS.share(x, 2)))
    assert {(g.size, g.copies) for g in mixed.groups} == {(2, 1), (3, 1)}


def test_a_contraction_is_found_with_the_weights_it_binds() -> None:
    class Applied(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.one, self.two = nn.Parameter(torch.randn(7, 5)), nn.Parameter(torch.randn(2, 7))
            self.bias = nn.Parameter(torch.randn(7))

        def forward(self, x: Tensor) -> Tensor:
            out: Tensor = OPS.apply(OPS.apply(x, self.one, self.bias).relu(), self.two, None)
            return out

    model = Applied()
    graph = gm.trace(model, (torch.randn(3, 5),))
    (group,) = graph.groups
    assert set(group.members) == {("one", 0), ("bias", 0), ("two", 1)}
    assert gm.verify(graph, model).passed


@pytest.mark.parametrize(
    ("middle", "after", "why"),
    [
        (lambda x: OPS.shift(x), 6, "reorder"),
        (lambda x: OPS.halves(x)[0], 3, "reorder"),
        (lambda x: OPS.noise(x), 6, "random"),
    ],
)
def test_what_tells_positions_apart_is_fixed(
    middle: Callable[[Tensor], Tensor], after: int, why: str
) -> None:
    del why
    graph = gm.trace(Between(middle, after), (torch.randn(3, 4, 5),))
    assert not [g for g in graph.groups if ("before.weight", 0) in g.members]


def test_what_integers_and_masks_leave_unread_is_not_free() -> None:
    """Drawn as zeros they would hide that the operator reads anything."""

    class Filled(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.one, self.two, self.after = nn.Linear(5, 6), nn.Linear(5, 6), nn.Linear(6, 2)

        def forward(self, x: Tensor, mask: Tensor) -> Tensor:
            out: Tensor = self.after(OPS.fill(self.one(x), mask, self.two(x)))
            return out

    model = Filled()
    graph = gm.trace(model, (torch.randn(3, 5), torch.rand(3, 6) > 0.5))
    assert not [g for g in graph.groups if ("two.weight", 0) in g.members]
    assert gm.verify(graph, model).passed
    rows = torch.tensor([1, 0, 3, 2, 5])
    picked = gm.trace(Between(lambda x: OPS.pick(x, rows), 5), (torch.randn(3, 4, 5),))
    assert not [g for g in picked.groups if ("before.weight", 0) in g.members]


def test_an_operator_that_does_not_run_here_is_fixed_with_the_reason() -> None:
    graph = gm.trace(Between(lambda x: OPS.never(x)), (torch.randn(3, 4, 5),))
    assert not graph.groups
    ((_, reason),) = graph.pinned
    assert "tried.never" in reason
    assert "no kernel on this machine" in reason
    with pytest.raises(gm.TraceError, match="never"):
        gm.trace(Between(lambda x: OPS.never(x)), (torch.randn(3, 4, 5),), strict=True)


def test_an_operator_without_a_kernel_for_float64_is_tried_in_its_own_type() -> None:
    graph = gm.trace(Between(lambda x: OPS.single(x)), (torch.randn(3, 4, 5),))
    assert [g.size for g in graph.groups] == [6]


def test_it_is_tried_once_for_each_shape() -> None:
    probing._FOUND.clear()
    model = Between(lambda x: OPS.squash(OPS.squash(x)))
    gm.trace(model, (torch.randn(3, 4, 5),))
    before = runs
    gm.trace(model, (torch.randn(3, 4, 5),))
    assert runs == before
    gm.trace(model, (torch.randn(2, 4, 5),))
    assert runs > before


def test_an_autograd_function_is_read_through() -> None:
    class Twice(torch.autograd.Function):
        @staticmethod
        def forward(_: Any, x: Tensor) -> Tensor:
            return 2 * x

        @staticmethod
        def backward(_: Any, *grads: Tensor) -> Tensor:
            return 2 * grads[0]

    graph = _trace(lambda x: Twice.apply(x))
    assert [g.size for g in graph.groups] == [6]
    assert not graph.probed
