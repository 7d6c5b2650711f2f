"""Measures by layer: features, variances, similarities, stitching, distances."""

from __future__ import annotations

from collections.abc import Callable

from graphmerge.evaluate.connectivity import Connectivity, lewc, llfc
from graphmerge.evaluate.distance import distances
from graphmerge.evaluate.measures.measure import AS_IS, Findings, Table, Task, headline, number, percent
from graphmerge.evaluate.plot import layer_figure, matrix_figure
from graphmerge.evaluate.similarity import cka
from graphmerge.evaluate.stitch import stitch
from graphmerge.evaluate.variance import VariancePath, variance_path


def measure_llfc(task: Task, at: float) -> Findings:
    """Layerwise linear feature connectivity of two models."""
    return _connectivity(task, llfc, at)


def measure_lewc(task: Task, at: float) -> Findings:
    """Layerwise exponentially weighted connectivity of two models."""
    return _connectivity(task, lewc, at)


def _connectivity(task: Task, measure: Callable[..., Connectivity], at: float) -> Findings:
    found = {
        frame: measure(task.traced, a, b, task.data, at, only=task.layers)
        for frame, (a, b) in task.frames.items()
    }
    last = list(found.values())[-1]
    layers = [r.layer for r in last.rows]
    deviations = {frame: [r.deviation for r in c.rows] for frame, c in found.items()}
    baseline = {f"the two models, {frame}": [r.baseline for r in c.rows] for frame, c in found.items()}
    coefficients = {frame: [r.coefficient for r in c.rows] for frame, c in found.items()}
    columns = ("layer", *(f"{f}: {what}" for f in found for what in ("1 - cos", "of the two", "coef.")))
    rows = tuple(
        (name, *(number(v) for c in found.values() for v in _values(c, k))) for k, name in enumerate(layers)
    )
    title = f"{last.kind} at {at:g}"
    drawn = {
        "cosine": layer_figure(layers, deviations | baseline, "1 - cosine", title),
        "coefficient": layer_figure(layers, coefficients, "coefficient", title, 1.0),
    }
    return Findings(
        {frame: c.to_json() for frame, c in found.items()},
        (Table(title, columns, rows),),
        {f"{last.kind.lower()}-{n}": f for n, f in drawn.items()},
    )


def _values(found: Connectivity, k: int) -> tuple[float, float, float]:
    row = found.rows[k]
    return row.deviation, row.baseline, row.coefficient


def measure_variance(task: Task, points: int) -> Findings:
    """Variance of activations along the path between two models, in every frame and repaired."""
    found = {
        frame: variance_path(task.traced, a, b, task.data, points, only=task.layers)
        for frame, (a, b) in task.frames.items()
    }
    if task.repairs:
        (a, b), way = task.best, task.repairs(task.best)
        found[f"{list(found)[-1]} + {task.repair}"] = variance_path(
            task.traced, a, b, task.data, points, lambda s, t: way(s, (1 - t, t)), only=task.layers
        )
    layers = next(iter(found.values())).layers
    middle = {frame: _at_middle(path) for frame, path in found.items()}
    title = "Variance of the merged model relative to the line between its endpoints, at the middle"
    rows = tuple(
        (name, *(number(values[k], 3) for values in middle.values())) for k, name in enumerate(layers)
    )
    return Findings(
        {frame: path.to_json() for frame, path in found.items()},
        (Table(title, ("layer", *middle), rows),),
        {"variance": layer_figure(layers, middle, "variance ratio", title, 1.0)},
    )


def _at_middle(path: VariancePath) -> tuple[float, ...]:
    return min(zip(path.at, path.ratio, strict=True), key=lambda x: abs(x[0] - 0.5))[1]


def measure_cka(task: Task) -> Findings:
    """CKA of the layers of two models, and of their merge with each of them."""
    a, b = task.best
    merged = task.merged()
    pairs = {
        f"{task.names[0]} and {task.names[1]}": (a, b),
        f"merged and {task.names[0]}": (merged, a),
        f"merged and {task.names[1]}": (merged, b),
    }
    found = {n: cka(task.traced, *pair, task.data, only=task.layers) for n, pair in pairs.items()}
    first = next(iter(found.values()))
    title = "Linear CKA of the same layers"
    diagonals = {n: c.diagonal for n, c in found.items()}
    rows = tuple(
        (name, *(number(d[k], 3) for d in diagonals.values())) for k, name in enumerate(first.layers)
    )
    matrix = matrix_figure(
        first.values, first.layers, first.layers, "CKA", "Linear CKA between layers",
        low=0, high=1, axes_names=task.names[:2] if len(task.names) == 2 else ("", ""),
    )  # fmt: skip
    return Findings(
        {n: c.to_json() for n, c in found.items()},
        (Table(title, ("layer", *found), rows),),
        {"cka": layer_figure(first.layers, diagonals, "CKA", title), "cka-matrix": matrix},
    )


def measure_stitch(task: Task) -> Findings:
    """The first part of each model with the rest of the other."""
    a, b = task.names
    found = {}
    for frame, (first, second) in task.frames.items():
        for name, pair in ((f"{a} to {b}", (first, second)), (f"{b} to {a}", (second, first))):
            found[f"{frame}: {name}"] = stitch(
                task.traced, *pair, task.data, loss=task.loss, progress=task.progress
            )
    cuts = next(iter(found.values())).cuts
    title = "Stitched networks: one up to the layer, the other after it"
    rows = tuple((cut, *(headline(s.scores[k]) for s in found.values())) for k, cut in enumerate(cuts))
    right = task.loss.right is not None
    heights = {n: [100 * x.accuracy if right else x.loss for x in s.scores] for n, s in found.items()}
    label = "accuracy (%)" if right else f"loss ({task.loss.unit})"
    return Findings(
        {n: s.to_json() for n, s in found.items()},
        (Table(title, ("layer", *found), rows),),
        {"stitch": layer_figure(cuts, heights, label, title)},
    )


def measure_distance(task: Task) -> Findings:
    """Distances and angles of two models, before and after alignment."""
    (a, b), after = task.states, task.best[1]
    found = distances(task.traced, a, b, after)
    rows = tuple(
        (
            r.name,
            str(r.entries),
            number(r.distance_before, 3),
            number(r.distance_after, 3),
            number(r.angle_before, 1),
            number(r.angle_after, 1),
            percent(r.gain),
        )
        for r in (*found.parameters, found.total)
    )
    columns = ("parameter", "entries", "distance", "aligned", "angle (°)", "aligned", "gained")
    title = "Distance of two models before and after alignment"
    heights = {AS_IS: [m.distance_before for m in found.modules]}
    if task.aligned:
        heights["aligned"] = [m.distance_after for m in found.modules]
    modules = [m.name for m in found.modules]
    drawn = {"distance": layer_figure(modules, heights, "L2 distance", title)}
    return Findings(found.to_json(), (Table(title, columns, rows),), drawn)
