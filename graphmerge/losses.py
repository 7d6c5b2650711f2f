"""Losses: what networks were trained to lower, and what a merge is judged by."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch.utils import _pytree as pytree

from graphmerge.errors import InputError, UsageError, meant, refusal
from graphmerge.precision import wide

Function = Callable[[Any, torch.Tensor], torch.Tensor]
"""From what a model returns and targets to the losses of single predictions, or to their mean (a scalar)."""

IGNORED = -100
"""Class numbers of this value are left out, as in torch's cross-entropy (padding of texts)."""

WITHOUT_SCORES = "without --data (data=) models are matched by weights and merged, and nothing is scored"
"""What can be done where no loss fits."""


@dataclass(frozen=True)
class Loss:
    """A loss, as data; ``unit`` is what its values are told in.

    ``right`` [prediction] says which predictions are right (None: there is no right and wrong).
    ``together`` makes the outputs of an ensemble of those of its members. ``refuses`` says what is wrong with
    targets, for a model of such outputs; nothing where they can be used.
    """

    name: str
    run: Function
    meaning: str
    unit: str
    right: Function | None = None
    together: Callable[[Sequence[Any]], Any] = lambda outputs: mean_of(outputs)
    refuses: Callable[[Any, torch.Tensor], str] = lambda *_: ""

    def mean(self, outputs: Any, targets: torch.Tensor) -> torch.Tensor:
        """The mean loss of a batch, a scalar."""
        return self.run(outputs, targets).mean()


def logits_of(outputs: Any) -> torch.Tensor:
    """Logits [batch, ..., class] from a tensor, or an output with ``logits`` as a field or a key."""
    found = outputs.get("logits") if isinstance(outputs, Mapping) else getattr(outputs, "logits", outputs)
    if isinstance(found, torch.Tensor):
        return found
    keys = f" of {', '.join(map(repr, outputs))}" if isinstance(outputs, Mapping) else ""
    raise InputError(
        f"the model returns a {type(outputs).__name__}{keys}; expected a tensor, or a field or key 'logits';"
        f" --loss module:function (loss=) takes any outputs; {WITHOUT_SCORES}"
    )


def mean_of(outputs: Sequence[Any]) -> Any:
    """The mean of what several models return, tensor by tensor."""

    def one(*each: Any) -> Any:
        floating = isinstance(each[0], torch.Tensor) and each[0].is_floating_point()
        return torch.stack([wide(x) for x in each]).mean(0) if floating else each[0]

    return pytree.tree_map(one, *outputs)


