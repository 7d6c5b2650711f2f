"""The loss of a network between two others, which methods with a task loss lower.

BatchNorm normalises by the batch here: the running statistics of two networks say nothing of what is
between them, and are measured anew after any merge.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from graphmerge.errors import InputError
from graphmerge.losses import CROSS_ENTROPY, Loss
from graphmerge.metrics import targets_of
from graphmerge.symmetry import ModelGraph, Transform
from graphmerge.trace.export import quiet_eval
from graphmerge.trace.run import State, device_of, functional, split_batch, to_device

ONE_VALUE = "more than 1 value per channel"
"""What torch says of such a batch."""


def blend(a: State, b: State, at: float) -> dict[str, torch.Tensor]:
    """(1 - at) a + at b; tensors that are not floating are those of a."""
    return {n: torch.lerp(t, b[n].to(t.dtype), at) if t.is_floating_point() else t for n, t in a.items()}


def outputs_between(model: nn.Module, state: State, args: Any, kwargs: Any) -> Any:
    """What a model returns in evaluation mode, but for its BatchNorms; gradients are kept if on.

    Raises InputError for a batch that leaves a BatchNorm a single value per channel.
    """
    grad = torch.is_grad_enabled()
    with quiet_eval(model), torch.set_grad_enabled(grad):
        given = dict(state)
        for path, module in model.named_modules():
            if isinstance(module, _BatchNorm):
                module.training = True
                own = {f"{path}.{n}" if path else n for n in module._buffers}
                given |= {n: given[n].detach().clone() for n in own & given.keys()}  # they are written to
        try:
            return functional(model, given, args, kwargs)
        except ValueError as error:
            if ONE_VALUE not in str(error):
                raise
            raise InputError(
                "a batch is too small: between two models BatchNorm normalises by the batch, which takes more"
                " than one value per channel. Leave out a last batch of one example, or make batches larger"
            ) from error


@dataclass(frozen=True)
class Path:
    """The straight path from ``a`` to a moved ``b`` (whole state dicts), and the data to judge it by."""

    graph: ModelGraph
    a: State
    b: State
    data: Iterable[Any]
    loss: Loss = CROSS_ENTROPY

    def at(self, moved: Mapping[str, torch.Tensor], batch: Any, at: float, *, grad: bool) -> torch.Tensor:
        """The loss of one batch, ``at`` of the way to ``moved``."""
        args, kwargs = to_device(split_batch(batch), device_of(self.a))
        with torch.set_grad_enabled(grad):
            state = blend(self.a, moved, at)
            outputs = outputs_between(self.graph.model, state, args, kwargs)
            return self.loss.mean(outputs, targets_of(batch).to(device_of(self.a)))

    def midpoint(self, transform: Transform) -> float:
        """The mean loss over the batches, half way to b moved by ``transform``."""
        moved = transform.apply(self.b)
        losses = torch.stack([self.at(moved, batch, 0.5, grad=False) for batch in self.data])
        return float(losses.double().mean())
