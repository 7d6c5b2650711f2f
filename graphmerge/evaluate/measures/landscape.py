"""Measures of the loss between and around models: barriers, paths, planes, matrices."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Sequence

from graphmerge.errors import UsageError
from graphmerge.evaluate.barrier import Repair, barrier, barrier_path
from graphmerge.evaluate.matrix import barrier_matrix
from graphmerge.evaluate.measures.measure import Batches, Findings, Table, Task, filled, number, percent
from graphmerge.evaluate.plane import LossPlane, plane_through, random_plane
from graphmerge.evaluate.plot import barrier_figure, matrix_figure, path_figure, plane_figure
from graphmerge.evaluate.spread import CurveSpread
from graphmerge.metrics import Score, ensemble
from graphmerge.trace.run import State

LEAST_SCALE = 0.1
"""The colours of barriers reach so many nats at least: smaller ones would look like large ones."""


def measure_barrier(task: Task, points: int) -> Findings:
    """Barriers from the first model to every other, on test and train data, with spread over the others."""
    data, tables, figures, unit = {}, [], {}, task.loss.unit
    for split, batches in (("test", task.data), *([("train", task.train)] if task.train else [])):
        curves = _curves(task, batches, points)
        top = _ensemble(task, batches)
        rows = [_barrier_row(name, c) for name, c in curves.items()]
        title = f"Barriers ({split} data)"
        columns = (
            "line",
            f"loss barrier ({unit})",
            f"above line ({unit})",
            "error barrier",
            "above line",
            f"middle: loss ({unit})",
            "accuracy",
        )
        last = ("ensemble", "", "", "", "", number(top.loss), percent(top.accuracy))
        tables.append(Table(title, *filled(columns, [*rows, last])))
        figures[f"barrier-{split}"] = barrier_figure(
            curves, top, f"Along the path between models, {split} data"
        )
        data[split] = {n: c.to_json() for n, c in curves.items()} | {"ensemble": top.to_json()}
    return Findings(data, tuple(tables), figures)


def _curves(task: Task, batches: Batches, points: int) -> dict[str, CurveSpread]:
    """A line for each frame, and one with the repair."""

    def line(states: Sequence[State], repair: Callable[[State], Repair] | None = None) -> CurveSpread:
        first, *others = states
        return CurveSpread(
            tuple(
                barrier(
                    task.traced, first, other, batches, points, repair(other) if repair else None,
                    score=task.score, progress=task.progress,
                )
                for other in others
            )
        )  # fmt: skip

    found = {frame: line(states) for frame, states in task.frames.items()}
    if task.repairs:
        repairs, first = task.repairs, task.best[0]

        def repaired(other: State) -> Repair:
            way = repairs([first, other])
            return lambda state, at: way(state, (1 - at, at))

        found[f"{list(found)[-1]} + {task.repair}"] = line(task.best, repaired)
    return found


def _ensemble(task: Task, batches: Batches) -> Score:
    """The ensemble of the first with another model; the mean of several."""
    found = [ensemble(task.model, [task.states[0], other], batches, task.loss) for other in task.states[1:]]
    loss, accuracy = (statistics.fmean(x) for x in zip(*((s.loss, s.accuracy) for s in found), strict=True))
    return Score(loss, accuracy, found[0].samples, unit=task.loss.unit)


def _barrier_row(name: str, found: CurveSpread) -> tuple[str, ...]:
    barriers = found.to_json()["barriers"]
    several = len(found.curves) > 1
    cells = []
    for key, form in (
        ("loss", number),
        ("loss above line", number),
        ("error", percent),
        ("error above line", percent),
    ):
        b = barriers[key]
        mean = form(b["mean"])
        cells.append(mean + (f" ± {form(b['std'])}" if several and mean else ""))
    middle = found.mean.midpoint
    return (name, *cells, number(middle.loss), percent(middle.accuracy))


def measure_path(task: Task, points: int) -> Findings:
    """The path through all models in the order in which they are given."""
    curves = barrier_path(task.traced, task.best, task.data, points, score=task.score, progress=task.progress)
    pairs = [f"{a} to {b}" for a, b in zip(task.names, task.names[1:], strict=False)]
    rows = tuple(
        (n, number(c.loss), number(c.loss_above_line), percent(c.error))
        for n, c in zip(pairs, curves, strict=True)
    )
    unit = task.loss.unit
    columns = ("part", f"loss barrier ({unit})", f"above line ({unit})", "error barrier")
    title = "Path through " + ", ".join(task.names)
    return Findings(
        {n: c.to_json() for n, c in zip(pairs, curves, strict=True)},
        (Table(title, *filled(columns, rows)),),
        {"path": path_figure(curves, task.names, title)},
    )


def measure_plane(task: Task, points: int, margin: float) -> Findings:
    """The plane through three models, in every frame."""
    found = {
        frame: plane_through(
            task.traced, states, task.data, points, margin,
            names=task.names, score=task.score, progress=task.progress,
        )
        for frame, states in task.frames.items()
    }  # fmt: skip
    if task.repairs:
        found[f"{list(found)[-1]} + {task.repair}"] = plane_through(
            task.traced, task.best, task.data, points, margin, task.repairs(task.best),
            names=task.names, score=task.score, progress=task.progress,
        )  # fmt: skip
    return _planes(found, "Plane through three models")


def measure_random_plane(task: Task, points: int, reach: float) -> Findings:
    """A random filter-normalised plane around each model, all in the same directions' seed."""
    found = {
        name: random_plane(
            task.traced, state, task.data, points, reach, task.seed, score=task.score, progress=task.progress
        )
        for name, state in task.subjects().items()
    }
    return _planes(found, "Random filter-normalised plane")