def classified(outputs: Any, targets: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Logits [prediction, class] and class numbers [prediction], without those that are left out."""
    logits, wanted = wide(logits_of(outputs)), targets.reshape(-1)
    logits = logits.reshape(-1, logits.shape[-1])
    if why := _no_classes(outputs, targets):
        raise InputError(why)
    if len(logits) != len(wanted):
        raise InputError(_other_count(logits_of(outputs), len(logits), targets))
    return logits[wanted != IGNORED], wanted[wanted != IGNORED].long()


def _other_count(logits: torch.Tensor, predictions: int, targets: torch.Tensor) -> str:
    return refusal(
        f"the model gives {predictions} predictions for {targets.numel()} targets.",
        expected="a class number for each prediction",
        seen=f"outputs {tuple(logits.shape)}, targets {tuple(targets.shape)}",
        means="it cannot be said which target belongs to which prediction",
        fix="cut inputs and targets into batches alike; for class probabilities give their largest class",
    )


def _no_classes(outputs: Any, targets: torch.Tensor) -> str:
    """Why cross-entropy cannot take targets; nothing where they are class numbers."""
    shape = tuple(logits_of(outputs).shape)
    if targets.is_floating_point():
        kind = str(targets.dtype).removeprefix("torch.")
        return refusal(
            "cross-entropy does not take these targets.",
            expected="class numbers (int64), one for each prediction",
            seen=f"{kind} {tuple(targets.shape)} for outputs {shape}",
            means="the models were not trained to tell classes apart, or the loss is another",
            fix="name it: --loss mse for numbers, --loss bce for labels that are 0 or 1, or"
            f" --loss module:function (loss= in Python); {WITHOUT_SCORES}",
        )
    known = targets[targets != IGNORED]
    if not known.numel() or 0 <= int(known.min()) <= int(known.max()) < shape[-1]:
        return ""
    strange = sorted(set(known[(known < 0) | (known >= shape[-1])].tolist()))
    return refusal(
        "the data has targets that are no classes of the model.",
        expected=f"class numbers from 0 to {shape[-1] - 1} (or {IGNORED}, which is left out)",
        seen=", ".join(map(str, strange[:5])),
        means="data and model belong to different tasks, or classes are counted from 1",
        fix="number the classes as they were when the model was trained",
    )


def _cross_entropy(outputs: Any, targets: torch.Tensor) -> torch.Tensor:
    return F.cross_entropy(*classified(outputs, targets), reduction="none")


def _right_class(outputs: Any, targets: torch.Tensor) -> torch.Tensor:
    logits, wanted = classified(outputs, targets)
    return logits.argmax(-1) == wanted


def _mean_class(outputs: Sequence[Any]) -> torch.Tensor:
    """Logarithms of the mean of the class probabilities."""
    each = torch.stack([wide(logits_of(o)).log_softmax(-1) for o in outputs])
    return each.logsumexp(0) - math.log(len(each))


def _values(outputs: Any, targets: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Outputs and targets in one shape; a last dimension of 1 may be left out in either."""
    found = wide(logits_of(outputs))
    bare = [t.shape[:-1] if t.ndim > 1 and t.shape[-1] == 1 else t.shape for t in (found, targets)]
    if bare[0] != bare[1]:
        shapes = f"outputs {tuple(found.shape)} for targets {tuple(targets.shape)}"
        raise InputError(f"the model gives {shapes}; this loss takes both in one shape")
    return found, targets.reshape(found.shape).to(found.dtype)


def _by_value(one: Callable[..., torch.Tensor]) -> Function:
    return lambda outputs, targets: one(*_values(outputs, targets), reduction="none")


def _right_label(outputs: Any, targets: torch.Tensor) -> torch.Tensor:
    logits, wanted = _values(outputs, targets)
    return (logits > 0) == (wanted > 0.5)


def _mean_label(outputs: Sequence[Any]) -> torch.Tensor:
    """The logits of the mean probability."""
    z = torch.stack([wide(logits_of(o)) for o in outputs])
    return F.logsigmoid(z).logsumexp(0) - F.logsigmoid(-z).logsumexp(0)


def _no_probabilities(_: Any, targets: torch.Tensor) -> str:
    low, high = targets.min().item(), targets.max().item()
    if 0 <= low <= high <= 1:
        return ""
    return f"targets lie between {low:g} and {high:g}, but bce takes labels from 0 to 1: is the loss another?"


CROSS_ENTROPY = Loss(
    "cross-entropy", _cross_entropy, "class numbers or tokens, logits", "nats",
    _right_class, _mean_class, _no_classes,
)  # fmt: skip

_BCE = Loss(
    "bce", _by_value(F.binary_cross_entropy_with_logits), "labels from 0 to 1, a logit each", "nats",
    _right_label, _mean_label, _no_probabilities,
)  # fmt: skip

LOSSES: Mapping[str, Loss] = {
    loss.name: loss
    for loss in (
        CROSS_ENTROPY,
        _BCE,
        Loss("mse", _by_value(F.mse_loss), "squared difference", "mse"),
        Loss("l1", _by_value(F.l1_loss), "absolute difference", "l1"),
        Loss("huber", _by_value(F.huber_loss), "squared below 1, absolute above", "huber"),
    )
}
"""The losses that have a name."""


def loss_of(given: str | Function | Loss, name: str = "") -> Loss:
    """A loss by its name in the table, or made of a function. UsageError for a name that there is not."""
    if isinstance(given, Loss):
        return given
    if isinstance(given, str):
        require_name(given)
        return LOSSES[given]
    name = name or f"{given.__module__}:{getattr(given, '__qualname__', type(given).__name__)}"
    return Loss(name, given, "a function of outputs and targets", name.partition("(")[0].rpartition(":")[2])


def require_name(name: str) -> None:
    """UsageError unless the table has a loss of that name."""
    if name not in LOSSES:
        there = f"{', '.join(LOSSES)}, or module:function"
        raise UsageError(f"unknown loss {name!r}; there are: {there}{meant(name, LOSSES)}")
