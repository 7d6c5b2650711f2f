"""Mixtures of experts held in stacked tensors: experts change places with the rows of their router."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import graphmerge as gm

EXPERTS, WIDTH, HIDDEN = 4, 6, 5
Combine = Callable[["Mixture", Tensor], Tensor]


class Mixture(nn.Module):
    """Linear, a mixture of gated experts over [token, width], linear; ``combine`` routes the tokens."""

    def __init__(self, combine: Combine) -> None:
        super().__init__()
        self.before, self.after = nn.Linear(3, WIDTH), nn.Linear(WIDTH, 2)
        self.router = nn.Linear(WIDTH, EXPERTS)
        self.up = nn.Parameter(torch.randn(EXPERTS, WIDTH, HIDDEN))
        self.down = nn.Parameter(torch.randn(EXPERTS, HIDDEN, WIDTH))
        self.combine = combine

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.after(self.combine(self, self.before(x)))
        return out

    def every(self, h: Tensor) -> Tensor:
        """What each expert makes of each token: [token, expert, width]."""
        hidden = torch.einsum("tw,ewh->teh", h, self.up).tanh()
        return torch.einsum("teh,ehw->tew", hidden, self.down)


def soft(m: Mixture, h: Tensor) -> Tensor:
    return (m.router(h).softmax(-1)[..., None] * m.every(h)).sum(1)


def one_hot(m: Mixture, h: Tensor) -> Tensor:
    chosen = m.router(h).topk(2)[1]
    return (F.one_hot(chosen, EXPERTS).sum(1)[..., None] * m.every(h)).sum(1)


def scattered(m: Mixture, h: Tensor) -> Tensor:
    scores = m.router(h)
    best = scores.topk(2)
    gates = torch.zeros_like(scores).scatter(1, best.indices, best.values.softmax(-1))
    return torch.einsum("te,tew->tw", gates, m.every(h))


def gathered(m: Mixture, h: Tensor) -> Tensor:
    chosen = m.router(h).argmax(-1)
    return m.every(h).gather(1, chosen[:, None, None].expand(-1, 1, WIDTH))[:, 0]


def indexed(m: Mixture, h: Tensor) -> Tensor:
    gate, chosen = m.router(h).softmax(-1).max(-1)
    hidden = torch.bmm(h[:, None], m.up[chosen]).tanh()
    return gate[:, None] * torch.bmm(hidden, m.down[chosen])[:, 0]


def indexed_twice(m: Mixture, h: Tensor) -> Tensor:
    """The two best experts of each token: their weights are picked by an index [token, 2]."""
    gates, chosen = m.router(h).topk(2)
    hidden = torch.einsum("tw,tkwh->tkh", h, m.up[chosen]).tanh()
    served = torch.einsum("tkh,tkhw->tkw", hidden, m.down[chosen])
    return (gates.softmax(-1)[..., None] * served).sum(1)


def masked_groups(m: Mixture, h: Tensor) -> Tensor:
    """Two groups of two experts; the better group is chosen first, as in DeepSeek-V3."""
    scores = m.router(h).sigmoid()
    groups = scores.view(-1, 2, EXPERTS // 2)
    best = groups.topk(2, -1)[0].sum(-1).topk(1, -1)[1]
    mask = torch.zeros_like(groups.sum(-1)).scatter(1, best, 1.0)
    allowed = mask[..., None].expand_as(groups).reshape(-1, EXPERTS)
    chosen = scores.masked_fill(allowed == 0, 0.0).topk(1)[1]
    return torch.einsum("te,tew->tw", F.one_hot(chosen[:, 0], EXPERTS).to(h), m.every(h))


def sorted_and_back(m: Mixture, h: Tensor) -> Tensor:
    chosen = m.router(h).argmax(-1)
    order = chosen.argsort()
    inverse = order.argsort()
    served = torch.bmm(h[order][:, None], m.up[chosen[order]]).tanh()
    return torch.bmm(served, m.down[chosen[order]])[:, 0][inverse]


def sorted_and_added(m: Mixture, h: Tensor) -> Tensor:
    ids, order = m.router(h).argmax(-1).sort()
    served = torch.bmm(torch.bmm(h[order][:, None], m.up[ids]).tanh(), m.down[ids])[:, 0]
    return torch.zeros_like(h).index_add(0, order, served)


FREE = [soft, one_hot, scattered, gathered, indexed, indexed_twice, sorted_and_back, sorted_and_added]


@pytest.mark.parametrize("combine", FREE)
def test_experts_move_with_their_router_rows_and_units_within_each(combine: Combine) -> None:
    model = Mixture(combine)
    graph = gm.trace(model, (torch.randn(7, 3),), strict=True)
    (experts,) = [g for g in graph.groups if ("router.bias", 0) in g.members]
    (inside,) = [g for g in graph.groups if g.within]
    assert (experts.size, experts.copies) == (EXPERTS, 1)
    assert {("router.weight", 0), ("router.bias", 0), ("up", 0), ("down", 0)} <= set(experts.members)
    assert (inside.size, inside.copies, inside.within) == (HIDDEN, EXPERTS, (experts.name,))
    result = gm.verify(graph, model)
    assert result.passed, result.failed
    assert not result.unobservable


def test_experts_in_groups_move_within_them_and_with_them() -> None:
    model = Mixture(masked_groups)
    graph = gm.trace(model, (torch.randn(7, 3),), strict=True)
    sizes = {(g.size, g.copies) for g in graph.groups if ("router.weight", 0) in g.members}
    assert sizes == {(2, 1), (2, 2)}
    assert gm.verify(graph, model).passed


def test_experts_picked_in_two_orders_have_one_order_inside() -> None:
    """The hidden units of one expert meet those of another, so that all must agree."""

    def crossed(m: Mixture, h: Tensor) -> Tensor:
        chosen = m.router(h).topk(2)[1]
        hidden = torch.einsum("tw,tkwh->tkh", h, m.up[chosen]).tanh()
        return torch.einsum("tkh,tkhw->tw", hidden, m.down[chosen.flip(-1)])

    model = Mixture(crossed)
    graph = gm.trace(model, (torch.randn(7, 3),), strict=True)
    moved = {(g.size, g.copies) for g in graph.groups if {("up", 0), ("up", 2)} & set(g.members)}
    assert moved == {(EXPERTS, 1), (HIDDEN, 1)}
    assert gm.verify(graph, model).passed


def numbered(m: Mixture, h: Tensor) -> Tensor:
    chosen = m.router(h).topk(2)[1]
    return m.every(h).sum(1) * chosen.to(h).sum(-1, keepdim=True)


def order_seen(m: Mixture, h: Tensor) -> Tensor:
    """Tokens are weighted by their place among those sorted by expert, which changes with the numbering."""
    ids, order = m.router(h).argmax(-1).sort()
    place = torch.arange(len(h)).to(h)[:, None]
    served = torch.bmm(torch.bmm(h[order][:, None], m.up[ids]).tanh(), m.down[ids])[:, 0] * place
    return torch.zeros_like(h).index_add(0, order, served)


def halves(m: Mixture, h: Tensor) -> Tensor:
    """The number of the expert is divided."""
    chosen = m.router(h).argmax(-1) // 2
    return m.every(h).gather(1, chosen[:, None, None].expand(-1, 1, WIDTH))[:, 0]


@pytest.mark.parametrize("combine", [numbered, order_seen, halves])
def test_experts_stay_where_their_numbers_matter(combine: Combine) -> None:
    model = Mixture(combine)
    graph = gm.trace(model, (torch.randn(7, 3),), strict=True)
    assert not [g for g in graph.groups if ("router.weight", 0) in g.members]
    assert gm.verify(graph, model).passed


def test_an_expert_that_is_singled_out_stays_and_the_others_move() -> None:
    def first_is_special(m: Mixture, h: Tensor) -> Tensor:
        chosen = m.router(h).argmax(-1)
        every = (F.one_hot(chosen, EXPERTS)[..., None] * m.every(h)).sum(1)
        return torch.where((chosen == 0)[:, None], 2 * every, every)

    model = Mixture(first_is_special)
    graph = gm.trace(model, (torch.randn(7, 3),), strict=True)
    (experts,) = [g for g in graph.groups if ("router.weight", 0) in g.members]
    assert experts.size == EXPERTS - 1
    assert gm.verify(graph, model).passed


def test_a_number_out_of_range_says_nothing_of_the_experts() -> None:
    def guarded(m: Mixture, h: Tensor) -> Tensor:
        chosen = m.router(h).argmax(-1)
        return torch.where((chosen < EXPERTS)[:, None], gathered(m, h), h)

    graph = gm.trace(Mixture(guarded), (torch.randn(7, 3),), strict=True)
    assert [g.size for g in graph.groups if ("router.bias", 0) in g.members] == [EXPERTS]
