"""Parallel branches that are alike change places as wholes, with whatever picks or weighs each of them."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

import graphmerge as gm

COUNT, WIDTH, HIDDEN = 4, 6, 5
Combine = Callable[["Parallel", Tensor], Tensor]


class Parallel(nn.Module):
    """A linear map, ``COUNT`` small networks side by side, a linear map."""

    def __init__(self, combine: Combine, before: int = WIDTH, after: int = WIDTH) -> None:
        super().__init__()
        self.before, self.after = nn.Linear(3, before), nn.Linear(after, 2)
        self.router = nn.Linear(WIDTH, COUNT)
        small = [
            nn.Sequential(nn.Linear(WIDTH, HIDDEN), nn.Tanh(), nn.Linear(HIDDEN, WIDTH)) for _ in range(COUNT)
        ]
        self.branches, self.combine = nn.ModuleList(small), combine

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.after(self.combine(self, self.before(x)))
        return out


def _each(m: Parallel, h: Tensor) -> list[Tensor]:
    return [branch(h) for branch in m.branches]


def summed(m: Parallel, h: Tensor) -> Tensor:
    return torch.stack(_each(m, h)).sum(0)


def added(m: Parallel, h: Tensor) -> Tensor:
    out: Tensor = sum(_each(m, h))  # type: ignore[assignment]
    return h + out


def averaged(m: Parallel, h: Tensor) -> Tensor:
    return torch.stack(_each(m, h), 1).mean(1)


def multiplied(m: Parallel, h: Tensor) -> Tensor:
    return torch.stack(_each(m, h), -1).prod(-1)


def weighed(m: Parallel, h: Tensor) -> Tensor:
    """Experts as separate modules, every one run, as in soft mixtures."""
    gates, out = m.router(h).softmax(-1), torch.zeros_like(h)
    for k, branch in enumerate(m.branches):
        out = out + gates[:, k, None] * branch(h)
    return out


def masked(m: Parallel, h: Tensor) -> Tensor:
    """Experts as separate modules, tokens chosen by comparing numbers."""
    scores, chosen = m.router(h).topk(2)
    out = torch.zeros_like(h)
    for k, branch in enumerate(m.branches):
        out = out + branch(h) * (scores * (chosen == k)).sum(-1, keepdim=True)
    return out


def stacked_and_weighed(m: Parallel, h: Tensor) -> Tensor:
    return torch.einsum("tb,tbw->tw", m.router(h).softmax(-1), torch.stack(_each(m, h), 1))


GATED = [weighed, masked, stacked_and_weighed]


@pytest.mark.parametrize("combine", [summed, added, averaged, multiplied, *GATED])
def test_branches_change_places_and_units_within_each(combine: Combine) -> None:
    model = Parallel(combine)
    graph = gm.trace(model, (torch.randn(7, 3),), strict=True)
    (inside,) = [g for g in graph.groups if g.within]
    (branches,) = [g for g in graph.groups if g.name in inside.within]
    assert (branches.size, branches.copies) == (COUNT, 1)
    assert (inside.size, inside.copies) == (HIDDEN, COUNT)
    assert (("router.bias", 0) in branches.members) == (combine in GATED)
    result = gm.verify(graph, model)
    assert result.passed
    assert not result.unobservable


def concatenated(m: Parallel, h: Tensor) -> Tensor:
    return torch.cat(_each(m, h), -1)


def chunked(m: Parallel, h: Tensor) -> Tensor:
    parts = h.chunk(COUNT, -1)
    out: Tensor = sum(b(p) for b, p in zip(m.branches, parts, strict=True))  # type: ignore[assignment]
    return out


@pytest.mark.parametrize(
    "model",
    [Parallel(concatenated, after=COUNT * WIDTH), Parallel(chunked, before=COUNT * WIDTH)],
    ids=["concatenated", "chunked"],
)
def test_blocks_of_a_concatenation_go_with_their_branch(model: Parallel) -> None:
    graph = gm.trace(model, (torch.randn(7, 3),), strict=True)
    (branches,) = [g for g in graph.groups if g.size == COUNT]
    assert (("after.weight", 1) in branches.members) != (("before.weight", 0) in branches.members)
    assert gm.verify(graph, model).passed


def unlike(m: Parallel, h: Tensor) -> Tensor:
    return torch.stack([b(h) * (k + 1) for k, b in enumerate(m.branches)]).sum(0)


def subtracted(m: Parallel, h: Tensor) -> Tensor:
    a, b, c, d = _each(m, h)
    return (a - b) - (c - d)


def chained(m: Parallel, h: Tensor) -> Tensor:
    for branch in m.branches:
        h = branch(h)
    return h


def by_place(m: Parallel, h: Tensor) -> Tensor:
    """Which of the inputs a branch is given tells it apart."""
    return torch.stack([b(h[:, k]) for k, b in enumerate(m.branches)]).sum(0)


@pytest.mark.parametrize("combine", [unlike, chained])
def test_what_is_told_apart_stays(combine: Combine) -> None:
    model = Parallel(combine)
    graph = gm.trace(model, (torch.randn(7, 3),), strict=True)
    assert not [g for g in graph.groups if g.size == COUNT]
    assert gm.verify(graph, model).passed


def test_branches_that_are_given_different_inputs_stay() -> None:
    model = Parallel(by_place)
    graph = gm.trace(model, (torch.randn(7, COUNT, 3),), strict=True)
    assert not [g for g in graph.groups if g.size == COUNT]
    assert gm.verify(graph, model).passed


def test_branches_that_are_subtracted_change_places_where_the_sign_agrees() -> None:
    model = Parallel(subtracted)
    graph = gm.trace(model, (torch.randn(7, 3),), strict=True)
    assert gm.verify(graph, model).passed


def test_the_factors_of_a_bilinear_unit_change_places() -> None:
    class Bilinear(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a, self.b, self.c = nn.Linear(3, 6), nn.Linear(3, 6), nn.Linear(6, 2)

        def forward(self, x: Tensor) -> Tensor:
            out: Tensor = self.c(self.a(x) * self.b(x))
            return out

    model = Bilinear()
    graph = gm.trace(model, (torch.randn(7, 3),))
    assert sorted(g.size for g in graph.groups) == [2, 6]
    assert gm.verify(graph, model).passed


class Grouped(nn.Module):
    """A block of ResNeXt written as eight small branches with BatchNorm."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.head = nn.Conv2d(3, 12, 1), nn.Conv2d(12, 2, 1)
        self.paths = nn.ModuleList(
            nn.Sequential(
                nn.Conv2d(12, 4, 1, bias=False), nn.BatchNorm2d(4), nn.ReLU(), nn.Conv2d(4, 12, 3, padding=1)
            )
            for _ in range(8)
        )

    def forward(self, x: Tensor) -> Tensor:
        h = self.stem(x)
        for path in self.paths:
            h = h + path(self.stem(x))
        out: Tensor = self.head(h)
        return out


