"""Evaluation: exact scores, both barrier conventions, the plot."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
import torch.nn.functional as F
from torch import nn

import graphmerge as gm
from graphmerge.errors import InputError, UsageError
from graphmerge.evaluate import BarrierCurve, Score, save_barrier_plot


class Tokens(nn.Module):
    """A model of texts whose output has a field ``logits``."""

    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Embedding(7, 7)

    def forward(self, ids: torch.Tensor) -> SimpleNamespace:
        return SimpleNamespace(logits=self.embed(ids))


def test_scores_are_exact_over_uneven_batches() -> None:
    torch.manual_seed(0)
    model, x, y = nn.Linear(5, 3), torch.randn(23, 5), torch.randint(0, 3, (23,))
    score = gm.evaluate(model, model.state_dict(), [(x[:10], y[:10]), (x[10:], y[10:])])
    assert score.loss == pytest.approx(F.cross_entropy(model(x), y).item(), rel=1e-6)
    assert score.accuracy == pytest.approx((model(x).argmax(1) == y).float().mean().item())
    assert score.samples == 23


def test_tokens_are_scored_one_by_one() -> None:
    model, x = Tokens(), torch.randint(0, 7, (4, 6))
    score = gm.evaluate(model, model.state_dict(), [(x, x)])
    assert score.samples == 24
    assert score.loss == pytest.approx(
        F.cross_entropy(model(x).logits.flatten(0, 1), x.flatten()).item(), rel=1e-6
    )


class Named(nn.Module):
    """A model with several outputs, in a dictionary."""

    def __init__(self, key: str) -> None:
        super().__init__()
        self.key, self.head = key, nn.Linear(4, 3)

    def forward(self, x: torch.Tensor) -> dict[str, torch.Tensor]:
        return {"mean": x.mean(1), self.key: self.head(x)}


def test_logits_may_be_a_key_of_a_dictionary() -> None:
    model, x, y = Named("logits"), torch.randn(5, 4), torch.randint(0, 3, (5,))
    assert gm.evaluate(model, model.state_dict(), [(x, y)]) == gm.evaluate(
        model.head, model.head.state_dict(), [(x, y)]
    )


def test_what_is_no_classifier_is_told_what_to_do() -> None:
    model, x = Named("scores"), torch.randn(5, 4)
    with pytest.raises(InputError, match=r"dict of 'mean', 'scores'.* without --data"):
        gm.evaluate(model, model.state_dict(), [(x, torch.zeros(5).long())])
    with pytest.raises(InputError, match=r"(?s)float32 \(5, 2, 2\).*--loss mse.* without --data"):
        gm.evaluate(model.head, model.head.state_dict(), [(x, torch.randn(5, 2, 2))])


def test_the_ensemble_averages_probabilities() -> None:
    a, b, x, y = nn.Linear(4, 3), nn.Linear(4, 3), torch.randn(9, 4), torch.randint(0, 3, (9,))
    mean = (a(x).softmax(1) + b(x).softmax(1)) / 2
    score = gm.ensemble(a, [a.state_dict(), b.state_dict()], [(x, y)])
    assert score.loss == pytest.approx(F.nll_loss(mean.log(), y).item(), rel=1e-5)


def test_both_barriers_by_hand() -> None:
    scores = tuple(Score(loss, acc, 10) for loss, acc in ((1.0, 0.9), (4.0, 0.5), (3.0, 0.7)))
    curve = BarrierCurve((0.0, 0.5, 1.0), scores)
    assert curve.loss == pytest.approx(4.0 - 2.0)
    assert curve.loss_above_line == pytest.approx(4.0 - 2.0)
    assert curve.error == pytest.approx(0.5 - 0.2)
    uneven = BarrierCurve((0.0, 0.5, 1.0), (scores[0], Score(1.5, 0.9, 10), scores[2]))
    assert uneven.loss == pytest.approx(3.0 - 2.0)
    assert uneven.loss_above_line == pytest.approx(0.0)
    assert uneven.midpoint.loss == 1.5


def test_between_a_model_and_itself_there_is_no_barrier() -> None:
    torch.manual_seed(0)
    model, x, y = (
        nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 3)),
        torch.randn(20, 4),
        torch.randint(0, 3, (20,)),
    )
    graph = gm.trace(model, (x[:2],))
    curve = gm.barrier(graph, model, model, [(x, y)], points=5)
    assert curve.loss == pytest.approx(0.0, abs=1e-6)
    assert curve.at == (0.0, 0.25, 0.5, 0.75, 1.0)
    assert curve.scores[0] == gm.evaluate(model, model.state_dict(), [(x, y)])


def test_the_repair_sees_every_point() -> None:
    model, x, y = (
        nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 3)),
        torch.randn(20, 4),
        torch.zeros(20).long(),
    )
    graph, seen = gm.trace(model, (x[:2],)), []
    gm.barrier(graph, model, model, [(x, y)], points=3, repair=lambda s, t: seen.append(t) or s)  # type: ignore[func-returns-value]
    assert seen == [0.0, 0.5, 1.0]


def test_bad_calls_are_refused() -> None:
    model = nn.Linear(4, 3)
    with pytest.raises(InputError, match="no batch"):
        gm.evaluate(model, model.state_dict(), [])
    with pytest.raises(UsageError, match="seen: NoneType"):
        gm.evaluate(model, model.state_dict(), None)  # type: ignore[arg-type]
    with pytest.raises(UsageError, match="seen: a function: call it"):
        gm.evaluate(model, model.state_dict(), lambda: [])  # type: ignore[arg-type]
    with pytest.raises(InputError, match="targets"):
        gm.evaluate(model, model.state_dict(), [torch.randn(3, 4)])
    with pytest.raises(InputError, match="3 predictions for 2 targets"):
        gm.evaluate(model, model.state_dict(), [(torch.randn(3, 4), torch.zeros(2).long())])
    graph = gm.trace(nn.Sequential(nn.Linear(4, 5), nn.ReLU(), nn.Linear(5, 3)), (torch.randn(2, 4),))
    with pytest.raises(UsageError, match="at least 2 points"):
        gm.barrier(graph, graph.model, graph.model, [(torch.randn(3, 4), torch.zeros(3).long())], points=1)


def test_the_plot_is_a_picture_and_the_same_each_time(tmp_path: Path) -> None:
    curve = BarrierCurve((0.0, 0.5, 1.0), tuple(Score(x, 0.5, 10) for x in (1.0, 2.0, 1.0)))
    for name in ("one.png", "two.png"):
        save_barrier_plot({"naive": curve, "aligned": curve}, Score(0.5, 0.9, 10), tmp_path / name, "Title")
    one, two = ((tmp_path / n).read_bytes() for n in ("one.png", "two.png"))
    assert one[:8] == b"\x89PNG\r\n\x1a\n"
    assert one == two


def test_a_shuffling_loader_keeps_inputs_and_targets_together() -> None:
    """The data is read once: two passes would pair the inputs of one order with the targets of another."""
    x = torch.randn(200, 3)
    loader = torch.utils.data.DataLoader(
        torch.utils.data.TensorDataset(x, x.argmax(1)), batch_size=20, shuffle=True
    )
    assert gm.evaluate(nn.Identity(), {}, loader).accuracy == 1.0
