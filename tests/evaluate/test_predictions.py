"""What is measured on predictions: metrics of all kinds, calibration, agreement, robustness."""

from __future__ import annotations

import functools
import math
from collections.abc import Sequence

import pytest
import torch
import torch.nn.functional as F
from plainly import labelled, mlp, traced
from torch import nn

import graphmerge as gm
from graphmerge.errors import InputError, UsageError
from graphmerge.evaluate import agreement, calibration, robustness
from graphmerge.evaluate.robustness import noisy_weights

Batches = list[tuple[torch.Tensor, torch.Tensor]]


def given(p: Sequence[Sequence[float]], y: Sequence[int]) -> tuple[nn.Module, Batches]:
    """A network that answers with these probabilities, in two batches of unequal size."""
    x, targets = torch.tensor(p).log(), torch.tensor(y)
    return nn.Identity(), [(x[:1], targets[:1]), (x[1:], targets[1:])]


class Largest:
    """A metric in the manner of torchmetrics: the largest output seen since the reset."""

    def __init__(self) -> None:
        self.value = math.inf

    def reset(self) -> None:
        self.value = -math.inf

    def update(self, outputs: torch.Tensor, targets: torch.Tensor) -> None:
        assert len(outputs) == len(targets)
        self.value = max(self.value, float(outputs.max()))

    def compute(self) -> torch.Tensor:
        return torch.tensor(self.value)


def test_metrics_are_functions_or_objects() -> None:
    model, data = given([[0.9, 0.1], [0.2, 0.8], [0.6, 0.4]], [0, 1, 1])
    score = gm.evaluate(
        model,
        {},
        data,
        metrics={
            "each": lambda out, y: (out.argmax(1) == y).float(),
            "batch": lambda out, y: (out.argmax(1) == y).float().mean(),
            "largest": Largest(),
        },
    )
    assert score.extra["each"] == pytest.approx(score.accuracy) == pytest.approx(2 / 3)
    assert score.extra["batch"] == pytest.approx(2 / 3)
    assert score.extra["largest"] == pytest.approx(math.log(0.9))
    with pytest.raises(UsageError, match="update and compute"):
        gm.evaluate(model, {}, data, metrics={"x": 3})  # type: ignore[dict-item]


def test_a_loss_of_ones_own_takes_any_targets() -> None:
    torch.manual_seed(0)
    model, x, y = nn.Linear(4, 2), torch.randn(9, 4), torch.randn(9, 2)
    score = functools.partial(gm.evaluate, loss=lambda out, want: (out - want).square().mean(1))
    found = score(model, model.state_dict(), [(x[:5], y[:5]), (x[5:], y[5:])])
    assert found.loss == pytest.approx(F.mse_loss(model(x), y).item(), rel=1e-6)
    assert math.isnan(found.accuracy)
    graph = traced(mlp, 12, 5)
    data = [(torch.randn(6, 5), torch.randn(6, 3))]
    assert gm.barrier(graph, mlp(0), mlp(1), data, points=3, score=score).midpoint.loss > 0
    with pytest.raises(InputError, match="class numbers"):
        gm.evaluate(model, model.state_dict(), [(x, y[:, 0])])


def test_tokens_that_are_padding_are_left_out_and_perplexity_is_that_of_the_others() -> None:
    model = nn.Embedding(7, 7)
    x, y = torch.arange(7)[None], torch.tensor([[1, -100, 3, 2, -100, 0, 6]])
    score = gm.evaluate(model, model.state_dict(), [(x, y)])
    assert score.samples == 5
    assert score.loss == pytest.approx(F.cross_entropy(model(x)[0], y[0]).item(), rel=1e-6)
    assert score.perplexity == pytest.approx(math.exp(score.loss))


def test_calibration_by_hand() -> None:
    model, data = given([[0.9, 0.1], [0.2, 0.8], [0.6, 0.4], [0.45, 0.55]], [0, 1, 1, 1])
    found = calibration(model, {}, data, bins=4)  # confidences .9 .8 | .6 .55, right: yes yes | no yes
    assert found.counts == (0, 0, 2, 2)
    assert found.confidence[2:] == pytest.approx((0.575, 0.85))
    assert found.accuracy[2:] == (0.5, 1.0)
    assert found.ece == pytest.approx((2 * 0.075 + 2 * 0.15) / 4)
    assert found.mce == pytest.approx(0.15)
    assert found.to_json()["accuracy"][0] is None


