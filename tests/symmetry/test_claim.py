"""A group that a person claims is used when the model bears it out, and refused when not."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch
from torch import Tensor, nn

import graphmerge as gm

CLAIM = [("one.weight", 0), ("one.bias", 0), ("two.weight", 1)]


@pytest.fixture(scope="module", autouse=True)
def _operator() -> Iterator[None]:
    """An operator that cannot be tried out on random inputs: it takes numbers between -1 and 1 only."""

    def arcsine(x: Tensor) -> Tensor:
        if x.abs().max() > 1:
            raise RuntimeError("not a sine")
        return x.asin()

    with torch.library._scoped_library("claimed", "DEF") as library:
        library.define("arcsine(Tensor x) -> Tensor")
        library.impl("arcsine", arcsine, "CPU")
        torch.library.register_fake("claimed::arcsine", torch.empty_like, lib=library)
        yield


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.one, self.two, self.three = nn.Linear(5, 6), nn.Linear(6, 4), nn.Linear(4, 3)

    def forward(self, x: Tensor) -> Tensor:
        h = torch.ops.claimed.arcsine(self.one(x).sin())
        out: Tensor = self.three(self.two(h).relu())
        return out


@pytest.fixture
def traced() -> tuple[Net, gm.ModelGraph]:
    model = Net()
    graph = gm.trace(model, (torch.randn(3, 5),))
    assert [g.name for g in graph.groups] == ["two"]
    return model, graph


def test_a_claim_that_holds_is_a_group_like_any_other(traced: tuple[Net, gm.ModelGraph]) -> None:
    model, graph = traced
    larger = gm.claim(graph, model, CLAIM)
    assert {g.size for g in larger.groups} == {6, 4}
    assert not [f for f in larger.fixed if (f.parameter, f.dim) in CLAIM]
    planted = larger.random_transform(1)
    alignment = gm.match(larger, model, planted.apply(model.state_dict()))
    assert alignment.transform == planted.inverse()


def test_a_claim_that_leaves_out_a_dimension_is_refused(traced: tuple[Net, gm.ModelGraph]) -> None:
    model, graph = traced
    with pytest.raises(gm.GateError, match="does not hold"):
        gm.claim(graph, model, CLAIM[::2])


@pytest.mark.parametrize(
    ("members", "message"),
    [
        ([("one.weight", 0), ("three.weight", 0)], "of one size"),
        ([("two.weight", 0)], "moved by group two already"),
        ([("four.weight", 0)], "no dimension 0 of 'four.weight'"),
    ],
)
def test_a_claim_about_other_dimensions_is_refused(
    traced: tuple[Net, gm.ModelGraph], members: list[tuple[str, int]], message: str
) -> None:
    model, graph = traced
    with pytest.raises(gm.UsageError, match=message):
        gm.claim(graph, model, members)
