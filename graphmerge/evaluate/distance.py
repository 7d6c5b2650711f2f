"""Distances and angles between two models, parameter by parameter, before and after alignment."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

from torch import nn

from graphmerge.symmetry import ModelGraph
from graphmerge.trace.run import State, state_of


@dataclass(frozen=True)
class ParameterDistance:
    """One parameter, or several taken together: L2 norms of a, of b, and of their difference."""

    name: str
    entries: int
    norm_a: float
    norm_b: float
    distance_before: float
    distance_after: float

    @property
    def angle_before(self) -> float:
        """Degrees between a and b; NaN where one is 0."""
        return _angle(self, self.distance_before)

    @property
    def angle_after(self) -> float:
        """Degrees between a and aligned b."""
        return _angle(self, self.distance_after)

    @property
    def gain(self) -> float:
        """The part of the distance that alignment took away (1: all, 0: nothing)."""
        return 1 - self.distance_after / self.distance_before if self.distance_before else 0.0

    def to_json(self) -> dict[str, Any]:
        """Everything that the table shows."""
        return {
            "name": self.name,
            "entries": self.entries,
            "distance": {"before": self.distance_before, "after": self.distance_after},
            "angle": {"before": self.angle_before, "after": self.angle_after},
            "gain": self.gain,
        }


@dataclass(frozen=True)
class Distances:
    """A row for every parameter; ``modules`` and ``total`` take them together."""

    parameters: tuple[ParameterDistance, ...]

    @property
    def modules(self) -> tuple[ParameterDistance, ...]:
        """The parameters of each module taken together."""
        return _together(self.parameters, lambda name: name.rpartition(".")[0] or name)

    @property
    def total(self) -> ParameterDistance:
        """All parameters taken together."""
        return _together(self.parameters, lambda _: "all")[0]

    def to_json(self) -> dict[str, Any]:
        """All of it as plain data."""
        return {
            "parameters": [p.to_json() for p in self.parameters],
            "modules": [m.to_json() for m in self.modules],
            "total": self.total.to_json(),
        }


def distances(
    graph: ModelGraph, a: nn.Module | State, b: nn.Module | State, aligned: nn.Module | State
) -> Distances:
    """How far ``b`` is from ``a`` as it came and as it was aligned; buffers do not count."""
    first, before, after = state_of(a), state_of(b), state_of(aligned)
    rows = []
    for name in parameters(graph, first):
        x, y, z = (t[name].detach().double() for t in (first, before, after))
        norms = (float(t.norm()) for t in (x, y, x - y, x - z))
        rows.append(ParameterDistance(name, x.numel(), *norms))
    return Distances(tuple(rows))


def parameters(graph: ModelGraph, state: State) -> list[str]:
    """The floating parameters of a graph, each under one name, in the order of the state dict."""
    found = {t.name for t in graph.program.tensors.values() if not t.is_buffer and t.dtype.is_floating_point}
    return [n for n in state if n in found]


def _together(rows: Iterable[ParameterDistance], key: Callable[[str], str]) -> tuple[ParameterDistance, ...]:
    groups: dict[str, list[ParameterDistance]] = {}
    for row in rows:
        groups.setdefault(key(row.name), []).append(row)
    return tuple(
        ParameterDistance(
            name,
            sum(r.entries for r in group),
            math.hypot(*(r.norm_a for r in group)),
            math.hypot(*(r.norm_b for r in group)),
            math.hypot(*(r.distance_before for r in group)),
            math.hypot(*(r.distance_after for r in group)),
        )
        for name, group in groups.items()
    )


def _angle(row: ParameterDistance, distance: float) -> float:
    scale = row.norm_a * row.norm_b
    # NaN stays NaN: min and max return their first argument where a comparison is false
    inner = (row.norm_a**2 + row.norm_b**2 - distance**2) / 2
    return math.degrees(math.acos(min(max(inner / scale, -1.0), 1.0))) if scale else math.nan