def test_agreement_counts_equal_predictions() -> None:
    a, b, data = mlp(0), mlp(1), labelled()
    x = torch.cat([batch[0] for batch in data])
    found = agreement(a, [a.state_dict(), b.state_dict()], data, names=["a", "b"])
    same = float((a(x).argmax(1) == b(x).argmax(1)).float().mean())
    assert found.values == ((1.0, pytest.approx(same)), (pytest.approx(same), 1.0))


@pytest.mark.parametrize("kind", ["weights", "inputs", "fgsm"])
def test_no_disturbance_changes_nothing_and_a_seed_fixes_the_noise(kind: str) -> None:
    model, data = mlp(0), labelled()
    state = model.state_dict()
    found = robustness(model, state, data, kind, [0.0, 0.5], seed=1)  # type: ignore[arg-type]
    assert found.scores[0].loss == pytest.approx(gm.evaluate(model, state, data).loss, rel=1e-6)
    assert found.scores[1].loss != pytest.approx(found.scores[0].loss, rel=1e-3)
    assert found == robustness(model, state, data, kind, [0.0, 0.5], seed=1)  # type: ignore[arg-type]
    assert [p.requires_grad for p in model.parameters()] == [True] * 6
    assert all(p.grad is None for p in model.parameters())


def test_fgsm_steps_along_the_sign_of_the_gradient() -> None:
    model, data = mlp(0), labelled()
    x, y = (torch.cat(t) for t in zip(*data, strict=True))
    x.requires_grad_()
    (gradient,) = torch.autograd.grad(F.cross_entropy(model(x), y), [x])
    wanted = F.cross_entropy(model(x + 0.1 * gradient.sign()), y).item()
    found = robustness(model, model.state_dict(), data, "fgsm", [0.1]).scores[0].loss
    assert found == pytest.approx(wanted, rel=1e-5)
    assert found > gm.evaluate(model, model.state_dict(), data).loss


def test_noise_on_weights_is_relative_to_each_tensor_and_keeps_ties() -> None:
    class Tied(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.one, self.two = nn.Linear(90, 90), nn.Linear(90, 90)
            self.two.weight = self.one.weight

    model = Tied()
    state = model.state_dict()
    noisy = noisy_weights(model, state, 0.1, torch.Generator().manual_seed(0))
    assert torch.equal(noisy["one.weight"], noisy["two.weight"])
    for name, t in state.items():
        change = (noisy[name] - t).square().mean().sqrt() / t.square().mean().sqrt()
        assert float(change) == pytest.approx(0.1, rel=0.25)


def test_what_cannot_be_disturbed_is_refused() -> None:
    model, data = mlp(0), labelled()
    with pytest.raises(UsageError, match="there are: weights, inputs, fgsm"):
        robustness(model, model.state_dict(), data, "heat", [0.1])  # type: ignore[arg-type]
    with pytest.raises(UsageError, match="at least 0"):
        robustness(model, model.state_dict(), data, "inputs", [-0.1])
    texts = nn.Embedding(5, 5)
    with pytest.raises(InputError, match="floating"):
        robustness(texts, texts.state_dict(), [(torch.zeros(2, 3).long(),) * 2], "fgsm", [0.1])


class Reached(nn.Module):
    """Of two inputs as many as wanted reach the logits."""

    def __init__(self, inputs: int) -> None:
        super().__init__()
        self.inputs, self.bias = inputs, nn.Parameter(torch.zeros(3))

    def forward(self, x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        return sum((x, y)[: self.inputs], self.bias + torch.zeros(len(x), 1))


def test_fgsm_leaves_inputs_alone_that_do_not_matter_and_is_refused_where_none_does() -> None:
    data = [((torch.randn(9, 3), torch.randn(9, 3)), torch.randint(0, 3, (9,)))]
    model = Reached(1)
    first, second = robustness(model, model.state_dict(), data, "fgsm", [0.0, 0.1]).scores
    assert second.loss > first.loss
    with pytest.raises(InputError, match="none depends on them"):
        robustness(Reached(0), model.state_dict(), data, "fgsm", [0.1])
