"""Statistics of units: exact over any cut into batches, whatever the shape."""

from __future__ import annotations

import sys

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from graphmerge.repair.statistics import JointMoments, Moments, goal

Sizes = st.lists(st.integers(1, 9), min_size=1, max_size=4)


@given(Sizes, st.sampled_from([1, 2, -1]), st.floats(-50, 50))
@settings(max_examples=25, deadline=None)
def test_batches_add_up_to_the_whole(sizes: list[int], unit_dim: int, offset: float) -> None:
    x = torch.randn(sum(sizes), 3, 4, 5, generator=torch.Generator().manual_seed(sum(sizes))) + offset
    moments = Moments()
    for part in x.split(sizes):
        moments.update(part, unit_dim)
    rows = x.double().movedim(unit_dim, 0).flatten(1)
    assert moments.count == rows.shape[1]
    assert torch.allclose(torch.as_tensor(moments.mean), rows.mean(1), rtol=1e-5)
    assert torch.allclose(moments.std(), rows.std(1, correction=0), rtol=1e-4)


@pytest.mark.parametrize("unit_dim", [0, 1, 2, -1])
def test_nor_does_it_matter_in_how_many_parts_a_batch_is_taken(
    unit_dim: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    x = torch.randn(7, 3, 4, 5, generator=torch.Generator().manual_seed(0)) + 2
    found = []
    for part in (1, 130, 1 << 20):
        monkeypatch.setattr(sys.modules[Moments.__module__], "PART", part)
        moments = Moments()
        moments.update(x, unit_dim)
        found.append(moments)
    rows = x.double().movedim(unit_dim, 0).flatten(1)
    for moments in found:
        assert moments.count == rows.shape[1]
        assert torch.allclose(torch.as_tensor(moments.mean), rows.mean(1), rtol=1e-6)
        assert torch.allclose(moments.std(), rows.std(1, correction=0), rtol=1e-6)


def test_a_constant_has_no_spread_worth_the_name() -> None:
    moments = Moments()
    moments.update(torch.full((1000, 2), 3.3), -1)
    assert bool((moments.std() < 1e-6).all())


def test_joint_moments_tell_those_of_every_weighted_sum() -> None:
    torch.manual_seed(0)
    a, b = torch.randn(40, 3), torch.randn(40, 3)
    b = b + 0.5 * a
    joint = JointMoments()
    for part in (slice(0, 15), slice(15, 40)):
        joint.update((a[part], b[part]), -1)
    told, mixed = joint.mixture((0.3, 0.7)), 0.3 * a + 0.7 * b
    assert torch.allclose(torch.as_tensor(told.mean).float(), mixed.mean(0), atol=1e-6)
    assert torch.allclose(told.std().float(), mixed.std(0, correction=0), atol=1e-6)
    assert torch.allclose(joint.of(1).std().float(), b.std(0, correction=0), atol=1e-6)


def test_the_goal_lies_between_the_standard_deviations_not_the_variances() -> None:
    narrow, wide = (
        Moments(4, torch.tensor([0.0]), torch.tensor([4.0])),
        Moments(4, torch.tensor([2.0]), torch.tensor([36.0])),
    )
    mean, std = goal([narrow, wide], (0.5, 0.5))
    assert (float(mean), float(std)) == (1.0, 2.0)  # of deviations 1 and 3
