"""What every method of matching is given, and what it gives back."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from graphmerge.losses import CROSS_ENTROPY, Loss
from graphmerge.match.alignment import Step
from graphmerge.progress import Progress, silent
from graphmerge.symmetry import ModelGraph, Transform
from graphmerge.trace.run import State

Keep = Callable[[Transform, float], None]
"""Called with every transform that is better than the last, and its objective."""


def forget(_: Transform, __: float) -> None:
    """Keep nothing."""


@dataclass(frozen=True)
class Task:
    """Two models to align.

    ``a`` and ``b`` hold the parameters that groups move, each in the same dtype in both (float32 or
    wider), ``states`` the whole state dicts. ``start`` is where to begin (None: the method's own
    choice). ``options`` are those of the method, all of them. ``seconds`` is filled stage by stage,
    ``reached`` holds the last transform that was kept.
    """

    graph: ModelGraph
    a: State
    b: State
    states: tuple[State, State]
    options: Mapping[str, Any]
    data: Iterable[Any] | None = None
    seed: int = 0
    start: Transform | None = None
    loss: Loss = CROSS_ENTROPY
    progress: Progress = silent
    seconds: dict[str, float] = field(default_factory=dict)
    reached: list[tuple[Transform, float]] = field(default_factory=list)

    def keep(self, transform: Transform, objective: float) -> None:
        """Remember what has been reached, for whoever interrupts the method."""
        self.reached[:] = [(transform, objective)]

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        """Count the wall time of a block towards a stage."""
        since = time.perf_counter()
        try:
            yield
        finally:
            self.seconds[name] = self.seconds.get(name, 0.0) + time.perf_counter() - since


@dataclass(frozen=True)
class Found:
    """The result of a method; the fields are those of ``Alignment``."""

    transform: Transform
    objective: float
    start: float
    history: tuple[Step, ...]
    converged: bool
    restarts: tuple[float, ...] = ()
    gaps: Mapping[str, float] | None = None
    notes: Mapping[str, Any] = field(default_factory=dict)
