"""ODE-M: cases worked by hand, and against a plain writing of the published algorithm."""

from __future__ import annotations

import copy
import itertools
import math
from functools import cache
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from families import Data, State, close, family
from torch import Tensor, nn
from torch.nn.utils import parameters_to_vector, vector_to_parameters

import graphmerge as gm
from graphmerge.errors import InputError, UsageError
from graphmerge.merge import merge_with_report
from graphmerge.merge.ode import rectified


class Numbers(nn.Module):
    """A network that is one vector of weights, to work by hand."""

    def __init__(self, size: int) -> None:
        super().__init__()
        self.w = nn.Parameter(torch.zeros(size).double())

    def forward(self, x: Tensor) -> Tensor:
        return x * self.w


@cache
def numbers(size: int) -> gm.ModelGraph:
    return gm.trace(Numbers(size).double(), (torch.randn(2, size).double(),))


def task(x: list[float], y: list[float]) -> Data:
    """Data of one example: the loss "mse" is the mean of (x w - y)^2."""
    return [(torch.tensor([x]).double(), torch.tensor([y]).double())]


def by_hand(models: list[list[float]], tasks: list[Data], **more: Any) -> tuple[list[float], dict[str, Any]]:
    """Merge models of one vector each."""
    states = [{"w": torch.tensor(values).double()} for values in models]
    more = {"loss": "mse", **more}
    result, report = merge_with_report(numbers(len(models[0])), states, "ode-m", own_data=tasks, **more)
    return [round(x, 5) for x in result["w"].tolist()], dict(report.notes)


INDIFFERENT = task([0, 0], [0, 0])
"""No weight changes the loss."""


@pytest.mark.parametrize("step", [0.05, 0.3, 1.0])
def test_where_no_loss_has_a_say_it_is_the_weighted_average(step: float) -> None:
    models = [[1.0, 2.0], [3.0, 6.0], [5.0, -2.0]]
    for weights in ((1, 1, 1), (3, 1, 0), (0, 1, 2), (5, 1, 2)):
        found, notes = by_hand(models, [INDIFFERENT] * 3, weights=weights, step=step)
        expected = torch.tensor(models).T @ torch.tensor(weights).float() / sum(weights)
        assert found == pytest.approx(expected.tolist(), abs=1e-5)
        assert notes["refused"] == notes["shortened"] == 0


class TestTwoTasksOfOneWeightEach:
    """The first model's loss is (w1 + 1)^2 / 2 at w = (0, 0), the second's (w2 - 1)^2 / 2 at (1, 1)."""

    def setup_method(self) -> None:
        self.models = [[0.0, 0.0], [1.0, 1.0]]
        self.tasks = [task([1, 0], [-1, 0]), task([0, 1], [0, 1])]

    def test_the_way_that_would_harm_the_first_is_not_taken(self) -> None:
        # the velocity (1, 1) loses its first entry: half of the way to the second model, w2 alone
        for step in (0.01, 1.0):
            found, notes = by_hand(self.models, self.tasks, descent=0, step=step)
            assert found == pytest.approx([0, 0.5], abs=1e-5)
        assert notes["losses"] == pytest.approx([0.5, 0.125], abs=1e-5)

    def test_the_pull_down_the_losses_adds_to_the_velocity(self) -> None:
        # gradients (1, 0) and (0, -1): the pull has the length 0.24 |(1, 1)|, so it is (-0.24, 0.24)
        found, notes = by_hand(self.models, self.tasks, step=1)
        assert found == pytest.approx([0, 0.62], abs=1e-5)
        assert notes == {"losses": pytest.approx([0.5, 0.0722], abs=1e-5)} | {
            "steps": 1, "shortened": 0, "refused": 0,
        }  # fmt: skip

    def test_shares_say_how_far_it_goes(self) -> None:
        found, notes = by_hand(self.models, self.tasks, descent=0, weights=(3, 1))
        assert found == pytest.approx([0, 0.25], abs=1e-5)
        assert notes["steps"] == 25


@pytest.mark.parametrize(("budget", "tries"), [(5.0, 0), (3.2, 1), (0.08, 7), (0.01, None)])
def test_a_step_over_a_barrier_is_shortened_or_refused(budget: float, tries: int | None) -> None:
    """From 0 to 1 the loss sin(pi w)^2 is 0 at both ends; one step would lead to its top at 1/2."""
    data, models = [task([1.0], [0.0])] * 2, [[0.0], [1.0]]
    found, notes = by_hand(
        models, data, step=1, budget=budget, loss=lambda outputs, _: (math.pi * outputs).sin().square()
    )
    if tries is None:  # even 0.7^7 of the step leads to 0.0167, more than a quarter of the budget
        assert found == [0]
        assert notes["refused"] == 1
    else:  # the first of the tries of at most a quarter of the budget
        assert found == pytest.approx([0.5 * 0.7**tries], abs=1e-5)
        assert notes["shortened"] == (tries > 0)


