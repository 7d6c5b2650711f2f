"""Laws of networks grown at random: every group holds, every transform can be taken back."""

from __future__ import annotations

import os

import pytest
import torch
from grown import Grown, inputs
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import graphmerge as gm

SLOW = os.environ.get("GRAPHMERGE_SLOW") == "1"
EXAMPLES = int(os.environ.get("GRAPHMERGE_EXAMPLES", "400")) if SLOW else 25
KINDS = ("rows", "places", "image", "ids")


def check(choices: list[int], first: str) -> gm.ModelGraph:
    model = Grown(choices, first)
    graph = gm.trace(model, (inputs(first),), strict=True)
    result = gm.verify(graph, model)
    assert result.passed, result.failed
    state = model.state_dict()
    there = graph.random_transform(1)
    back = there.inverse()
    assert (back @ there).is_identity
    returned = back.apply(there.apply(state))
    assert all(torch.equal(returned[n], t) for n, t in state.items())
    return graph


@settings(
    max_examples=EXAMPLES, deadline=None, derandomize=not SLOW, database=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
)  # fmt: skip
@given(st.lists(st.integers(0, 10**7), min_size=2, max_size=12), st.sampled_from(KINDS))
def test_every_group_of_a_grown_network_holds(choices: list[int], first: str) -> None:
    check(choices, first)


def test_networks_grow_and_move() -> None:
    """The grown networks are no empty ones: most have steps, and groups."""
    torch.manual_seed(0)
    steps, groups = 0, 0
    for k in range(12):
        choices = torch.randint(0, 10**7, (8,), generator=torch.Generator().manual_seed(k)).tolist()
        model = Grown(choices, KINDS[k % 4])
        steps += len(model.steps)
        groups += bool(gm.trace(model, (inputs(KINDS[k % 4]),)).groups)
    assert steps >= 36
    assert groups >= 6


FOUND: dict[str, tuple[list[int], str]] = {
    "all products of two units, and one of them by itself": ([5787117, 6627714], "rows"),
    "the same, padded": ([7735329, 7415470, 4580754], "rows"),
}
"""Networks for which the engine was wrong once."""


@pytest.mark.parametrize("name", FOUND)
def test_what_was_wrong_once(name: str) -> None:
    check(*FOUND[name])
