"""What the table says of a merge method, and what a method gives."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

import torch

from graphmerge.errors import UsageError

Value = float | int | str
Kind = Literal["any", "shares", "sum", "none"]
"""What the weights are: "any" factors (1/n each by default), "shares" that are made to add up to 1,
factors of task vectors that are a "sum" (1 each by default), or "none"."""


@dataclass(frozen=True)
class Option:
    """A hyperparameter: its default (whose type it has), its bounds, both included, or its choices."""

    default: Value
    text: str
    low: float = 0
    high: float = math.inf
    choices: tuple[str, ...] = ()

    @property
    def expected(self) -> str:
        """What values are allowed, in words."""
        if self.choices:
            return "one of " + ", ".join(self.choices)
        kind = "a whole number" if isinstance(self.default, int) else "a number"
        if self.high == math.inf:
            return f"{kind} of at least {self.low:g}"
        return f"{kind} from {self.low:g} to {self.high:g}"

    def read(self, name: str, value: object) -> Value:
        """The value, from a text too; UsageError where it is out of bounds."""
        found: Value | None = None
        if self.choices:
            found = value if isinstance(value, str) and value in self.choices else None
        elif isinstance(value, str | int | float) and not isinstance(value, bool):
            try:
                number = int(value) if isinstance(self.default, int) else float(value)
            except (ValueError, OverflowError):
                number = math.nan
            exact = isinstance(value, str) or number == value
            found = number if exact and math.isfinite(number) and self.low <= number <= self.high else None
        if found is None:
            raise UsageError(f"option {name}={value!r}: expected {self.expected}")
        return found


@dataclass(frozen=True)
class Merged:
    """A merged state dict, tied weights under one name, and what there is to tell about it."""

    state: dict[str, torch.Tensor]
    notes: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Method:
    """A merge method: how to run it, what it needs, and where it comes from.

    ``run`` takes the job and the options by name. ``base`` says whether it merges task vectors. ``data``
    is "" (none), "inputs", "held-out" batches (inputs, targets) to choose by, or "own" batches of every
    model. ``models`` is the least and the largest number of models.
    """

    run: Callable[..., Merged]
    text: str
    source: str
    weights: Kind = "shares"
    options: Mapping[str, Option] = field(default_factory=dict)
    base: bool = False
    data: Literal["", "inputs", "held-out", "own"] = ""
    models: tuple[int, float] = (1, math.inf)

    def read_options(self, name: str, given: Mapping[str, object]) -> dict[str, Value]:
        """All options, those given checked; UsageError for one that there is not."""
        strange = sorted(given.keys() - self.options.keys())
        if strange:
            known = ", ".join(self.options) or "none"
            raise UsageError(f"{name} has no option {strange[0]!r}; there are: {known}")
        return {n: o.read(n, given[n]) if n in given else o.default for n, o in self.options.items()}
