"""Whether batches of data can be used, found out before anything long begins."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import nn
from torch.utils import _pytree as pytree

from graphmerge.errors import InputError, refusal
from graphmerge.match.data import dry_run
from graphmerge.metrics import IGNORED, logits_of
from graphmerge.progress import Progress, silent
from graphmerge.trace.run import State, split_batch


def check_batches(
    model: nn.Module, state: State, data: Sequence[Any], example: Any = None, say: Progress = silent
) -> None:
    """Run the model on the first batch, and look for NaN and for strange targets in all of them.

    ``example`` are inputs that the model takes. ``say`` is told where all targets are one class. Raises
    InputError where the model does not run, an input is NaN, or a target is no class that the model has.
    """
    outputs = dry_run(model, state, data, example)
    for k, batch in enumerate(data, 1):
        inputs = [t for t in pytree.tree_leaves(split_batch(batch)) if isinstance(t, torch.Tensor)]
        if any(bool(t.isnan().any()) for t in inputs):
            raise InputError(
                refusal(
                    f"batch {k} of {len(data)} of the data holds NaN.",
                    expected="numbers in all inputs",
                    seen=f"NaN in inputs of shape {', '.join(str(tuple(t.shape)) for t in inputs)}",
                    means="every statistic and every loss that is measured on it would be NaN",
                    fix="leave those samples out, or fill in the values that are missing",
                )
            )
    classes = {c for batch in data for c in _classes(batch)}
    _require_classes(classes, outputs)
    if len(classes) == 1 and sum(len(batch[1]) for batch in data) > 1:
        say(f"all targets of the data are class {min(classes)}: they say little of other classes")


def _classes(batch: Any) -> list[int]:
    """The class numbers among the targets; none where these are something else."""
    targets = batch[1] if isinstance(batch, list | tuple) and len(batch) == 2 else None
    if not isinstance(targets, torch.Tensor) or not targets.ndim or targets.is_floating_point():
        return []
    return list(map(int, set(targets[targets != IGNORED].tolist())))


def _require_classes(classes: set[int], outputs: Any) -> None:
    try:
        count = logits_of(outputs).shape[-1]
    except InputError:
        return  # no classifier: its targets are judged by the loss that is stated for them
    if strange := sorted(c for c in classes if not 0 <= c < count):
        raise InputError(
            refusal(
                "the data has targets that are no classes of the model.",
                expected=f"class numbers from 0 to {count - 1} (or {IGNORED}, which is left out)",
                seen=", ".join(map(str, strange[:5])),
                means="data and model belong to different tasks, or classes are counted from 1",
                fix="number the classes as they were when the model was trained",
            )
        )