def nearest(v: Tensor, gradients: list[Tensor], bounds: list[float]) -> Tensor:
    """The quadratic program, by every set of bounds that may hold with equality."""
    best = None
    for size in range(len(gradients) + 1):
        for chosen in map(list, itertools.combinations(range(len(gradients)), size)):
            g = torch.stack([gradients[j] for j in chosen]) if chosen else v.new_zeros(0, len(v))
            b = v.new_tensor([bounds[j] for j in chosen])
            found = v - g.T @ torch.linalg.solve(g @ g.T, g @ v - b)
            fits = all(float(h @ found) <= c + 1e-9 for h, c in zip(gradients, bounds, strict=True))
            if fits and (best is None or (found - v).norm() < (best - v).norm()):
                best = found
    assert best is not None
    return best


@pytest.mark.parametrize("seed", range(20))
def test_the_rectified_velocity_is_the_nearest_within_all_bounds(seed: int) -> None:
    torch.manual_seed(seed)
    tasks = 1 + seed % 4
    v, gradients = torch.randn(6).double(), torch.randn(tasks, 6).double() * 10.0 ** (seed % 5 - 2)
    bounds = -torch.rand(tasks).double() * (seed % 2)
    expected = nearest(v, list(gradients), bounds.tolist())
    assert torch.allclose(rectified(v, gradients, bounds), expected, atol=1e-4)


def test_no_gradient_bounds_nothing_and_equal_ones_bound_once() -> None:
    v = torch.tensor([1.0, 2.0])
    assert torch.equal(rectified(v, torch.zeros(2, 2), torch.tensor([0.0, -1.0])), v)
    twice = rectified(v, torch.tensor([[1.0, 0.0]] * 2), torch.zeros(2))
    assert torch.allclose(twice, torch.tensor([0.0, 2.0]), atol=1e-5)


def plain(
    model: nn.Module, states: list[State], tasks: list[Data], step: float, budget: float, descent: float
) -> Tensor:
    """The published algorithm on a network without buffers, with all tasks bounded by all their data."""
    model = copy.deepcopy(model).requires_grad_()
    models = [parameters_to_vector([s[n] for n, _ in model.named_parameters()]) for s in states]

    def loss(x: Tensor, data: Data) -> Tensor:
        vector_to_parameters(x, model.parameters())
        return torch.stack([F.cross_entropy(model(a), y) for a, y in data]).mean()

    def value(x: Tensor, data: Data) -> float:
        return loss(x, data).item()

    x = models[0]
    for k, goal in enumerate(models[1:], 2):
        seen = tasks[:k]
        first, last = ([value(z, data) for data in seen] for z in (x, goal))
        steps = math.ceil(1 / k / step)
        h = 1 / k / steps
        for i in range(steps):
            t, after = i * h, (i + 1) * h
            now = [value(x, data) for data in seen]
            allowed = [
                (1 - after) * a + after * b + budget * (1 - after) ** 2
                for a, b in zip(first, last, strict=True)
            ]
            gradients = [
                parameters_to_vector(torch.autograd.grad(loss(x, data), list(model.parameters())))
                for data in seen
            ]
            u = (goal - x) / (1 - t)
            pull = torch.stack([g / g.norm() ** 0.25 for g in gradients]).mean(0)
            pulled = u - descent * u.norm() / pull.norm() * pull
            v = nearest(pulled, gradients, [min((m - c) / h, 0) for m, c in zip(allowed, now, strict=True)])
            for tried in range(8):
                there = x + h * 0.7**tried * v
                if all(value(there, data) <= m for data, m in zip(seen, allowed, strict=True)):
                    x = there
                    break
    return x


@pytest.mark.parametrize("options", [
    {"step": 0.05, "budget": 0.08, "descent": 0.24},
    {"step": 0.01, "budget": 0.0, "descent": 0.1},
    {"step": 0.1, "budget": 0.0, "descent": 0.0},
    {"step": 0.1, "budget": 0.0, "descent": 4.0},
], ids=str)  # fmt: skip
def test_an_mlp_is_merged_as_published(options: dict[str, float]) -> None:
    f = family("mlp")
    states, tasks = [*f.models, f.base], [*f.data, f.data[0][:1]]
    result = gm.merge(f.graph, states, "ode-m", own_data=tasks, **options)
    found = parameters_to_vector([result[n] for n, _ in f.graph.model.named_parameters()])
    assert torch.allclose(found, plain(f.graph.model, states, tasks, **options), atol=1e-5)
    assert not close(result, gm.average(states), 1e-3)