def _planes(found: dict[str, LossPlane], title: str) -> Findings:
    rows, unit = [], next(iter(found.values())).scores[0][0].unit
    for name, plane in found.items():
        losses = [s.loss for row in plane.scores for s in row if s.loss == s.loss]
        if not losses:
            raise UsageError(f"{title}, {name}: the loss is nowhere a number")
        rows.append((name, number(min(losses)), number(max(losses))))
    kind = "plane" if "three" in title else "random-plane"
    return Findings(
        {n: p.to_json() for n, p in found.items()},
        (Table(title, ("", f"least loss ({unit})", f"largest loss ({unit})"), tuple(rows)),),
        {f"{kind}-{n.replace(' ', '-')}": plane_figure(p, f"{title}: {n}") for n, p in found.items()},
    )


def measure_matrix(task: Task, points: int, threshold: float | None) -> Findings:
    """Barriers of all pairs and their clusters, in every frame."""
    data, tables, figures = {}, [], {}
    for frame, states in task.frames.items():
        found = barrier_matrix(
            task.traced, states, task.data, points, threshold,
            names=task.names, score=task.score, progress=task.progress,
        )  # fmt: skip
        order = found.order
        names = [found.names[k] for k in order]
        values = [[found.values[i][j] for j in order] for i in order]
        groups = [found.clusters[k] for k in order]
        title = f"Loss barriers of all pairs, {frame}"
        rows = tuple(
            (n, str(g), *(number(v, 3) for v in row)) for n, g, row in zip(names, groups, values, strict=True)
        )
        tables.append(
            Table(
                f"{title}; clusters at {found.threshold:.3g} {task.loss.unit}", ("", "cluster", *names), rows
            )
        )
        figures[f"matrix-{frame.replace(' ', '-')}"] = matrix_figure(
            values,
            names,
            names,
            f"barrier ({task.loss.unit})",
            title,
            low=0,
            high=max(LEAST_SCALE, *map(max, values)),
            groups=groups,
        )
        data[frame] = found.to_json()
    return Findings(data, tuple(tables), figures)