class Heads(nn.Module):
    """Attention with a module for each head."""

    def __init__(self) -> None:
        super().__init__()
        self.before, self.after = nn.Linear(3, 10), nn.Linear(12, 2)
        self.heads = nn.ModuleList(nn.Linear(10, 3 * 4) for _ in range(3))

    def forward(self, x: Tensor) -> Tensor:
        h = self.before(x)
        qkv = [head(h).chunk(3, -1) for head in self.heads]
        seen = [nn.functional.scaled_dot_product_attention(q, k, v) for q, k, v in qkv]
        out: Tensor = self.after(torch.cat(seen, -1))
        return out


@pytest.mark.parametrize(
    ("model", "shape", "count"),
    [(Grouped(), (2, 3, 6, 6), 8), (Heads(), (2, 7, 3), 3)],
    ids=["ResNeXt", "heads"],
)
def test_known_blocks_written_as_branches(model: nn.Module, shape: tuple[int, ...], count: int) -> None:
    graph = gm.trace(model, (torch.randn(shape),), strict=True)
    assert [g.size for g in graph.groups if not g.within].count(count) == 1
    assert any(g.copies == count for g in graph.groups)
    result = gm.verify(graph, model)
    assert result.passed
    assert not result.unobservable


@pytest.mark.parametrize("method", ["weight", "activation"])
@pytest.mark.parametrize("combine", GATED)
def test_a_planted_exchange_of_experts_is_found_again(combine: Combine, method: str) -> None:
    torch.manual_seed(0)
    model = Parallel(combine)
    graph = gm.trace(model, (torch.randn(7, 3),))
    planted = graph.random_transform(3)
    moved = planted.apply(model.state_dict())
    data = [(torch.randn(64, 3), torch.zeros(64)) for _ in range(4)]
    alignment = gm.match(graph, model, moved, method=method, data=data)
    assert alignment.transform == planted.inverse()
    back = alignment.apply(moved)
    assert all(torch.equal(t, back[n]) for n, t in model.state_dict().items())