@pytest.mark.parametrize("name", ["mlp", "vit", "gpt"])
def test_no_task_ends_above_its_allowance(name: str) -> None:
    f = family(name)
    model = f.graph.model
    before = copy.deepcopy(model.state_dict())
    result, report = merge_with_report(f.graph, f.models, "ode-m", own_data=f.data, step=0.1)
    assert close(model.state_dict(), before, 0)
    for k, data in enumerate(f.data):
        here, there, merged = (gm.evaluate(model, s, data).loss for s in (*f.models, result))
        assert merged <= (here + there) / 2 + 0.08 / 4
        assert report.notes["losses"][k] == pytest.approx(merged)
    assert close(gm.merge(f.graph, f.models, "ode-m", own_data=f.data, step=0.1), result, 0)


def test_tensors_go_as_far_as_their_own_shares_say_and_those_of_one_model_stay_its_own() -> None:
    f = family("mlp")
    a, b = f.models
    shares = {"0.*": (1, 0), "2.*": (0, 1), "4.bias": (3, 1)}
    silent = [[(torch.zeros_like(x), y) for x, y in d] for d in f.data]  # no weight of the first layer counts
    result = gm.merge(f.graph, f.models, "ode-m", weights=shares, own_data=silent)
    for name, owner in (("0.weight", a), ("0.bias", a), ("2.weight", b), ("2.bias", b)):
        assert torch.equal(result[name], owner[name])
    one_step = gm.merge(
        f.graph, f.models, "ode-m", weights=shares, own_data=f.data, step=1, descent=0, budget=1e6,
        loss=lambda outputs, _: 0 * outputs.sum(),
    )  # fmt: skip
    assert torch.allclose(one_step["4.weight"], (a["4.weight"] + b["4.weight"]) / 2)
    assert torch.allclose(one_step["4.bias"], 0.75 * a["4.bias"] + 0.25 * b["4.bias"])


def test_a_model_without_a_share_has_no_task() -> None:
    f = family("mlp")
    two = gm.merge(f.graph, f.models, "ode-m", own_data=f.data, step=0.1)
    three = gm.merge(
        f.graph, [f.base, *f.models], "ode-m", weights=(0, 1, 1), own_data=[[], *f.data], step=0.1
    )
    assert close(two, three)


def test_all_models_may_be_judged_on_the_same_data() -> None:
    f = family("mlp")
    result = gm.merge(f.graph, f.models, "ode-m", data=f.data[0], step=0.1)
    assert close(result, gm.merge(f.graph, f.models, "ode-m", own_data=[f.data[0]] * 2, step=0.1), 0)


def test_half_precision_runs_as_it_is_stored_and_moves_in_float32() -> None:
    f = family("mlp", torch.bfloat16)
    wide = gm.merge(f.graph, f.models, "ode-m", own_data=f.data, out_dtype=torch.float32)
    stored = gm.merge(f.graph, f.models, "ode-m", own_data=f.data)
    assert all(torch.equal(stored[n], t.bfloat16()) for n, t in wide.items())
    assert not all(torch.equal(t.bfloat16().float(), t) for t in wide.values())


def test_bad_data_is_refused() -> None:
    f = family("mlp")
    good, (x, y) = f.data[0], f.data[1][0]
    for bad, fragment in (
        ([], "the data of model 2 holds no batch"),
        ([x], "no targets"),
        ([(x * math.nan, y)], "data of model 2, or its gradient, is not finite"),
        ([(x, y + 9)], "no classes of the model"),
    ):
        with pytest.raises(InputError, match=fragment):
            gm.merge(f.graph, f.models, "ode-m", own_data=[good, bad])
    with pytest.raises(UsageError, match="one-shot"):
        gm.merge(f.graph, f.models, "ode-m", own_data=[good, iter(good)])
    with pytest.raises(UsageError, match=r"needs data=.*\(inputs, targets\)"):
        gm.merge(f.graph, f.models, "ode-m")
    with pytest.raises(UsageError, match=r"own_data .*: 2 models, 1 given"):
        gm.merge(f.graph, f.models, "ode-m", own_data=[good])
