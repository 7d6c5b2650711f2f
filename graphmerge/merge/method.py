"""What the table says of a merge method, and what a method gives."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

import torch

from graphmerge.options import Option

Kind = Literal["any", "shares", "sum", "none"]
"""What the weights are: "any" factors (1/n each by default), "shares" that are made to add up to 1,
factors of task vectors that are a "sum" (1 each by default), or "none"."""


@dataclass(frozen=True)
class Merged:
    """A merged state dict, tied weights under one name, and what there is to tell about it."""

    state: dict[str, torch.Tensor]
    notes: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Method:
    """A merge method: how to run it, what it needs, and where it comes from.

    ``run`` takes the job and the options by name. ``base`` says whether it merges task vectors. ``data``
    is "" (none), "inputs", "targets" (batches of inputs and targets), "held-out" batches (inputs, targets)
    to choose by, or "own" batches of every model. ``models`` is the least and the largest number of models.
    ``refuses`` says what is wrong with the options for a loss of that name, nothing where it can be run.
    """

    run: Callable[..., Merged]
    text: str
    source: str
    weights: Kind = "shares"
    options: Mapping[str, Option] = field(default_factory=dict)
    base: bool = False
    data: Literal["", "inputs", "targets", "held-out", "own"] = ""
    models: tuple[int, float] = (1, math.inf)
    refuses: Callable[[str, Mapping[str, Any]], str] = lambda *_: ""
