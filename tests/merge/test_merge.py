"""Merging: the average, its rules for integers, and models that are permuted copies."""

from __future__ import annotations

import pytest
import torch
from torch import nn

import graphmerge as gm
from graphmerge.errors import InputError, UsageError


def test_the_average_is_the_weighted_sum_as_told() -> None:
    a, b = {"w": torch.tensor([1.0, 2.0])}, {"w": torch.tensor([3.0, 6.0])}
    assert gm.average([a, b])["w"].tolist() == [2.0, 4.0]
    assert gm.average([a, b], [0.25, 0.75])["w"].tolist() == [2.5, 5.0]
    assert gm.average([a, b], [2.0, 1.0])["w"].tolist() == [5.0, 10.0]


def test_half_precision_is_summed_in_float32() -> None:
    states = [{"w": torch.full((4,), x, dtype=torch.float16)} for x in (1.0, 1.0 + 2**-10)]
    merged = gm.average([*states, *states])["w"]
    assert merged.dtype == torch.float16
    assert merged.float().tolist() == [(torch.tensor(1.0 + 2**-11).half().float()).item()] * 4


def test_counters_take_the_maximum_and_other_integers_must_agree() -> None:
    counters = [{"bn.num_batches_tracked": torch.tensor(n)} for n in (3, 8)]
    assert gm.average(counters)["bn.num_batches_tracked"].item() == 8
    same = [{"index": torch.arange(3)} for _ in range(2)]
    assert gm.average(same)["index"].tolist() == [0, 1, 2]
    with pytest.raises(InputError, match="index"):
        gm.average([{"index": torch.arange(3)}, {"index": torch.arange(3) + 1}])


def test_differing_names_shapes_and_weights_are_refused() -> None:
    a = {"w": torch.ones(2)}
    with pytest.raises(InputError, match="only one has: v"):
        gm.average([a, {**a, "v": torch.ones(1)}])
    with pytest.raises(InputError, match="w has shapes"):
        gm.average([a, {"w": torch.ones(3)}])
    with pytest.raises(UsageError, match="one weight per model"):
        gm.average([a, a], [1.0])


def test_permuted_copies_merge_to_the_original() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(4, 16), nn.ReLU(), nn.Linear(16, 3))
    graph = gm.trace(model, (torch.randn(2, 4),))
    state = model.state_dict()
    copies = [graph.random_transform(s).apply(state) for s in (1, 2)]
    alignments = [gm.match(graph, state, c) for c in copies]
    merged = gm.merge(graph, [model, *copies], alignment=alignments)
    assert all(torch.allclose(merged[n], t, atol=1e-6) for n, t in state.items())


def test_wrong_calls_are_refused() -> None:
    model = nn.Sequential(nn.Linear(4, 6), nn.ReLU(), nn.Linear(6, 3))
    graph = gm.trace(model, (torch.randn(2, 4),))
    with pytest.raises(UsageError, match="average"):
        gm.merge(graph, [model, model], method="magic")
    with pytest.raises(UsageError, match="need 1 alignments"):
        gm.merge(graph, [model, model], alignment=[gm.match(graph, model, model)] * 2)
    with pytest.raises(UsageError, match="no tensor 'other'"):
        gm.merge(graph, [model, {**model.state_dict(), "other": torch.ones(1)}])
