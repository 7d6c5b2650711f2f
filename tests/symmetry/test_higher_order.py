"""Operators that run subgraphs are entered: what moves outside moves inside them."""

from __future__ import annotations

import operator
from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch import Tensor, fx, nn
from torch._higher_order_ops.associative_scan import associative_scan
from torch._higher_order_ops.map import map as map_over
from torch._higher_order_ops.scan import scan
from torch._higher_order_ops.while_loop import while_loop
from torch._higher_order_ops.wrap import tag_activation_checkpoint
from torch.fx.experimental.proxy_tensor import make_fx
from torch.nn.attention.flex_attention import flex_attention
from torch.utils.checkpoint import checkpoint

import graphmerge as gm
from graphmerge.axes import RULES, Universe, Value
from graphmerge.symmetry.build import build
from graphmerge.symmetry.propagate import Reader

WIDTH = 6
Middle = Callable[["Between", Tensor], Tensor]


class Between(nn.Module):
    """Something that runs a subgraph, between two linear maps of [batch, time, channels]."""

    def __init__(self, middle: Middle) -> None:
        super().__init__()
        self.before, self.after = nn.Linear(5, WIDTH), nn.Linear(WIDTH, 2)
        self.gain = nn.Parameter(torch.ones(WIDTH))
        self.middle = middle

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.after(self.middle(self, self.before(x)))
        return out


def condition(m: Between, h: Tensor) -> Tensor:
    out: Tensor = torch.cond(m.before.bias.sum() > 0, lambda h: h * m.gain, lambda h: h.tanh() - m.gain, (h,))
    return out


def loop(m: Between, h: Tensor) -> Tensor:
    start = (torch.tensor(0), torch.zeros_like(h))
    out: Tensor = while_loop(lambda i, _: i < 3, lambda i, s: (i + 1, s + m.gain * h.tanh()), start)[1]
    return out


def scanned(m: Between, h: Tensor) -> Tensor:
    def step(carry: Tensor, x: Tensor) -> tuple[Tensor, Tensor]:
        return carry + m.gain * x, (carry * x).tanh()

    last, each = scan(step, torch.zeros(len(h), WIDTH), h, dim=1)
    out: Tensor = each.reshape(h.shape) + last[:, None]
    return out


def combined(_: Between, h: Tensor) -> Tensor:
    out: Tensor = associative_scan(lambda a, b: a * b, h, dim=1, combine_mode="generic")
    return out


def mapped(_: Between, h: Tensor) -> Tensor:
    out: Tensor = map_over(lambda x: x.tanh() * 2, h)
    return out


def checkpointed(m: Between, h: Tensor) -> Tensor:
    out: Tensor = checkpoint(lambda x: x.relu() * m.gain, h, use_reentrant=False)
    return out


def autocast(m: Between, h: Tensor) -> Tensor:
    with torch.autocast("cpu", enabled=False):
        return h.relu() * m.gain


def no_grad(m: Between, h: Tensor) -> Tensor:
    with torch.no_grad():
        return h.relu() * m.gain


@pytest.mark.parametrize(
    "middle", [condition, loop, scanned, combined, mapped, checkpointed, autocast, no_grad]
)
def test_the_units_of_both_sides_are_one_group(middle: Middle) -> None:
    model = Between(middle)
    graph = gm.trace(model, (torch.randn(3, 4, 5),), strict=True)
    (group,) = graph.groups
    assert group.size == WIDTH
    assert {("before.weight", 0), ("after.weight", 1)} <= set(group.members)
    result = gm.verify(graph, model)
    assert result.passed
    assert not result.unobservable


def test_what_a_branch_singles_out_stays() -> None:
    def first(_: Between, h: Tensor) -> Tensor:
        out: Tensor = torch.cond(h.sum() > 0, lambda h: h + h[..., :1], lambda h: h.clone(), (h,))
        return out

    graph = gm.trace(Between(first), (torch.randn(3, 4, 5),), strict=True)
    assert [g.size for g in graph.groups] == [WIDTH - 1]


class Flexible(nn.Module):
    """Four query heads of 3, two of keys and values; the score may depend on the number of the head."""

    def __init__(self, by_head: bool) -> None:
        super().__init__()
        self.q, self.k, self.v = nn.Linear(5, 12), nn.Linear(5, 6), nn.Linear(5, 6)
        self.out, self.by_head = nn.Linear(12, 2), by_head

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = (f(x).view(*x.shape[:2], -1, 3).transpose(1, 2) for f in (self.q, self.k, self.v))

        def score(s: Tensor, b: Tensor, h: Tensor, i: Tensor, j: Tensor) -> Tensor:  # noqa: ARG001
            return torch.where(i >= j, s * (h + 1) if self.by_head else s, -float("inf"))

        seen = flex_attention(q, k, v, score_mod=score, enable_gqa=True)
        out: Tensor = self.out(seen.transpose(1, 2).flatten(2))
        return out


@pytest.mark.parametrize("by_head", [False, True])
def test_heads_of_flex_attention_move_unless_their_number_counts(by_head: bool) -> None:
    model = Flexible(by_head)
    with torch.no_grad():
        graph = gm.trace(model, (torch.randn(2, 7, 5),), strict=True)
        assert [g.size for g in graph.groups if g.size == 2] == ([] if by_head else [2, 2])
        assert {g.size for g in graph.groups} >= {3}
        assert gm.verify(graph, model).passed


def _kept_whole(op: object, *before: object, several: bool) -> tuple[Universe, Value, Value]:
    """A graph that torch.export makes on other devices only: ``op`` on a body and x [7, 6]."""
    two = make_fx(lambda a, b: [a * b])(torch.ones(6), torch.ones(6))
    one = make_fx(lambda a: [a.tanh()])(torch.ones(7, 6))
    root, graph = nn.Module(), fx.Graph()
    root.body = two if several else one
    x = graph.placeholder("x")
    body = graph.get_attr("body")
    call = graph.call_function(op, (body, *before, [x], ()) if several else (body, *before, x))  # type: ignore[arg-type]
    call.meta["val"] = [torch.empty(7, 6)]
    graph.output((graph.call_function(operator.getitem, (call, 0)),))
    u, value = Universe(), Value("x", (7, 6), None)
    (result,) = Reader(u, RULES).read(fx.GraphModule(root, graph), {"x": value})
    return u, value, result


HIGHER = torch.ops.higher_order


@pytest.mark.parametrize(
    ("op", "before", "several"),
    [
        (HIGHER.associative_scan, (), True),
        (tag_activation_checkpoint, (), False),
        (HIGHER.invoke_subgraph, ("r",), False),
    ],
    ids=["associative_scan", "checkpoint", "invoke_subgraph"],
)
def test_what_is_kept_whole_elsewhere_is_entered_too(
    op: object, before: tuple[object, ...], several: bool
) -> None:
    u, x, y = _kept_whole(op, *before, several=several)
    assert not u.pinned
    structure = build(u, {"x": x, "y": y})
    moving = [structure.sorts[k].size for k in structure.atoms]
    assert sorted(moving) == ([6] if several else [6, 7])
    assert structure.labels["x"][1] is not None
    assert np.array_equal(structure.labels["x"][1].ravel(), structure.labels["y"][1].ravel())  # type: ignore[union-attr]
    assert (structure.labels["y"][0] is None) == several
