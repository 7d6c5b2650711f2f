"""Methods that search by a loss, against brute force, planted symmetries and unrolled gradients."""

from __future__ import annotations

import itertools
import math
from typing import Any

import pytest
import torch
from torch import nn

import graphmerge as gm
from graphmerge.errors import InputError, UsageError
from graphmerge.match.objective import Path
from graphmerge.match.sinkhorn import scaled, sinkhorn
from models_zoo.architectures import ARCHITECTURES

SEARCHES = ("straight-through", "sinkhorn", "learned", "annealing")


def mlp(*sizes: int, seed: int) -> nn.Sequential:
    torch.manual_seed(seed)
    layers: list[nn.Module] = []
    for a, b in itertools.pairwise(sizes):
        layers += [nn.Linear(a, b), nn.Tanh()]
    return nn.Sequential(*layers[:-1])


def data_for(model: nn.Module, inputs: int) -> list[tuple[torch.Tensor, torch.Tensor]]:
    """Batches labelled by a model."""
    x = torch.randn(4, 64, inputs, generator=torch.Generator().manual_seed(9))
    with torch.no_grad():
        return [(batch, model(batch).argmax(-1)) for batch in x]


class TestSinkhorn:
    def test_rows_and_columns_sum_to_one_and_cold_is_assignment(self) -> None:
        x = torch.randn(3, 6, 6, generator=torch.Generator().manual_seed(0))
        p = sinkhorn(x, 1.0, 200)
        assert torch.allclose(p.sum(-1), torch.ones(3, 6), atol=1e-5)
        assert torch.allclose(p.sum(-2), torch.ones(3, 6), atol=1e-5)
        cold = sinkhorn(x.double(), 0.01, 20000)
        for k in range(3):
            best = max(itertools.permutations(range(6)), key=lambda p: float(x[k, range(6), list(p)].sum()))
            assert tuple(cold[k].argmax(-1).tolist()) == best

    @pytest.mark.parametrize("temperature", [1.0, 0.3])
    def test_the_implicit_gradient_is_that_of_the_iterations_unrolled(self, temperature: float) -> None:
        generator = torch.Generator().manual_seed(1)
        x, weight = (torch.randn(2, 5, 5, generator=generator, dtype=torch.float64) for _ in "xw")
        found = []
        for way in (sinkhorn, scaled):
            leaf = x.clone().requires_grad_()
            (weight * way(leaf, temperature, 3000).square()).sum().backward()  # type: ignore[no-untyped-call]
            found.append(leaf.grad)
        assert torch.allclose(found[0], found[1], rtol=1e-6, atol=1e-8)

    def test_the_gradient_of_a_permutation_is_finite(self) -> None:
        leaf = (1000 * torch.eye(7)).requires_grad_()
        sinkhorn(leaf, 1.0, 20).square().sum().backward()  # type: ignore[no-untyped-call]
        assert leaf.grad is not None
        assert torch.isfinite(leaf.grad).all()


class TestOnATinyNetwork:
    """Two hidden layers of 4 and 3 units: 144 combinations, all of them tried."""

    @pytest.fixture(scope="class")
    def setting(self) -> tuple[gm.ModelGraph, Any, Any, Any, float]:
        a, b = mlp(3, 4, 3, 3, seed=0), mlp(3, 4, 3, 3, seed=1)
        data = data_for(a, 3)
        graph = gm.trace(a, (data[0][0][:2],))
        path = Path(graph, a.state_dict(), b.state_dict(), data)
        best = math.inf
        for p, q in itertools.product(itertools.permutations(range(4)), itertools.permutations(range(3))):
            targets = {"0": torch.tensor([p]), "2": torch.tensor([q])}
            best = min(best, path.midpoint(graph.identity().with_targets(targets)))
        return graph, a, b.state_dict(), data, best

    def test_annealing_finds_the_best_of_all(self, setting: Any) -> None:
        graph, a, b, data, best = setting
        found = gm.match(graph, a, b, "annealing", data, begin="identity", steps=400)
        assert found.objective == pytest.approx(-best, abs=1e-7)
        assert found.start < found.objective

    @pytest.mark.parametrize("method", SEARCHES)
    @pytest.mark.parametrize("begin", ["identity", "weight"])
    def test_no_search_ends_below_its_start_or_claims_more_than_there_is(
        self, setting: Any, method: str, begin: str
    ) -> None:
        graph, a, b, data, best = setting
        found = gm.match(graph, a, b, method, data, begin=begin, steps=60, seed=3)
        assert found.start <= found.objective <= -best + 1e-7
        course = [found.start, *(s.objective for s in found.history)]
        assert course == sorted(set(course))
        midpoint = gm.average([a.state_dict(), found.apply(b)])
        losses = [
            nn.functional.cross_entropy(torch.func.functional_call(a, midpoint, (x,)), y) for x, y in data
        ]
        assert -found.objective == pytest.approx(float(torch.stack(losses).mean()), rel=1e-5)

    @pytest.mark.parametrize("method", SEARCHES)
    def test_the_seed_fixes_the_result(self, setting: Any, method: str) -> None:
        graph, a, b, data, _ = setting
        one, two = (gm.match(graph, a, b, method, data, begin="identity", steps=30, seed=5) for _ in "ab")
        assert one.transform == two.transform
        assert one.history == two.history

    def test_a_loss_of_ones_own_takes_the_place_of_cross_entropy(self, setting: Any) -> None:
        graph, a, b, data, _ = setting
        found = gm.match(
            graph, a, b, "annealing", data, steps=5, loss=lambda outputs, _: (outputs**2).mean() + 1
        )
        assert found.start < -1


