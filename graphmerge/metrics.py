"""Loss, accuracy and other metrics of a network on data, and of the ensemble of several."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import torch
import torch.nn.functional as F
from torch import nn

from graphmerge.errors import InputError, UsageError
from graphmerge.trace.run import State, call, device_of, split_batch, to_device

Loss = Callable[[Any, torch.Tensor], torch.Tensor]
"""Losses [..., no class axis] of single predictions, from outputs and targets."""


IGNORED = -100
"""Targets of this value are left out, as in torch's cross-entropy (padding of texts)."""


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
    """Mean loss in nats, accuracy from 0 to 1, over ``samples`` predictions (tokens, for a text).

    ``extra`` are the values of further metrics by name.
    """

    loss: float
    accuracy: float
    samples: int
    extra: Mapping[str, float] = field(default_factory=dict, hash=False)

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


WITHOUT_SCORES = "without --data (data=) models are matched by weights and merged, and nothing is scored"
"""What can be done with models that are no classifiers."""


def logits_of(outputs: Any) -> torch.Tensor:
    """Logits [batch, ..., class] from a tensor, or an output with ``logits`` as a field or a key."""
    found = outputs.get("logits") if isinstance(outputs, Mapping) else getattr(outputs, "logits", outputs)
    if isinstance(found, torch.Tensor):
        return found
    keys = f" of {', '.join(map(repr, outputs))}" if isinstance(outputs, Mapping) else ""
    raise InputError(
        f"the model returns a {type(outputs).__name__}{keys}; expected a tensor of logits,"
        f" or a field or key 'logits'; {WITHOUT_SCORES}"
    )


def evaluate(
    model: nn.Module,
    state: State,
    data: Iterable[Any],
    *,
    loss: Loss | None = None,
    metrics: Mapping[str, Metric] | None = None,
) -> Score:
    """Cross-entropy and accuracy of ``model`` under ``state`` on batches ``(inputs, targets)``.

    Targets are class numbers [batch, ...] (int64); those of -100 are left out. Sums over all predictions,
    not over batches. With another ``loss`` targets may be any tensor, and the accuracy is NaN. ``metrics``
    see what the model returns; their values are ``Score.extra``. The module's mode and weights are not
    touched. Raises InputError for data without targets.
    """
    return score_outputs(
        lambda args, kwargs: call(model, state, args, kwargs),
        data,
        device_of(state),
        loss=loss,
        metrics=metrics,
    )


def ensemble(model: nn.Module, states: Sequence[State], data: Iterable[Any]) -> Score:
    """The mean of the class probabilities of several networks: what merging can hope for."""

    def together(args: Any, kwargs: Any) -> torch.Tensor:
        each = [forward(model, s, args, kwargs).log_softmax(-1) for s in states]
        return torch.stack(each).logsumexp(0) - math.log(len(each))

    return score_outputs(together, data, device_of(states[0]))


def forward(model: nn.Module, state: State, args: Any, kwargs: Any) -> torch.Tensor:
    """Logits [batch, ..., class] (float32 or wider) in evaluation mode, under a state dict."""
    return _wide(logits_of(call(model, state, args, kwargs)))


def _wide(x: torch.Tensor) -> torch.Tensor:
    return x.to(torch.promote_types(x.dtype, torch.float32))


def _losses(values: torch.Tensor) -> tuple[torch.Tensor, None]:
    return _wide(values.reshape(-1)), None


def _classified(outputs: Any, targets: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Cross-entropy and hits [prediction] of logits [batch, ..., class]."""
    log_p = _wide(logits_of(outputs)).log_softmax(-1)
    log_p, wanted = log_p.reshape(-1, log_p.shape[-1]), targets.reshape(-1)
    if wanted.is_floating_point():
        raise InputError(
            f"targets are {targets.dtype}, expected class numbers (int64); {WITHOUT_SCORES};"
            " gm.evaluate takes another loss="
        )
    if len(log_p) != len(wanted):
        raise InputError(f"the model gives {len(log_p)} predictions for {len(wanted)} targets")
    wanted = wanted.long()
    known = wanted != IGNORED
    log_p, wanted = log_p[known], wanted[known]
    return F.nll_loss(log_p, wanted, reduction="none"), log_p.argmax(-1) == wanted


def score_outputs(
    run: Callable[[Any, Any], Any],
    data: Iterable[Any],
    device: torch.device,
    *,
    loss: Loss | None = None,
    metrics: Mapping[str, Metric] | None = None,
) -> Score:
    """``evaluate`` of what ``run`` makes of the inputs (args, kwargs) of each batch."""
    total = torch.zeros((), dtype=torch.float64, device=device)
    right = torch.zeros((), dtype=torch.float64, device=device)
    count = 0
    meters = {name: _meter(m) for name, m in (metrics or {}).items()}
    for batch in data:
        if not isinstance(batch, list | tuple) or len(batch) != 2 or not isinstance(batch[1], torch.Tensor):
            raise InputError(
                "evaluation needs batches (inputs, targets), with targets a tensor of class numbers;"
                f" {WITHOUT_SCORES}"
            )
        targets = batch[1].to(device)
        args, kwargs = to_device(split_batch(batch), device)
        outputs = run(args, kwargs)
        losses, hits = _losses(loss(outputs, targets)) if loss else _classified(outputs, targets)
        total += losses.sum().double()
        right += math.nan if hits is None else hits.sum()
        count += len(losses)
        for meter in meters.values():
            meter.update(outputs, targets)
    if not count:
        raise InputError("the data holds no batch: nothing to evaluate on")
    extra = {name: float(meter.compute()) for name, meter in meters.items()}
    return Score(float(total) / count, float(right) / count, count, extra)


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
