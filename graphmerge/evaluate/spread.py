"""Barrier curves of several seeds as one: their mean, and how far they spread."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from graphmerge.errors import UsageError
from graphmerge.evaluate.barrier import BarrierCurve
from graphmerge.metrics import Score


@dataclass(frozen=True)
class CurveSpread:
    """Curves [seed] over the same places."""

    curves: tuple[BarrierCurve, ...]

    def __post_init__(self) -> None:
        if not self.curves or len({c.at for c in self.curves}) != 1:
            raise UsageError("a spread needs curves, all over the same places")

    @property
    def mean(self) -> BarrierCurve:
        """The curve of the mean scores."""
        rows = zip(*(c.scores for c in self.curves), strict=True)
        scores = tuple(
            Score(
                statistics.fmean(s.loss for s in row),
                statistics.fmean(s.accuracy for s in row),
                row[0].samples,
                unit=row[0].unit,
            )
            for row in rows
        )
        return BarrierCurve(self.curves[0].at, scores)

    def deviations(self, value: Callable[[Score], float]) -> list[float]:
        """The standard deviation (n - 1) of a value of the scores at each place; 0 of one seed."""
        rows = zip(*(c.scores for c in self.curves), strict=True)
        return [_deviation([value(s) for s in row]) for row in rows]

    def to_json(self) -> dict[str, Any]:
        """The mean curve, and mean and standard deviation of the barriers over the seeds."""
        barriers = {
            "loss": [c.loss for c in self.curves],
            "loss above line": [c.loss_above_line for c in self.curves],
            "error": [c.error for c in self.curves],
            "error above line": [c.error_above_line for c in self.curves],
        }
        return {
            "seeds": len(self.curves),
            "mean": self.mean.to_json(),
            "curves": [c.to_json() for c in self.curves],
            "barriers": {n: {"mean": statistics.fmean(v), "std": _deviation(v)} for n, v in barriers.items()},
        }


def _deviation(values: Sequence[float]) -> float:
    return statistics.stdev(values) if len(values) > 1 else 0.0
