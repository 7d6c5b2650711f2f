"""Loss and accuracy of a network on data, and of the ensemble of several."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import nn

from graphmerge.errors import InputError
from graphmerge.trace.run import State, call, device_of, split_batch, to_device

Loss = Callable[[Any, torch.Tensor], torch.Tensor]
"""Losses [..., no class axis] of single predictions, from outputs and targets."""


@dataclass(frozen=True)
class Score:
    """Mean loss in nats, accuracy from 0 to 1, over ``samples`` predictions (tokens, for a text)."""

    loss: float
    accuracy: float
    samples: int


def logits_of(outputs: Any) -> torch.Tensor:
    """Logits [batch, ..., class] from a tensor or an output with a ``logits`` field."""
    if isinstance(outputs, torch.Tensor):
        return outputs
    if hasattr(outputs, "logits"):
        logits: torch.Tensor = outputs.logits
        return logits
    raise InputError(
        f"the model returns a {type(outputs).__name__}; expected a tensor of logits or a field .logits"
    )


def evaluate(model: nn.Module, state: State, data: Iterable[Any]) -> Score:
    """Cross-entropy and accuracy of ``model`` under ``state`` on batches ``(inputs, targets)``.

    Targets are class numbers [batch, ...] (int64). Sums over all predictions, not over batches.
    The module's mode and weights are not touched. Raises InputError for data without targets.
    """
    return _score(
        data, device_of(state), lambda args, kwargs: forward(model, state, args, kwargs).log_softmax(-1)
    )


def ensemble(model: nn.Module, states: Sequence[State], data: Iterable[Any]) -> Score:
    """The mean of the class probabilities of several networks: what merging can hope for."""

    def together(args: Any, kwargs: Any) -> torch.Tensor:
        each = [forward(model, s, args, kwargs).log_softmax(-1) for s in states]
        return torch.stack(each).logsumexp(0) - torch.tensor(float(len(each))).log()

    return _score(data, device_of(states[0]), together)


def forward(model: nn.Module, state: State, args: Any, kwargs: Any) -> torch.Tensor:
    """Logits [batch, ..., class] (float32 or wider) in evaluation mode, under a state dict."""
    logits = logits_of(call(model, state, args, kwargs))
    return logits.to(torch.promote_types(logits.dtype, torch.float32))


def _score(data: Iterable[Any], device: torch.device, predict: Callable[[Any, Any], torch.Tensor]) -> Score:
    loss = torch.zeros((), dtype=torch.float64, device=device)
    right = torch.zeros((), dtype=torch.int64, device=device)
    count = 0
    for batch in data:
        if not isinstance(batch, list | tuple) or len(batch) != 2 or not isinstance(batch[1], torch.Tensor):
            raise InputError(
                "evaluation needs batches (inputs, targets), with targets a tensor of class numbers"
            )
        targets = batch[1].to(device).reshape(-1)
        args, kwargs = to_device(split_batch(batch), device)
        log_p = predict(args, kwargs)
        log_p = log_p.reshape(-1, log_p.shape[-1])
        if len(log_p) != len(targets):
            raise InputError(f"the model gives {len(log_p)} predictions for {len(targets)} targets")
        loss += F.nll_loss(log_p, targets, reduction="sum").double()
        right += (log_p.argmax(-1) == targets).sum()
        count += len(targets)
    if not count:
        raise InputError("the data holds no batch: nothing to evaluate on")
    return Score(float(loss) / count, float(right) / count, count)
