"""Temperature: the best one found, and fused into whatever weights scale the output."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import nn

import graphmerge as gm
from graphmerge.losses import IGNORED
from graphmerge.repair import Task, repair_with_report
from graphmerge.repair.scaling import scales_of_output
from graphmerge.repair.temperature import best_temperature, fit_temperature
from models_zoo.gpt import gpt


def draw(scale: float) -> tuple[torch.Tensor, torch.Tensor]:
    """Logits, ``scale`` times those from whose softmax the targets were drawn."""
    generator = torch.Generator().manual_seed(0)
    logits = 2 * torch.randn(4000, 5, generator=generator)
    targets = logits.softmax(-1).multinomial(1, generator=generator)[:, 0]
    return scale * logits, targets


@pytest.mark.parametrize("scale", [0.05, 1.0, 30.0])
def test_the_best_temperature_is_found(scale: float) -> None:
    logits, targets = draw(scale)
    best = fit_temperature(logits, targets)
    assert best == pytest.approx(scale, rel=0.05)

    def loss(t: float) -> float:
        return float(F.cross_entropy(logits.double() / t, targets))

    assert loss(best) <= min(loss(best * f) for f in (0.9, 0.999, 1.001, 1.1))


def test_it_ends_at_the_bound_where_there_is_no_best() -> None:
    targets = torch.arange(5).repeat(4)
    assert fit_temperature(F.one_hot(targets).float(), targets) == pytest.approx(0.01)


def test_logits_that_are_no_numbers_are_refused() -> None:
    logits, targets = draw(1.0)
    logits[7, 2] = torch.nan
    with pytest.raises(gm.InputError, match="logits are not finite"):
        fit_temperature(logits, targets)


class Pooled(nn.Module):
    """An affine operator, then operators that pass a factor on."""

    def __init__(self) -> None:
        super().__init__()
        self.body, self.head = nn.Conv2d(1, 4, 3), nn.Conv2d(4, 3, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(torch.relu(self.body(x))).mean((2, 3))  # type: ignore[no-any-return]


class TwoHeads(nn.Module):
    """A sum of a product and of a gain by which a parameter multiplies."""

    def __init__(self) -> None:
        super().__init__()
        self.one, self.two, self.gain = nn.Linear(6, 3), nn.Linear(6, 3), nn.Parameter(torch.ones(3))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.one(x) + self.gain * torch.tanh(self.two(x))  # type: ignore[no-any-return]


class Text(nn.Module):
    """Logits by the transposed embedding."""

    def __init__(self) -> None:
        super().__init__()
        self.model = gpt(vocab=7, context=8, dim=8, depth=1, heads=2)

    def forward(self, tokens: torch.Tensor) -> torch.Tensor:
        return self.model(tokens)  # type: ignore[no-any-return]


IMAGES = torch.randn(40, 1, 6, 6, generator=torch.Generator().manual_seed(1))
VECTORS = torch.randn(40, 6, generator=torch.Generator().manual_seed(1))
TOKENS = torch.randint(7, (40, 8), generator=torch.Generator().manual_seed(1))
CASES = {
    "pooled": (Pooled, IMAGES, {"head.weight", "head.bias"}),
    "sum": (TwoHeads, VECTORS, {"one.weight", "one.bias", "gain"}),
    "tied": (Text, TOKENS, {"model.norm.weight", "model.norm.bias"}),
}


@pytest.mark.parametrize("case", CASES)
def test_logits_are_divided_through_the_weights(case: str) -> None:
    build, x, names = CASES[case]
    torch.manual_seed(0)
    model = build().eval()
    state = model.state_dict()
    with torch.no_grad():
        before = model(x)
    targets = torch.randint(3, before.shape[:-1], generator=torch.Generator().manual_seed(2))
    task = Task(gm.trace(model, (x,)), (state,), [(x, targets)])
    repaired, report = repair_with_report(task, state, method="temperature", reference="none")
    t = report.notes["temperature"]["temperature"]
    assert set(report.notes["temperature"]["scaled"]) == names
    assert abs(t - 1) > 0.05
    model.load_state_dict(repaired)
    with torch.no_grad():
        assert torch.allclose(model(x), before / t, rtol=1e-4, atol=1e-5)
    assert best_temperature(task, repaired) == pytest.approx(1.0, rel=1e-3)


def test_targets_that_are_left_out_do_not_count() -> None:
    torch.manual_seed(0)
    model = Text().eval()
    graph, state = gm.trace(model, (TOKENS,)), model.state_dict()
    targets = torch.randint(3, (40, 8), generator=torch.Generator().manual_seed(2))
    padded = torch.where(torch.arange(40)[:, None] < 30, targets, IGNORED)
    task = Task(graph, (state,), [(TOKENS, padded.int())])
    wanted = best_temperature(Task(graph, (state,), [(TOKENS[:30], targets[:30])]), state)
    assert best_temperature(task, state) == pytest.approx(wanted, rel=1e-5)
    repaired, _ = repair_with_report(task, state, method="finetune", steps=2)
    assert all(bool(t.isfinite().all()) for t in repaired.values())
    for bad, words in ((torch.full_like(targets, IGNORED), "no target"), (targets.float(), "float32")):
        with pytest.raises(gm.InputError, match=words):
            best_temperature(Task(graph, (state,), [(TOKENS, bad)]), state)


def test_it_is_as_calibrated_as_the_endpoints() -> None:
    torch.manual_seed(0)
    model, flat = Pooled(), Pooled()
    flat.load_state_dict({n: t / 3 if "head" in n else t for n, t in model.state_dict().items()})
    x, y = IMAGES, torch.randint(3, (40,), generator=torch.Generator().manual_seed(2))
    graph = gm.trace(model, (x,))
    repaired = gm.repair(graph, flat.state_dict(), [model, model], [(x, y)], method="temperature")
    assert all(torch.allclose(repaired[n], t, rtol=1e-4) for n, t in model.state_dict().items())


class Squashed(nn.Sequential):
    """Its output cannot be scaled."""

    def __init__(self) -> None:
        super().__init__(nn.Linear(6, 3), nn.Softmax(-1))


class Read(nn.Module):
    """Its last weight is read elsewhere too."""

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Linear(6, 6)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.body(torch.tanh(self.body(x)))  # type: ignore[no-any-return]


@pytest.mark.parametrize(("build", "reason"), [(Squashed, "softmax"), (Read, "read more than once|tanh")])
def test_what_cannot_be_scaled_is_refused(build: type[nn.Module], reason: str) -> None:
    with pytest.raises(gm.TraceError, match=reason):
        scales_of_output(gm.trace(build(), (VECTORS[:2],)).program)