@pytest.mark.parametrize(
    ("method", "options"),
    [
        ("straight-through", {}),
        ("sinkhorn", {"criterion": "l2", "steps": 100}),
        ("sinkhorn", {"criterion": "rnd", "trust": 0.1}),
    ],
)
def test_a_planted_symmetry_comes_back(method: str, options: dict[str, Any]) -> None:
    """By the distance of the outputs from those of a, which is zero there and nowhere else."""
    a = mlp(6, 12, 10, 4, seed=0)
    with torch.no_grad():
        data = [(x, a(x)) for x, _ in data_for(a, 6)]
    graph = gm.trace(a, (data[0][0][:2],))
    planted = graph.random_transform(1)
    b = planted.inverse().apply(a.state_dict())
    given = None if options.get("criterion") == "l2" else data
    found = gm.match(graph, a, b, method, given, begin="identity", loss=nn.functional.mse_loss, **options)
    assert found.transform == planted


@pytest.mark.parametrize("method", SEARCHES)
def test_heads_and_what_is_in_them_may_be_searched(method: str) -> None:
    architecture = ARCHITECTURES["vit_b_16_small"]
    models = []
    for seed in (0, 1):
        torch.manual_seed(seed)
        models.append(architecture.build().eval())
    args, kwargs = architecture.inputs()
    graph = gm.trace(models[0], args, kwargs)
    with torch.no_grad():
        classes = models[0](*args).argmax(-1)
    b = models[1].state_dict()
    found = gm.match(graph, models[0], b, method, [(args[0], classes)], steps=4, begin="identity")
    assert found.objective >= found.start
    with torch.no_grad():
        before, after = (
            torch.func.functional_call(models[1], s, args)
            for s in (models[1].state_dict(), found.apply(models[1]))
        )
    assert torch.allclose(before, after, atol=1e-4)


class Branches(nn.Module):
    """Small networks side by side: they may change places, and so may the units in each."""

    def __init__(self, seed: int) -> None:
        super().__init__()
        torch.manual_seed(seed)
        self.small = nn.ModuleList(
            nn.Sequential(nn.Linear(4, 5), nn.Tanh(), nn.Linear(5, 3)) for _ in range(4)
        )

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.stack([f(x) for f in self.small]).sum(0)


@pytest.mark.parametrize("method", ["weight", "activation", "dual", *SEARCHES])
def test_branches_held_as_separate_modules_come_back_with_their_units(method: str) -> None:
    a = Branches(0)
    with torch.no_grad():
        data = [(x, a(x).argmax(-1)) for x, _ in data_for(mlp(4, 2, seed=0), 4)]
    graph = gm.trace(a, (data[0][0][:2],))
    assert max(len(g.within) for g in graph.groups) == 1
    planted = graph.random_transform(2)
    b = planted.inverse().apply(a.state_dict())
    searched = method in SEARCHES
    found = gm.match(graph, a, b, method, data, **({"steps": 5} if searched else {}))
    assert found.transform == planted or searched
    assert found.start <= found.objective
    once = gm.match(graph, a, b, "sinkhorn", criterion="l2", begin="identity", steps=5)
    assert once.start <= once.objective


def test_the_state_of_neither_model_is_touched() -> None:
    a, b = (
        nn.Sequential(nn.Linear(4, 6), nn.BatchNorm1d(6), nn.ReLU(), nn.Linear(6, 3)).eval() for _ in "ab"
    )
    states = [{n: t.clone() for n, t in m.state_dict().items()} for m in (a, b)]
    data = data_for(a, 4)
    graph = gm.trace(a, (data[0][0][:2],))
    for method in SEARCHES:
        gm.match(graph, a, b.state_dict(), method, data, steps=5)
    for model, state in zip((a, b), states, strict=True):
        assert all(torch.equal(t, state[n]) for n, t in model.state_dict().items())
        assert not any(m.training for m in model.modules())


def test_refusals() -> None:
    a, b = mlp(3, 4, 3, seed=0), mlp(3, 4, 3, seed=1)
    graph = gm.trace(a, (torch.randn(2, 3),))
    x = torch.randn(8, 3)
    with pytest.raises(UsageError, match="sinkhorn matching needs data"):
        gm.match(graph, a, b, "sinkhorn", criterion="mid")
    with pytest.raises(InputError, match="no targets"):
        gm.match(graph, a, b, "learned", [x])
    with pytest.raises(InputError, match="8 predictions for 5 targets"):
        gm.match(graph, a, b, "learned", [(x, torch.zeros(5, dtype=torch.int64))])
    with pytest.raises(InputError, match="no batch"):
        gm.match(graph, a, b, "learned", [])
    with pytest.raises(UsageError, match="one-shot"):
        gm.match(graph, a, b, "learned", iter([(x, x)]))


@pytest.mark.parametrize("run", ["straight-through", "learned", "ode-m"])
def test_a_last_batch_of_one_example_is_refused_where_batchnorm_normalises_by_it(run: str) -> None:
    models = [nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4), nn.ReLU(), nn.Linear(4, 2)) for _ in "ab"]
    graph = gm.trace(models[0], (torch.randn(2, 3),))
    data = [(torch.randn(n, 3), torch.zeros(n, dtype=torch.int64)) for n in (4, 1)]
    a, b = (m.state_dict() for m in models)
    calls = {"ode-m": lambda: gm.merge(graph, [a, b], "ode-m", data=data)}
    call = calls.get(run, lambda: gm.match(graph, a, b, run, data, steps=3))
    with pytest.raises(InputError, match=r"batch is too small.*more than one value per channel.*last batch"):
        call()
