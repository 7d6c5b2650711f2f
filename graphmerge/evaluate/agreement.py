"""Agreement: on how much of the data two networks predict the same class."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from graphmerge.errors import InputError
from graphmerge.metrics import forward
from graphmerge.trace.run import State, device_of, inputs_of, to_device


@dataclass(frozen=True)
class Agreement:
    """Parts of the predictions (0 to 1) that are the same in two models: ``values`` [model][model]."""

    names: tuple[str, ...]
    values: tuple[tuple[float, ...], ...]

    def to_json(self) -> dict[str, Any]:
        """All of it as plain data."""
        return {"names": list(self.names), "agreement": [list(r) for r in self.values]}


def agreement(
    model: nn.Module, states: Sequence[State], data: Iterable[Any], *, names: Sequence[str] = ()
) -> Agreement:
    """Compare the classes that networks of one architecture predict; no targets are needed."""
    place = device_of(states[0])
    same = torch.zeros(len(states), len(states), dtype=torch.float64, device=place)
    count = 0
    for inputs in inputs_of(data):
        args, kwargs = to_device(inputs, place)
        guesses = torch.stack([forward(model, s, args, kwargs).argmax(-1).reshape(-1) for s in states])
        same += (guesses[:, None] == guesses).double().sum(-1)
        count += guesses.shape[1]
    if not count:
        raise InputError("the data holds no batch: nothing to compare on")
    labels = tuple(names) or tuple(str(k) for k in range(len(states)))
    return Agreement(labels, tuple(map(tuple, (same / count).tolist())))
