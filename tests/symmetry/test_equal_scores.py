"""Of equal scores a choice names one by its place: where scores may be equal, what it names stays."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from parts import Small, linear
from torch import Tensor, nn

import graphmerge as gm

WIDTH, UNITS = 6, 4


def chooser(scores: Callable[[Tensor], Tensor]) -> nn.Module:
    """A table of which each input reads the row of its largest score."""

    def run(m: nn.Module, x: Tensor) -> Tensor:
        out: Tensor = m.table(scores(m.score(x)).argmax(-1))
        return out

    return Small(run, score=linear(WIDTH, UNITS), table=nn.Embedding(UNITS, 3))


MAY_BE_EQUAL: dict[str, Callable[[Tensor], Tensor]] = {
    "clipped": torch.relu,
    "clipped, then spread": lambda s: (2 * F.relu6(s)).softmax(-1),
    "signs": torch.sign,
    "whole numbers": lambda s: (s > 0).long(),
    "truth values as floats": lambda s: (s > 0).float(),
    "rounded and laid otherwise": lambda s: s.round().view(5, 2, 2).transpose(1, 2).flatten(1),
    "means of what is clipped": lambda s: torch.stack([s, -s]).relu().mean(0),
    "zeros by a mask": lambda s: s * (s > 0),
    "clipped in a branch": lambda s: torch.cond(s.sum() > 0, torch.relu, torch.neg, (s,)),
    "clipped in part": lambda s: s + s.clamp(min=0),
}

DIFFER: dict[str, Callable[[Tensor], Tensor]] = {
    "plain": lambda s: s,
    "spread": lambda s: s.softmax(-1),
    "leaking": F.leaky_relu,
    "masked": lambda s: s.masked_fill(s < s.mean(-1, keepdim=True), -torch.inf),
}


@pytest.mark.parametrize("scores", MAY_BE_EQUAL)
def test_scores_that_may_be_equal_keep_their_order(scores: str) -> None:
    model = chooser(MAY_BE_EQUAL[scores])
    graph = gm.trace(model, (torch.randn(5, WIDTH),), strict=True)
    assert graph.groups == ()
    (reason,) = [f.reason for f in graph.fixed if (f.parameter, f.dim) == ("score.weight", 0)]
    assert reason.startswith("of equal scores one is chosen by its place")


@pytest.mark.parametrize("scores", DIFFER)
def test_scores_that_differ_move_with_what_they_choose(scores: str) -> None:
    graph = gm.trace(chooser(DIFFER[scores]), (torch.randn(5, WIDTH),), strict=True)
    assert [g.size for g in graph.groups] == [UNITS]
    assert ("table.weight", 0) in graph.groups[0].members


def test_largest_values_do_not_tell_where_they_stood() -> None:
    """Only the places depend on the order of equal scores, not the values."""
    model = Small(
        lambda m, x: m.out(torch.relu(m.score(x)).topk(2)[0]), score=linear(WIDTH, UNITS), out=linear(2, 3)
    )
    graph = gm.trace(model, (torch.randn(5, WIDTH),), strict=True)
    assert [g.size for g in graph.groups] == [UNITS]


def test_a_network_behind_the_clipping_tells_the_scores_apart() -> None:
    model = chooser(lambda s: s)
    both = nn.Sequential(linear(3, WIDTH), nn.ReLU(), model)
    graph = gm.trace(both, (torch.randn(5, 3),), strict=True)
    assert sorted(g.size for g in graph.groups) == [UNITS, WIDTH]
