"""Parallel branches that are alike change places as wholes, with whatever picks or weighs each of them."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
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


READERS: dict[str, Callable[[Tensor], Tensor]] = {  # of what is stacked along the last dimension
    "ring": lambda h: (h * h.roll(1, -1)).sum(-1),
    "ring of keys": lambda h: _attention(h, h.roll(1, -1)),
    "ring by parts": lambda h: (h * torch.cat([h[..., 1:], h[..., :1]], -1)).sum(-1),
    "differences": lambda h: h.diff(dim=-1).square().sum(-1),
    "weights": lambda h: (h * torch.arange(COUNT)).sum(-1),
    "mask": lambda h: torch.where(torch.arange(COUNT) > 1, h, h * h).sum(-1),
    "running sum": lambda h: h.cumsum(-1).relu().sum(-1),
    "windows": lambda h: h.unfold(-1, 2, 1).prod(-1).sum(-1),
    "pool": lambda h: F.max_pool1d(h, 2, 1).sum(-1),
    "interpolation": lambda h: F.interpolate(h, size=7, mode="linear").square().sum(-1),
    "spectrum": lambda h: torch.fft.rfft(h, dim=-1).abs().pow(3).sum(-1),
    "causal attention": lambda h: _attention(h, h, is_causal=True),
}


def _attention(keys: Tensor, values: Tensor, is_causal: bool = False) -> Tensor:
    k, v = keys.transpose(1, 2), values.transpose(1, 2)
    return F.scaled_dot_product_attention(k, k, v, is_causal=is_causal).square().sum(1)


class Stacked(nn.Module):
    """Branches stacked along a new dimension, and something that reads its order."""

    def __init__(self, axis: int, read: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.branches = nn.ModuleList(nn.Linear(3, HIDDEN) for _ in range(COUNT))
        self.after, self.axis, self.read = nn.Linear(HIDDEN, 2), axis, read

    def forward(self, x: Tensor) -> Tensor:
        h = torch.stack([torch.tanh(b(x)) for b in self.branches], self.axis)
        out: Tensor = self.after(self.read(h.movedim(self.axis, -1)))
        return out


@pytest.mark.parametrize("axis", [0, 1, 2])
@pytest.mark.parametrize("read", READERS)
def test_branches_stay_where_the_order_of_their_stack_is_read(read: str, axis: int) -> None:
    graph = gm.trace(Stacked(axis, READERS[read]), (torch.randn(7, 3),), strict=True)
    assert [g.size for g in graph.groups] == [HIDDEN]


@pytest.mark.parametrize("axis", [0, 1, 2])
def test_branches_change_places_where_the_order_of_their_stack_is_not_read(axis: int) -> None:
    model = Stacked(axis, lambda h: _attention(h, h) + h.amax(-1))
    graph = gm.trace(model, (torch.randn(7, 3),), strict=True)
    assert sorted(g.size for g in graph.groups) == [COUNT, HIDDEN]
    assert gm.verify(graph, model).passed


def rolled(a: Tensor, b: Tensor) -> Tensor:
    h = torch.cat([a, b], 1)
    return torch.relu(h) + h.roll(WIDTH, 1)


def scaled(a: Tensor, b: Tensor) -> Tensor:
    return torch.cat([a, b], 1) * (a * b).sum(1, keepdim=True)


def read_along_the_batch(a: Tensor, b: Tensor) -> Tensor:
    h = torch.cat([a, b, b, a]).relu().cumsum(0)[::3]
    return torch.cat([h, h], 1)


class Pair(nn.Module):
    """Two linear maps side by side, laid one after the other, and a third."""

    def __init__(self, join: Callable[[Tensor, Tensor], Tensor]) -> None:
        super().__init__()
        self.a, self.b, self.out = nn.Linear(3, WIDTH), nn.Linear(3, WIDTH), nn.Linear(2 * WIDTH, 2)
        self.join = join

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.out(self.join(self.a(x), self.b(x)))
        return out


@pytest.mark.parametrize("join", [rolled, scaled, read_along_the_batch])
def test_what_else_ties_concatenated_branches_makes_no_false_group(
    join: Callable[[Tensor, Tensor], Tensor],
) -> None:
    model = Pair(join)
    graph = gm.trace(model, (torch.randn(7, 3),), strict=True)
    assert WIDTH in [g.size for g in graph.groups]
    assert gm.verify(graph, model).passed


def test_an_empty_part_of_a_concatenation_does_not_count() -> None:
    model = Pair(lambda a, b: torch.cat([torch.zeros(0), a, b], 1))
    graph = gm.trace(model, (torch.randn(7, 3),), strict=True)
    assert sorted(g.size for g in graph.groups) == [2, WIDTH]
    assert gm.verify(graph, model).passed


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
