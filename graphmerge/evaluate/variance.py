"""Variance of activations along the path between two models: what collapses, and REPAIR restores.

Source: Jordan et al. 2022, arXiv 2211.08403, section 3: averaging units that agree only in part shrinks
their variance, and the more the deeper.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from graphmerge.evaluate.barrier import Repair, places
from graphmerge.evaluate.layers import affine_layers, features
from graphmerge.merge import average
from graphmerge.repair.statistics import Moments
from graphmerge.symmetry import ModelGraph
from graphmerge.trace.run import State, program_for, state_of


@dataclass(frozen=True)
class VariancePath:
    """Variance of the results of every affine operator at the places ``at`` [point] (0: a, 1: b).

    ``variance`` [point][layer] is the sum over units; ``ratio`` [point][layer] is relative to the line
    between the ends: 1 at the ends and wherever nothing is lost.
    """

    at: tuple[float, ...]
    layers: tuple[str, ...]
    variance: tuple[tuple[float, ...], ...]

    @property
    def ratio(self) -> tuple[tuple[float, ...], ...]:
        first, last = self.variance[0], self.variance[-1]
        return tuple(
            tuple(
                v / line if (line := (1 - t) * a + t * b) else 1.0
                for v, a, b in zip(row, first, last, strict=True)
            )
            for t, row in zip(self.at, self.variance, strict=True)
        )

    def to_json(self) -> dict[str, Any]:
        """All of it as plain data."""
        return {
            "at": list(self.at),
            "layers": list(self.layers),
            "variance": [list(r) for r in self.variance],
            "ratio": [list(r) for r in self.ratio],
        }


def variance_path(
    graph: ModelGraph,
    a: nn.Module | State,
    b: nn.Module | State,
    data: Iterable[Any],
    points: int = 5,
    repair: Repair | None = None,
    *,
    only: Sequence[str] = (),
) -> VariancePath:
    """Variances at ``points`` places of the path; per unit over samples, space and time, in float64.

    ``repair`` is applied to every point, ``only`` are patterns of layer names.
    """
    at = places(points)
    states = [average([state_of(a), state_of(b)], [1 - t, t]) for t in at]
    states = [dict(repair(s, t)) if repair else s for s, t in zip(states, at, strict=True)]
    program = program_for(graph.model, data, graph.program)
    found = affine_layers(program, only)
    moments = {x.node: [Moments() for _ in at] for x in found}
    with torch.no_grad():
        for layer, values in features(program, states, data, found):
            for m, value in zip(moments[layer.node], values, strict=True):
                m.update(value, layer.unit_dim if layer.unit_dim is not None else -1)
    table = tuple(tuple(float(moments[x.node][k].variance().sum()) for x in found) for k in range(len(at)))
    return VariancePath(at, tuple(x.name for x in found), table)
