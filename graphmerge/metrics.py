"""Loss, accuracy and other metrics of a network on data, and of the ensemble of several."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import torch
from torch import nn

from graphmerge.errors import InputError, UsageError
from graphmerge.losses import CROSS_ENTROPY, WITHOUT_SCORES, Function, Loss, logits_of, loss_of
from graphmerge.precision import wide
from graphmerge.trace.run import State, call, device_of, readable, split_batch, to_device


class Meter(Protocol):
    """A metric that collects batches, as torchmetrics' do; ``reset`` is called first if there is one."""

    def update(self, outputs: Any, targets: torch.Tensor) -> None:
        """Take in one batch: what the model returns, and the targets."""

    def compute(self) -> Any:
        """The value over all batches."""


Metric = Meter | Callable[[Any, torch.Tensor], Any]
"""A Meter, or a function of what the model returns and of the targets: its mean over all is reported.
Its values are one a prediction, or one a batch, which then counts as many times as it has targets."""


@dataclass(frozen=True)
class Score:
    """Mean loss in ``unit``, accuracy from 0 to 1, over ``samples`` predictions (tokens, for a text).

    The accuracy is NaN where the loss knows no right and wrong. ``extra`` are further metrics by name.
    """

    loss: float
    accuracy: float
    samples: int
    extra: Mapping[str, float] = field(default_factory=dict, hash=False)
    unit: str = CROSS_ENTROPY.unit

    def __str__(self) -> str:
        """Loss, and accuracy if there is one."""
        right = "" if math.isnan(self.accuracy) else f", accuracy {self.accuracy:.4f}"
        return f"loss {self.loss:.4f}{right}"

    @property
    def perplexity(self) -> float:
        """exp(loss), of tokens."""
        return math.exp(self.loss) if self.loss < MAX_EXPONENT else math.inf

    def to_json(self) -> dict[str, Any]:
        """All of it as plain data."""
        own = {"loss": self.loss, "accuracy": self.accuracy, "samples": self.samples}
        return own | dict(self.extra)


MAX_EXPONENT = 700
"""The exponential of anything larger overflows."""

Scorer = Callable[[nn.Module, State, Iterable[Any]], Score]
"""How a network is scored on data: ``evaluate``, or ``partial(evaluate, loss=..., metrics=...)``."""


def evaluate(
    model: nn.Module,
    state: State,
    data: Iterable[Any],
    *,
    loss: str | Function | Loss = "cross-entropy",
    metrics: Mapping[str, Metric] | None = None,
) -> Score:
    """Loss and accuracy of ``model`` under ``state`` on batches ``(inputs, targets)``.

    ``loss`` is a name of ``graphmerge.losses.LOSSES`` or a function of outputs and targets. Cross-entropy
    takes class numbers [batch, ...] (int64), and leaves those of -100 out. The mean is that over all
    predictions, not over batches; the mean of a batch counts as often as it has targets. ``metrics`` see what
    the model returns; their values are ``Score.extra``. The module's mode and weights are not touched.
    Raises InputError for data without targets, or such as the loss does not take.
    """
    return score_outputs(
        lambda args, kwargs: call(model, state, args, kwargs),
        data,
        device_of(state),
        loss=loss,
        metrics=metrics,
    )


def ensemble(
    model: nn.Module,
    states: Sequence[State],
    data: Iterable[Any],
    loss: str | Function | Loss = "cross-entropy",
) -> Score:
    """The mean of what several networks say: what merging can hope for.

    Of probabilities where the loss is one of them (cross-entropy, bce), else of outputs.
    """
    chosen = loss_of(loss)

    def together(args: Any, kwargs: Any) -> Any:
        return chosen.together([call(model, s, args, kwargs) for s in states])

    return score_outputs(together, data, device_of(states[0]), loss=chosen)


def forward(model: nn.Module, state: State, args: Any, kwargs: Any) -> torch.Tensor:
    """Logits [batch, ..., class] (float32 or wider) in evaluation mode, under a state dict."""
    return wide(logits_of(call(model, state, args, kwargs)))


def targets_of(batch: Any) -> torch.Tensor:
    """The targets of a batch (inputs, targets); InputError where there are none."""
    if isinstance(batch, list | tuple) and len(batch) == 2 and isinstance(batch[1], torch.Tensor):
        return batch[1]
    seen = type(batch).__name__
    if isinstance(batch, list | tuple):
        seen += f" of {', '.join(type(x).__name__ for x in batch)}"
    raise InputError(
        "the data has no targets: expected batches (inputs, targets), with targets a tensor;"
        f" seen: {seen}; {WITHOUT_SCORES}"
    )


def score_outputs(
    run: Callable[[Any, Any], Any],
    data: Iterable[Any],
    device: torch.device,
    *,
    loss: str | Function | Loss = "cross-entropy",
    metrics: Mapping[str, Metric] | None = None,
) -> Score:
    """``evaluate`` of what ``run`` makes of the inputs (args, kwargs) of each batch."""
    total = torch.zeros((), dtype=torch.float64, device=device)
    right = torch.zeros((), dtype=torch.float64, device=device)
    count = 0
    meters = {name: _meter(m) for name, m in (metrics or {}).items()}
    chosen = loss_of(loss)
    for batch in readable(data):
        targets = targets_of(batch).to(device)
        args, kwargs = to_device(split_batch(batch), device)
        outputs = run(args, kwargs)
        losses = wide(chosen.run(outputs, targets))
        weight = 1 if losses.ndim else targets.numel()
        total += losses.sum().double() * weight
        right += chosen.right(outputs, targets).sum() if chosen.right else math.nan
        count += losses.numel() * weight
        for meter in meters.values():
            meter.update(outputs, targets)
    if not count:
        raise InputError("the data holds no batch: nothing to evaluate on")
    extra = {name: float(meter.compute()) for name, meter in meters.items()}
    return Score(float(total) / count, float(right) / count, count, extra, chosen.unit)


class _Mean:
    """The mean of a function of outputs and targets, over all batches."""

    def __init__(self, function: Callable[[Any, torch.Tensor], Any]) -> None:
        self._function, self._total, self._count = function, 0.0, 0

    def update(self, outputs: Any, targets: torch.Tensor) -> None:
        values = torch.as_tensor(self._function(outputs, targets)).double()
        count = values.numel() if values.ndim else targets.numel()
        self._total += float(values.mean()) * count
        self._count += count

    def compute(self) -> float:
        return self._total / self._count


def _meter(metric: Metric) -> Meter:
    if hasattr(metric, "update") and hasattr(metric, "compute"):
        if hasattr(metric, "reset"):
            metric.reset()
        return metric
    if not callable(metric):
        raise UsageError(
            f"a metric is a function of (outputs, targets) or has update and compute; got {metric!r}"
        )
    return _Mean(metric)
