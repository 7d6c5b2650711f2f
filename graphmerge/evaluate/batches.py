"""Whether batches of data can be used, found out before anything long begins."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import nn
from torch.utils import _pytree as pytree

from graphmerge.errors import InputError, out_of_memory, refusal
from graphmerge.losses import CROSS_ENTROPY, IGNORED, Loss
from graphmerge.match.data import dry_run
from graphmerge.metrics import targets_of
from graphmerge.progress import Progress, silent
from graphmerge.trace.run import State, device_of, split_batch


def check_batches(
    model: nn.Module, state: State, data: Sequence[Any], example: Any = None, say: Progress = silent,
    loss: Loss | None = CROSS_ENTROPY,
) -> None:  # fmt: skip
    """Run the model on the first batch, take its loss, and look for NaN and strange targets in all of them.

    ``example`` are inputs that the model takes. ``say`` is told where all targets are one class. Where
    ``loss`` is None targets are not looked at. Raises InputError where the model or the loss does not run,
    a value is NaN, or a target is none that the loss takes for this model.
    """
    outputs = dry_run(model, state, data, example)
    for k, batch in enumerate(data, 1):
        where = f"batch {k} of {len(data)} of the data"
        _require_numbers(where, "inputs", split_batch(batch))
        if loss:
            _require_numbers(where, "targets", targets_of(batch))
            if why := loss.refuses(outputs, targets_of(batch)):
                raise InputError(why)
    if loss:
        _require_loss(loss, outputs, targets_of(data[0]).to(device_of(state)))
    if loss is CROSS_ENTROPY:
        classes = {c for batch in data for c in set(targets_of(batch).flatten().tolist())} - {IGNORED}
        if len(classes) == 1 and sum(len(targets_of(batch)) for batch in data) > 1:
            say(f"all targets of the data are class {min(classes)}: they say little of other classes")


def _require_numbers(where: str, what: str, values: Any) -> None:
    """InputError for NaN."""
    tensors = [t for t in pytree.tree_leaves(values) if isinstance(t, torch.Tensor)]
    if any(bool(t.isnan().any()) for t in tensors):
        raise InputError(
            refusal(
                f"{where} holds NaN.",
                expected=f"numbers in all {what}",
                seen=f"NaN in {what} of shape {', '.join(str(tuple(t.shape)) for t in tensors)}",
                means="every statistic and every loss that is measured on it would be NaN",
                fix="leave those samples out, or fill in the values that are missing",
            )
        )


def _require_loss(loss: Loss, outputs: Any, targets: torch.Tensor) -> None:
    """Take the loss of a batch once."""
    try:
        loss.mean(outputs, targets)
    except InputError:
        raise
    except Exception as error:
        if out_of_memory(error):
            raise
        raise InputError(
            refusal(
                f"the loss {loss.name} does not take what the model gives and the targets.",
                expected="a tensor of losses, or their mean",
                seen=f"{type(error).__name__} for targets {tuple(targets.shape)} {targets.dtype}",
                means=str(error).split("\n")[0],
                fix="name the loss that the models were trained with: --loss, or loss= in Python",
            )
        ) from error
