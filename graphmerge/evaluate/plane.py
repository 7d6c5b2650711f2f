"""The loss on a plane in the space of parameters: through three models, or in random directions.

Sources: Garipov et al. 2018, arXiv 1802.10026, appendix A.1 (the plane through three models); Li et al. 2018,
arXiv 1712.09913, section 4 (random directions, filter-normalised).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from graphmerge.errors import UsageError
from graphmerge.evaluate.distance import parameters
from graphmerge.merge import average
from graphmerge.metrics import Score, Scorer, evaluate
from graphmerge.progress import Progress, silent
from graphmerge.symmetry import ModelGraph
from graphmerge.trace.affine import AFFINE, op_name, tensor_name
from graphmerge.trace.run import State, state_of, tied

PlaneRepair = Callable[[State, Sequence[float]], State]
"""From a state dict and the shares of the three models in it to a repaired one."""


@dataclass(frozen=True)
class LossPlane:
    """Scores [place on y][place on x]; ``marks`` are where models lie.

    The axes are orthogonal: ``x`` and ``y`` are L2 distances (through models) or multiples of the
    directions (random).
    """

    x: tuple[float, ...]
    y: tuple[float, ...]
    scores: tuple[tuple[Score, ...], ...]
    marks: Mapping[str, tuple[float, float]]
    axes: tuple[str, str]

    def to_json(self) -> dict[str, Any]:
        """All of it as plain data."""
        return {
            "x": list(self.x),
            "y": list(self.y),
            "loss": [[s.loss for s in row] for row in self.scores],
            "accuracy": [[s.accuracy for s in row] for row in self.scores],
            "marks": {n: list(p) for n, p in self.marks.items()},
            "axes": list(self.axes),
        }


def plane_through(
    graph: ModelGraph,
    models: Sequence[nn.Module | State],
    data: Iterable[Any],
    points: int = 11,
    margin: float = 0.25,
    repair: PlaneRepair | None = None,
    *,
    names: Sequence[str] = ("a", "b", "c"),
    score: Scorer = evaluate,
    progress: Progress = silent,
) -> LossPlane:
    """The plane through three models in one frame: a at the origin, b on the x axis, in L2 units.

    The grid of ``points`` x ``points`` goes beyond the models by ``margin`` of their extent. Buffers are
    mixed like parameters, so away from the models running variances may be negative and the loss NaN;
    ``repair`` can measure them anew. Raises UsageError for models on one line.
    """
    if len(models) != 3:
        raise UsageError(f"a plane goes through 3 models, got {len(models)}")
    a, b, c = (state_of(m) for m in models)
    own = parameters(graph, a)
    uu, uv, vv = (_inner(own, a, p, q) for p, q in ((b, b), (b, c), (c, c)))
    height2 = vv - uv * uv / uu if uu > 0 else 0.0
    if height2 <= 1e-12 * vv:
        raise UsageError("the three models lie on one line: no plane is given by them")
    width, slope, height = uu**0.5, uv / uu, height2**0.5
    marks = {
        names[0]: (0.0, 0.0),
        names[1]: (width, 0.0),
        names[2]: (slope * width, height),
    }
    x, y = (_grid([p[k] for p in marks.values()], points, margin) for k in (0, 1))

    def at(s: float, t: float) -> State:
        third = t / height
        second = s / width - third * slope
        shares = (1 - second - third, second, third)
        state = average([a, b, c], shares)
        return repair(state, shares) if repair else state

    scores = _score_grid(graph, at, x, y, data, score, progress)
    return LossPlane(x, y, scores, marks, ("L2 distance", "L2 distance"))


def random_plane(
    graph: ModelGraph,
    model: nn.Module | State,
    data: Iterable[Any],
    points: int = 11,
    reach: float = 1.0,
    seed: int = 0,
    *,
    score: Scorer = evaluate,
    progress: Progress = silent,
) -> LossPlane:
    """The plane around a model along two random filter-normalised directions, from -reach to reach."""
    state = state_of(model)
    generator = torch.Generator().manual_seed(seed)
    ends = [
        tied(graph.program, {n: t + d[n] if n in d else t for n, t in state.items()})
        for d in (filter_normalised(graph, state, generator) for _ in range(2))
    ]
    x = y = _grid([-reach, reach], points, 0.0)

    def at(s: float, t: float) -> State:
        return average([state, *ends], (1 - s - t, s, t))

    scores = _score_grid(graph, at, x, y, data, score, progress)
    return LossPlane(x, y, scores, {"model": (0.0, 0.0)}, ("first direction", "second direction"))


def filter_normalised(graph: ModelGraph, state: State, generator: torch.Generator) -> dict[str, torch.Tensor]:
    """A Gaussian direction whose filters have the norms of the model's; 0 for biases and norms (1-d)."""
    program = graph.program
    dims = {
        tensor_name(program, n.args[AFFINE[op_name(n)].weight]): AFFINE[op_name(n)].weight_dim
        for n in program.graph.graph.nodes
        if op_name(n) in AFFINE
    }
    found = {}
    for name in parameters(graph, state):
        t = state[name]
        if t.ndim < 2:
            continue
        noise = torch.randn(t.shape, generator=generator).to(t)
        rest = [d for d in range(t.ndim) if d != dims.get(name, 0)]
        norms = [torch.linalg.vector_norm(v, dim=rest, keepdim=True) for v in (t, noise)]
        found[name] = noise * norms[0] / norms[1].clamp_min(1e-30)
    return found


def _inner(names: Sequence[str], origin: State, p: State, q: State) -> float:
    total = 0.0
    for n in names:
        u, v = (x[n].double() - origin[n].double() for x in (p, q))
        total += float((u * v).sum())
    return total


def _grid(values: Sequence[float], points: int, margin: float) -> tuple[float, ...]:
    if points < 2:
        raise UsageError(f"a plane needs at least 2 points a side, got {points}")
    low, high = min(values), max(values)
    low, high = low - margin * (high - low), high + margin * (high - low)
    return tuple(low + (high - low) * k / (points - 1) for k in range(points))


def _score_grid(
    graph: ModelGraph,
    at: Callable[[float, float], State],
    x: Sequence[float],
    y: Sequence[float],
    data: Iterable[Any],
    score: Scorer,
    progress: Progress,
) -> tuple[tuple[Score, ...], ...]:
    rows = []
    for k, t in enumerate(y, 1):
        progress(f"loss plane: row {k} of {len(y)}")
        rows.append(tuple(score(graph.model, at(s, t), data) for s in x))
    return tuple(rows)
