"""What a measure works on, what it gives, and what the table says of it."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from matplotlib.figure import Figure
from torch import nn

from graphmerge.errors import UsageError
from graphmerge.losses import CROSS_ENTROPY, Loss
from graphmerge.merge import average
from graphmerge.metrics import Metric, Score, Scorer, evaluate
from graphmerge.options import Option
from graphmerge.progress import Progress, silent
from graphmerge.symmetry import ModelGraph
from graphmerge.trace.run import State

Batches = Sequence[tuple[Any, Any]]
Way = Callable[[State, Sequence[float]], State]
"""A repair: from a merged state dict and the shares of its models."""

AS_IS, ALIGNED = "as is", "aligned"


@dataclass(frozen=True)
class Task:
    """Models to be measured, and the data to measure them on.

    ``states`` [model] are as they came, ``aligned`` the same in the frame of the first (None: they were not
    aligned). ``train`` are the batches of the train curves; ``repairs`` gives the repair for endpoints in
    one frame, and is None where none was asked for.
    """

    model: nn.Module
    graph: ModelGraph | None
    names: tuple[str, ...]
    states: tuple[State, ...]
    data: Batches
    aligned: tuple[State, ...] | None = None
    train: Batches | None = None
    repair: str = "none"
    repairs: Callable[[Sequence[State]], Way] | None = None
    seed: int = 0
    layers: Sequence[str] = ()
    loss: Loss = CROSS_ENTROPY
    metrics: Mapping[str, Metric] = field(default_factory=dict)
    progress: Progress = silent

    @property
    def score(self) -> Scorer:
        """How a network is scored."""
        return partial(evaluate, loss=self.loss, metrics=self.metrics)

    @property
    def traced(self) -> ModelGraph:
        """The graph; UsageError where the model was not traced."""
        if self.graph is None:
            raise UsageError("this measure needs the traced graph of the model")
        return self.graph

    @property
    def frames(self) -> dict[str, tuple[State, ...]]:
        """The models as they are, and aligned where they were."""
        return {AS_IS: self.states} | ({ALIGNED: self.aligned} if self.aligned else {})

    @property
    def best(self) -> tuple[State, ...]:
        """The models in one frame, as far as it is known."""
        return self.aligned or self.states

    def merged(self) -> State:
        """The mean of the models in one frame, repaired where that was asked for."""
        shares = (1 / len(self.best),) * len(self.best)
        state = average(self.best, shares)
        return self.repairs(self.best)(state, shares) if self.repairs else state

    def subjects(self) -> dict[str, State]:
        """Every model by its name and, of several, their merge."""
        own = dict(zip(self.names, self.best, strict=True))
        return own | ({"merged": self.merged()} if len(own) > 1 else {})


@dataclass(frozen=True)
class Table:
    """A table for people: the first column is text, the others are numbers, or ``words`` too."""

    title: str
    columns: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    words: bool = False


@dataclass(frozen=True)
class Findings:
    """What a measure found: plain data, tables, and figures by the names of their files."""

    data: Mapping[str, Any]
    tables: tuple[Table, ...]
    figures: Mapping[str, Figure] = field(default_factory=dict)


@dataclass(frozen=True)
class Measure:
    """A measure, as data: the function, what it says, where it comes from, what it needs.

    ``run`` takes the task and the options by name. ``models`` is the least and the largest number of
    models; ``traced`` says whether it needs the traced graph, ``frames`` whether alignment matters to it,
    ``data`` whether it looks at data, ``classes`` whether it needs logits and class numbers.
    """

    run: Callable[..., Findings]
    text: str
    source: str
    models: tuple[int, float] = (1, math.inf)
    options: Mapping[str, Option] = field(default_factory=dict)
    traced: bool = True
    frames: bool = True
    data: bool = True
    classes: bool = False

    def require(self, name: str, count: int, loss: str) -> None:
        """Refuse a number of models, or a loss, that the measure cannot take."""
        if self.classes and loss != CROSS_ENTROPY.name:
            raise UsageError(f"--measure {name} is of classes: it takes {CROSS_ENTROPY.name}, not {loss}")
        low, high = self.models
        if not low <= count <= high:
            many = f"{low}" if low == high else f"at least {low}" if high == math.inf else f"{low} to {high}"
            raise UsageError(f"--measure {name} takes {many} models, got {count}")


def number(x: float, digits: int = 4) -> str:
    """A number for a table."""
    return f"{x:.{digits}f}"


def percent(x: float) -> str:
    """A part of 1 for a table; nothing where there is none."""
    return "" if math.isnan(x) else f"{100 * x:.2f} %"


def headline(score: Score) -> str:
    """The accuracy, or the loss where that knows no right and wrong."""
    return percent(score.accuracy) or number(score.loss)


def filled(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> tuple[Any, Any]:
    """Columns and rows of a table, without the columns that are empty in all rows."""
    keep = [k for k in range(len(columns)) if any(r[k] for r in rows)]
    return tuple(columns[k] for k in keep), tuple(tuple(r[k] for k in keep) for r in rows)
