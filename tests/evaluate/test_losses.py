"""Losses by name or as a function: what they give, what they refuse, and where they count."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import graphmerge as gm
from graphmerge.errors import InputError, UsageError
from graphmerge.evaluate import robustness, stitch
from graphmerge.losses import LOSSES, loss_of
from graphmerge.merge.fisher import diagonal_fisher
from graphmerge.merge.job import Job
from graphmerge.recipe import How
from graphmerge.sources import load_loss

Data = list[tuple[Tensor, Tensor]]


def net(seed: int, outputs: int = 2) -> nn.Module:
    torch.manual_seed(seed)
    return nn.Sequential(nn.Linear(3, 8), nn.ReLU(), nn.Linear(8, outputs))


def numbers(kind: str = "mse", sizes: tuple[int, ...] = (40, 24, 40, 40)) -> Data:
    """Batches with a target for each output; labels that are 0 or 1 for bce."""
    torch.manual_seed(5)
    data = [(torch.randn(n, 3), torch.randn(n, 2)) for n in sizes]
    return [(x, (y > 0).float()) for x, y in data] if kind == "bce" else data


@pytest.mark.parametrize(
    ("name", "plain"),
    [
        ("mse", F.mse_loss),
        ("l1", F.l1_loss),
        ("huber", F.huber_loss),
        ("bce", F.binary_cross_entropy_with_logits),
    ],
)
def test_a_named_loss_is_that_of_torch_over_all_data(name: str, plain: Callable[..., Tensor]) -> None:
    model, data = net(0), numbers(name)
    x, y = (torch.cat(t) for t in zip(*data, strict=True))
    wanted = plain(model(x), y).item()
    score = gm.evaluate(model, model.state_dict(), data, loss=name)
    assert score.loss == pytest.approx(wanted, rel=1e-6)
    as_mean = gm.evaluate(model, model.state_dict(), data, loss=plain)  # a mean a batch: counted by its size
    assert as_mean.loss == pytest.approx(wanted, rel=1e-6)
    assert as_mean.samples == score.samples == 2 * len(x)
    right = ((model(x) > 0) == (y > 0.5)).float().mean().item() if name == "bce" else math.nan
    assert score.accuracy == pytest.approx(right, nan_ok=True)
    assert score.unit == ("nats" if name == "bce" else name)


def test_a_last_dimension_of_one_may_be_left_out_and_is_never_broadcast() -> None:
    model, x, y = net(0, outputs=1), torch.randn(9, 3), torch.randn(9)
    wanted = F.mse_loss(model(x)[:, 0], y).item()
    for targets in (y, y[:, None]):
        found = gm.evaluate(model, model.state_dict(), [(x, targets)], loss="mse")
        assert found.loss == pytest.approx(wanted, rel=1e-6)
    with pytest.raises(InputError, match=r"outputs \(9, 1\) for targets \(9, 2\)"):
        gm.evaluate(model, model.state_dict(), [(x, torch.randn(9, 2))], loss="mse")


def test_an_ensemble_averages_outputs_or_probabilities() -> None:
    a, b = net(0), net(1)
    (x, y), (z, labels) = numbers()[0], numbers("bce")[0]
    both = [a.state_dict(), b.state_dict()]
    wanted = F.mse_loss((a(x) + b(x)) / 2, y).item()
    assert gm.ensemble(a, both, [(x, y)], "mse").loss == pytest.approx(wanted, rel=1e-6)
    p = (a(z).sigmoid() + b(z).sigmoid()) / 2
    wanted = F.binary_cross_entropy(p, labels).item()
    assert gm.ensemble(a, both, [(z, labels)], "bce").loss == pytest.approx(wanted, rel=1e-6)


def test_a_loss_is_named_in_the_table_or_imported() -> None:
    assert load_loss("mse") is LOSSES["mse"]
    found = load_loss("torch.nn.functional:huber_loss(delta=0.5)")
    x, y = torch.randn(9), torch.randn(9)
    assert found.mean(x, y) == F.huber_loss(x, y, delta=0.5)
    assert found.unit == "huber_loss"
    assert load_loss("torch.nn:MSELoss").mean(x, y) == F.mse_loss(x, y)
    with pytest.raises(UsageError, match=r"unknown loss 'mes'; there are: cross-entropy, .*mean 'mse'"):
        loss_of("mes")


@pytest.mark.parametrize("method", ["straight-through", "learned", "sinkhorn", "annealing", "dual"])
def test_matching_lowers_the_loss_that_is_named(method: str) -> None:
    a, b, data = net(0), net(1), numbers()
    graph = gm.trace(a, (data[0][0],))
    options: dict[str, Any] = {} if method == "dual" else {"steps": 4}
    named, own = (gm.match(graph, a, b, method, data, loss=x, **options) for x in ("mse", F.mse_loss))
    assert named.objective == pytest.approx(own.objective, rel=1e-5)
    assert named.transform == own.transform
    with pytest.raises(InputError, match="name it: --loss mse"):
        gm.match(graph, a, b, method, data, **options)


def jacobians(model: nn.Module, x: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
    """Outputs [example, output], and of each the gradient by every parameter."""
    state = dict(model.named_parameters())
    run = lambda at, one: torch.func.functional_call(model, at, (one[None],))[0]  # noqa: E731
    return model(x), torch.func.vmap(torch.func.jacrev(run), (None, 0))(state, x)


@pytest.mark.parametrize("name", ["mse", "bce"])
def test_fisher_information_of_numbers_and_of_labels_by_hand(name: str) -> None:
    """E[(d log p)^2] is the sum over outputs of their gradient squared, times 1 or p (1 - p)."""
    model, data = net(0).double(), [(x.double(), y.double()) for x, y in numbers(name)]
    graph = gm.trace(model, (data[0][0],))
    names = frozenset(n for n, _ in model.named_parameters())
    job = Job(graph, (), {}, names, {n: n for n in names}, loss=LOSSES[name])
    z, j = jacobians(model, torch.cat([x for x, _ in data]))
    spread = z.sigmoid() * (1 - z.sigmoid()) if name == "bce" else torch.ones_like(z)
    found = diagonal_fisher(job, model.state_dict(), data, "exact", 0)
    for n, own in found.items():
        wanted = torch.einsum("bo,bo...->...", spread, j[n].square()) / len(z)
        assert torch.allclose(own, wanted)
    # one draw of each, over many examples, is near to it
    many = [(x.repeat(40, 1), y.repeat(40, 1)) for x, y in data]
    drawn = diagonal_fisher(job, model.state_dict(), many, "sampled", 0)
    assert all(torch.allclose(drawn[n], t, rtol=0.2, atol=1e-3) for n, t in found.items())


def test_fisher_without_a_distribution_takes_the_targets() -> None:
    a, b, data = net(0), net(1), numbers()
    graph = gm.trace(a, (data[0][0],))
    with pytest.raises(UsageError, match="no distribution for the loss l1: add --option labels=empirical"):
        gm.merge(graph, [a, b], "fisher", data=data, loss="l1")
    mean, total = (  # a mean over the batch is told from losses one by one
        gm.merge(graph, [a, b], "fisher", data=data[:1], loss=x, labels="empirical", floor=1e-30)
        for x in (lambda out, y: (out - y).abs().sum(1).mean(), lambda out, y: (out - y).abs().sum(1))
    )
    assert all(torch.allclose(mean[n], t, rtol=1e-4) for n, t in total.items())


def test_a_greedy_soup_goes_by_the_loss_where_nothing_is_right_or_wrong() -> None:
    a, data = net(0), numbers()
    good = [(x, a(x).detach()) for x, _ in data]
    graph = gm.trace(a, (data[0][0],))
    soup = gm.merge(graph, [net(1), a, net(2)], "greedy-soup", data=good, loss="mse")
    assert all(torch.equal(soup[n], t) for n, t in a.state_dict().items())


def test_fine_tuning_lowers_it_and_temperature_is_refused() -> None:
    a, b, data = net(0), net(1), numbers()
    graph = gm.trace(a, (data[0][0],))
    merged = gm.merge(graph, [a, b])
    tuned = gm.repair(graph, merged, [a, b], data, method="finetune", loss="mse", steps=40, rate=0.02)
    before, after = (gm.evaluate(a, s, data, loss="mse").loss for s in (merged, tuned))
    assert after < before
    with pytest.raises(UsageError, match="temperature takes logits and class numbers"):
        gm.repair(graph, merged, [a, b], data, method="temperature", loss="mse")


def test_a_whole_merge_by_a_function() -> None:
    a, b, data = net(0), net(1), numbers(sizes=(40,) * 4)
    how = How(loss=lambda out, y: (out - y).square().sum(1))
    found = gm.merge_models(a, [a.state_dict(), b.state_dict()], data[0][:1], how=how, data=data)
    assert found.kept.held_out
    assert found.kept.held_out.samples == 40
    assert math.isnan(found.kept.held_out.accuracy)
    assert "temperature" not in " ".join(c.repair for c in found.candidates)


def test_stitching_and_attacks_go_by_it_too() -> None:
    a, b, data = net(0), net(1), numbers(sizes=(40, 40))
    graph = gm.trace(a, (data[0][0],))
    assert stitch(graph, a, b, data, loss="mse").scores[-1].unit == "mse"
    attacked = robustness(
        a, a.state_dict(), data, "fgsm", [0.0, 0.1], score=lambda *x: gm.evaluate(*x, loss="mse"),
        loss=LOSSES["mse"],
    )  # fmt: skip
    assert attacked.scores[1].loss > attacked.scores[0].loss
