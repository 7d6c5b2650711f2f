"""Loss barriers: how much worse the path between two models is than its ends."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from torch import nn

from graphmerge.errors import UsageError
from graphmerge.merge import average
from graphmerge.metrics import Score, Scorer, evaluate
from graphmerge.progress import Progress, silent
from graphmerge.symmetry import ModelGraph
from graphmerge.trace.run import State, state_of

Repair = Callable[[State, float], State]
"""From a merged state dict and its place on the path (0: a, 1: b) to a repaired one."""


@dataclass(frozen=True)
class BarrierCurve:
    """Scores along the straight path (1 - at) a + at b; ``at`` [point] from 0 to 1.

    A barrier is NaN where a score of the path is.
    """

    at: tuple[float, ...]
    scores: tuple[Score, ...]

    @property
    def loss(self) -> float:
        """max_at L(at) - (L(0) + L(1)) / 2, in nats (Git Re-Basin, definition 2.1)."""
        losses = [s.loss for s in self.scores]
        return _highest(losses) - (losses[0] + losses[-1]) / 2

    @property
    def loss_above_line(self) -> float:
        """max_at [L(at) - (1 - at) L(0) - at L(1)], in nats: fairer where the ends differ; 0 at the ends."""
        first, last = self.scores[0].loss, self.scores[-1].loss
        return _highest(
            [s.loss - (1 - t) * first - t * last for t, s in zip(self.at, self.scores, strict=True)]
        )

    @property
    def error(self) -> float:
        """The first convention for the error rate (0 to 1)."""
        errors = [1 - s.accuracy for s in self.scores]
        return _highest(errors) - (errors[0] + errors[-1]) / 2

    @property
    def error_above_line(self) -> float:
        """The second convention for the error rate (0 to 1)."""
        errors = [1 - s.accuracy for s in self.scores]
        return _highest(
            [e - (1 - t) * errors[0] - t * errors[-1] for t, e in zip(self.at, errors, strict=True)]
        )

    @property
    def midpoint(self) -> Score:
        """The score nearest to the middle of the path."""
        return min(zip(self.at, self.scores, strict=True), key=lambda x: abs(x[0] - 0.5))[1]

    def to_json(self) -> dict[str, Any]:
        """Points and barriers as plain data."""
        return {
            "at": list(self.at),
            "loss": [s.loss for s in self.scores],
            "accuracy": [s.accuracy for s in self.scores],
            "extra": {n: [s.extra[n] for s in self.scores] for n in self.scores[0].extra},
            "loss barrier": {"max minus mean of ends": self.loss, "max above line": self.loss_above_line},
            "error barrier": {"max minus mean of ends": self.error, "max above line": self.error_above_line},
        }


def _highest(values: Sequence[float]) -> float:
    """The largest value; NaN if one is, which ``max`` may pass over."""
    return math.nan if any(map(math.isnan, values)) else max(values)


def places(points: int) -> tuple[float, ...]:
    """Evenly spaced places on a path from 0 to 1; UsageError for fewer than 2."""
    if points < 2:
        raise UsageError(f"a barrier curve needs at least 2 points, got {points}")
    return tuple(k / (points - 1) for k in range(points))


def barrier(
    graph: ModelGraph,
    a: nn.Module | State,
    b: nn.Module | State,
    data: Iterable[Any],
    points: int = 25,
    repair: Repair | None = None,
    *,
    score: Scorer = evaluate,
    progress: Progress = silent,
) -> BarrierCurve:
    """Evaluate the straight path from ``a`` to ``b`` (already aligned) at ``points`` places.

    ``repair`` is applied to every point, the ends included: it must change nothing there. ``score`` is how
    a network is scored. Raises UsageError for fewer than 2 points.
    """
    at = places(points)
    first, last = state_of(a), state_of(b)
    scores = []
    for k, t in enumerate(at, 1):
        progress(f"barrier curve: point {k} of {points}")
        state: State = average([first, last], [1 - t, t])
        scores.append(score(graph.model, repair(state, t) if repair else state, data))
    return BarrierCurve(at, tuple(scores))


def barrier_path(
    graph: ModelGraph,
    models: Sequence[nn.Module | State],
    data: Iterable[Any],
    points: int = 11,
    *,
    score: Scorer = evaluate,
    progress: Progress = silent,
) -> tuple[BarrierCurve, ...]:
    """The curves of the path that leads straight from each of several models (in one frame) to the next."""
    if len(models) < 2:
        raise UsageError(f"a path needs at least 2 models, got {len(models)}")
    return tuple(
        barrier(graph, a, b, data, points, score=score, progress=progress)
        for a, b in itertools.pairwise(models)
    )
