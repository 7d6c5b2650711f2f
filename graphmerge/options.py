"""Options of methods as data: one description serves the check, the help text and the report."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

from graphmerge.errors import UsageError, meant

Value = float | int | str | None


@dataclass(frozen=True)
class Option:
    """A hyperparameter: its default (whose type it has), its bounds, both included, or its choices.

    A default of None stands for what ``text`` says of it; other values are then numbers.
    """

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
        if value is None and self.default is None:
            return None
        found: Value = None
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


def read_options(method: str, options: Mapping[str, Option], given: Mapping[str, object]) -> dict[str, Value]:
    """All options of a method, those given checked; UsageError for one that there is not."""
    strange = sorted(given.keys() - options.keys())
    if strange:
        known = ", ".join(options) or "none"
        raise UsageError(
            f"{method} has no option {strange[0]!r}; there are: {known}{meant(strange[0], options)}"
        )
    return {n: o.read(n, given[n]) if n in given else o.default for n, o in options.items()}
