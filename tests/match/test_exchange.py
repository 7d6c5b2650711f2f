"""Exchanges of units that stand on both sides of a tensor: their gains are exact, and none is left over."""

from __future__ import annotations

from itertools import combinations

import numpy as np
import pytest
import torch
from torch import nn

import graphmerge as gm
from graphmerge.match.exchange import highest, mutual
from graphmerge.match.layout import Plan, plans
from graphmerge.match.weights import WeightSimilarity


class Recurrent(nn.Module):
    """One recurrent layer; the weights of an LSTM are four tables of units by units."""

    def __init__(self, kind: type[nn.RNNBase]) -> None:
        super().__init__()
        self.r, self.o = kind(3, 6, batch_first=True), nn.Linear(6, 2)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y: torch.Tensor = self.o(self.r(x)[0][:, -1])
        return y


KINDS = (nn.RNN, nn.LSTM, nn.GRU)


def setting(
    kind: type[nn.RNNBase], seed: int
) -> tuple[gm.ModelGraph, WeightSimilarity, dict[str, Plan], list[nn.Module]]:
    torch.manual_seed(seed)
    models: list[nn.Module] = [Recurrent(kind).double() for _ in range(2)]
    graph = gm.trace(models[0], (torch.randn(5, 4, 3).double(),))
    states = [graph.structure.gather({n: p.detach() for n, p in m.named_parameters()}) for m in models]
    work = plans(graph, graph.structure, graph.structure.labels)
    return graph, WeightSimilarity(*states, graph.random_transform(seed)), work, models


@pytest.mark.parametrize("kind", KINDS)
def test_the_gain_of_every_exchange_is_that_of_the_objective(kind: type[nn.RNNBase]) -> None:
    _, similarity, work, _ = setting(kind, 0)
    for plan in work.values():
        assert not plan.linear
        total, bends = similarity.total(plan.sites), similarity.bends(plan.sites)
        assert bends is not None
        own = total.diagonal(dim1=-2, dim2=-1)
        gains = total + total.mT - own[..., None] - own[..., None, :] + bends
        for fibre in range(len(total)):
            for i, j in combinations(range(total.shape[-1]), 2):
                places = np.tile(np.arange(total.shape[-1]), (len(total), 1))
                places[fibre, [i, j]] = j, i
                trial = similarity.fork()
                trial.put(trial.transform.structure.extend({plan.atom: places}), set(plan.names))
                assert float(gains[fibre, i, j]) == pytest.approx(
                    trial.objective - similarity.objective, abs=1e-9
                )


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("seed", range(3))
def test_no_exchange_improves_the_result(kind: type[nn.RNNBase], seed: int) -> None:
    graph, similarity, work, models = setting(kind, seed)
    found = gm.match(graph, *models)
    end = WeightSimilarity(similarity._a, similarity._b, found.transform)
    assert found.objective == pytest.approx(end.objective)
    for plan in work.values():
        size = graph.structure.sorts[plan.atom].size
        for i, j in combinations(range(size), 2):
            places = np.arange(size)[None].copy()
            places[0, [i, j]] = j, i
            trial = end.fork()
            trial.put(graph.structure.extend({plan.atom: places}), set(plan.names))
            assert trial.objective <= end.objective + 1e-9


def test_mutually_best_exchanges_are_disjoint_and_the_best_one_is_among_them() -> None:
    torch.manual_seed(0)
    gains = torch.randn(3, 7, 7)
    gains = gains + gains.mT
    gains.diagonal(dim1=-2, dim2=-1).zero_()
    stays = torch.arange(7).expand(3, 7)
    several, one = mutual(gains), highest(gains)
    assert torch.equal(several.gather(-1, several), stays)
    assert int((one != stays).sum()) == 2
    (moved,) = {int(f) for f, _ in (one != stays).nonzero()}
    assert torch.equal(several[moved][one[moved] != stays[0]], one[moved][one[moved] != stays[0]])
    assert torch.equal(mutual(-gains.abs()), stays)
