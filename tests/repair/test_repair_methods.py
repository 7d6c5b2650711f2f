"""Laws of the table of repairs: no change at endpoints, any number of models, refusals in words."""

from __future__ import annotations

import pytest
import torch
from torch import nn

import graphmerge as gm
from graphmerge.repair import METHODS, Task, available, repair_with_report
from graphmerge.repair.sites import sites


class Residual(nn.Module):
    """A stream with a branch, norms of two kinds, and an operator without a bias."""

    def __init__(self) -> None:
        super().__init__()
        self.enter, self.norm = nn.Linear(6, 8), nn.LayerNorm(8)
        self.up, self.down = nn.Linear(8, 12, bias=False), nn.Linear(12, 8)
        self.last, self.head = nn.RMSNorm(8), nn.Linear(8, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        stream = self.enter(x)
        stream = stream + self.down(torch.relu(self.up(self.norm(stream))))
        out: torch.Tensor = self.head(self.last(stream))
        return out


class Images(nn.Module):
    """GroupNorm and BatchNorm."""

    def __init__(self) -> None:
        super().__init__()
        self.one, self.group = nn.Conv2d(1, 6, 3), nn.GroupNorm(2, 6)
        self.two, self.batch = nn.Conv2d(6, 5, 3), nn.BatchNorm2d(5)
        self.head = nn.Linear(5, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        h = torch.relu(self.group(self.one(x)))
        out: torch.Tensor = self.head(torch.relu(self.batch(self.two(h))).mean((2, 3)))
        return out


def batches(*shape: int) -> list[tuple[torch.Tensor, torch.Tensor]]:
    generator = torch.Generator().manual_seed(0)
    return [
        (torch.randn(20, *shape, generator=generator), torch.randint(3, (20,), generator=generator))
        for _ in range(3)
    ]


def models(build: type[nn.Module], count: int) -> list[nn.Module]:
    """Random networks, with the BatchNorm statistics of the data."""
    found = []
    for seed in range(count):
        torch.manual_seed(seed)
        model = build().eval()
        for p in model.parameters():
            nn.init.normal_(p, 0.2, 0.5)
        found.append(model)
    return found


CASES = {"residual": (Residual, (6,)), "images": (Images, (1, 6, 6))}
OPTIONS = [{}, {"gains": "no"}, {"gains": "yes", "sums": "yes"}]


@pytest.fixture(params=CASES, scope="module")
def task(request: pytest.FixtureRequest) -> Task:
    build, shape = CASES[request.param]
    data = batches(*shape)
    three = models(build, 3)
    graph = gm.trace(three[0], (data[0][0],))
    states = [gm.reset_batchnorm(m, m.state_dict(), data) for m in three]
    return Task(graph, tuple(states), data)


@pytest.mark.parametrize("method", [n for n, m in METHODS.items() if m.tried != "by name"])
@pytest.mark.parametrize("options", OPTIONS, ids=str)
def test_at_an_endpoint_nothing_changes(task: Task, method: str, options: dict[str, str]) -> None:
    own = {n: v for n, v in options.items() if n in METHODS[method].options}
    if own != options or method not in available(task.graph):
        pytest.skip("no such option, or it does not apply")
    for end, state in enumerate(task.endpoints):
        weights = [float(k == end) for k in range(3)]
        repaired, _ = repair_with_report(task, state, weights, method, **own)
        assert all(torch.allclose(repaired[n], t, atol=2e-4, rtol=1e-4) for n, t in state.items())


def test_three_endpoints_meet_at_the_weights(task: Task) -> None:
    weights = (0.5, 0.2, 0.3)
    merged = gm.average(list(task.endpoints), list(weights))
    repaired, report = repair_with_report(task, merged, weights, "repair", gains="yes")
    found = [s for s in sites(task.program, gains=True)[0] if s.bias]
    points = [s.seen for s in found]
    wanted = task.goals(points, weights)
    reached = Task(task.graph, (repaired,), task.data).goals(points, (1.0,))
    assert len(found) >= 2
    assert report.options["repair"] == {"gains": "yes", "sums": "no"}
    for point in points:
        for own, goal in zip(reached[point], wanted[point], strict=True):
            assert torch.allclose(own, goal, atol=1e-4, rtol=1e-4)


def test_methods_run_one_after_the_other(task: Task) -> None:
    merged = gm.average(list(task.endpoints))
    one, _ = repair_with_report(task, merged, method="closed-form")
    two, _ = repair_with_report(task, one, method="temperature")
    both, report = repair_with_report(task, merged, method="closed-form+temperature")
    assert list(report.notes) == ["closed-form", "temperature"]
    assert all(torch.equal(both[n], t) for n, t in two.items())


def test_the_closed_form_is_exact_where_the_merged_network_is_the_weighted_sum() -> None:
    torch.manual_seed(0)
    build = lambda: nn.Sequential(nn.Linear(6, 9), nn.ReLU(), nn.Linear(9, 3))  # noqa: E731
    a, b, data = build(), build(), batches(6)
    graph = gm.trace(a, (data[0][0],))
    merged = gm.average([a.state_dict(), b.state_dict()], [0.3, 0.7])
    ways = [gm.repair(graph, merged, [a, b], data, (0.3, 0.7), m) for m in ("closed-form", "repair")]
    assert all(torch.allclose(ways[0][n], t, atol=1e-5) for n, t in ways[1].items())


@pytest.mark.parametrize("method", ["repair", "rescale", "reshift"])
def test_batchnorms_after_a_site_are_reset_on_what_it_then_returns(method: str) -> None:
    three, data = models(Images, 3), batches(1, 6, 6)
    graph = gm.trace(three[0], (data[0][0],))
    repaired = gm.repair(graph, gm.average([m.state_dict() for m in three]), three, data, method=method)
    again = gm.reset_batchnorm(graph.model, repaired, data)
    assert all(torch.allclose(again[n], t, rtol=1e-4, atol=1e-5) for n, t in repaired.items())


def test_parts_of_repair_change_the_spread_or_the_mean_alone(task: Task) -> None:
    merged = gm.average(list(task.endpoints))
    first = next(s for s in sites(task.program)[0] if s.bias)
    weights = (1 / 3,) * 3
    mean, std = task.goals([first.seen], weights)[first.seen]
    own_mean, own_std = Task(task.graph, (merged,), task.data).goals([first.seen], (1.0,))[first.seen]
    for method, wanted in (("rescale", (own_mean * std / own_std, std)), ("reshift", (mean, own_std))):
        repaired, _ = repair_with_report(task, merged, weights, method)
        reached = Task(task.graph, (repaired,), task.data).goals([first.seen], (1.0,))[first.seen]
        for own, goal in zip(reached, wanted, strict=True):
            assert torch.allclose(own, goal, atol=1e-4, rtol=1e-4)


def test_endpoints_are_run_once(task: Task) -> None:
    said: list[str] = []
    fresh = Task(task.graph, task.endpoints, task.data, said.append)
    merged = gm.average(list(task.endpoints))
    for weights in ((0.5, 0.5, 0.0), (0.2, 0.3, 0.5)):
        repair_with_report(fresh, merged, weights, "repair")
    assert sum("statistics of model" in line for line in said) == 3 * len(task.batches)


def test_calls_that_make_no_sense_are_refused(task: Task) -> None:
    state = task.endpoints[0]
    for method, options, words in (
        ("heal", {}, "unknown repair 'heal'"),
        ("bn_reset", {}, "did you mean 'bn-reset'"),
        ("repair", {"depth": 3}, "no option 'depth'"),
        ("repair", {"gains": "perhaps"}, "one of no, yes"),
        ("finetune", {"steps": 0}, "at least 1"),
        ("bn-reset+reshift", {"steps": 3}, "no option 'steps'"),
    ):
        with pytest.raises(gm.UsageError, match=words):
            repair_with_report(task, state, method=method, **options)
    with pytest.raises(gm.UsageError, match="3 endpoints but 2 weights"):
        repair_with_report(task, state, (0.5, 0.5))
    graph = gm.trace(nn.Linear(3, 2), (torch.randn(2, 3),))
    with pytest.raises(gm.UsageError, match="does not apply to Linear: no BatchNorm"):
        gm.repair(graph, nn.Linear(3, 2).state_dict(), [nn.Linear(3, 2)], batches(3), method="bn-reset")
    inputs = [x for x, _ in task.data]
    with pytest.raises(gm.InputError, match="targets"):
        gm.repair(task.graph, state, list(task.endpoints), inputs, method="temperature")


@pytest.mark.parametrize("method", [n for n, m in METHODS.items() if n != "bn-reset"])
@pytest.mark.parametrize("options", OPTIONS[1:], ids=str)
def test_data_that_hold_nan_are_refused(method: str, options: dict[str, str]) -> None:
    (model,) = models(Residual, 1)
    data = batches(6)
    data[0][0][0, 0] = torch.nan
    own = {n: v for n, v in options.items() if n in METHODS[method].options}
    graph = gm.trace(model, (torch.randn(20, 6),))
    with pytest.raises(gm.InputError, match="not finite"):
        gm.repair(graph, model.state_dict(), [model, model], data, method=method, **own)


def test_fine_tuning_takes_double_precision_as_it_is() -> None:
    (model,) = models(Residual, 1)
    model, data = model.double(), [(x.double(), y) for x, y in batches(6)]
    graph, state = gm.trace(model, (data[0][0],)), {n: t / 3 for n, t in model.state_dict().items()}
    found = gm.repair(graph, state, [state], data, method="finetune", steps=1, rate=1e-12)
    assert all(float((found[n] - t).abs().max()) < 1e-11 for n, t in state.items())
