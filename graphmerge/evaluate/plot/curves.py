"""Lines: scores along a path, the course of a matching, scores under growing disturbance."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from graphmerge.evaluate.barrier import BarrierCurve
from graphmerge.evaluate.plot.style import (
    COLOURS,
    blank,
    finish,
    legend_below,
    line_style,
    save_figure,
    ticks,
)
from graphmerge.evaluate.robustness import Robustness
from graphmerge.evaluate.spread import CurveSpread
from graphmerge.match import Alignment
from graphmerge.metrics import Score

Curves = Mapping[str, BarrierCurve | CurveSpread]
Value = tuple[str, Callable[[Score], float]]


def _values(score: Score) -> list[Value]:
    """What is drawn of such scores, a panel each: the loss, and the accuracy if there is one."""
    loss: Value = (f"loss ({score.unit})", lambda s: s.loss)
    right: Value = ("accuracy (%)", lambda s: 100 * s.accuracy)
    return [loss] if math.isnan(score.accuracy) else [loss, right]


def barrier_figure(curves: Curves, ensemble: Score | None, title: str) -> Figure:
    """Loss and accuracy along the path, one line per curve and a dashed one for the ensemble.

    Of several seeds the mean is drawn, in a band of one standard deviation to either side.
    """
    means = {n: c.mean if isinstance(c, CurveSpread) else c for n, c in curves.items()}
    figure, panels = _panels(next(iter(means.values())).scores[0])
    for axes, label, value in panels:
        for k, (name, curve) in enumerate(curves.items()):
            mean = means[name]
            height = [value(s) for s in mean.scores]
            axes.plot(mean.at, height, **line_style(k, name))
            if isinstance(curve, CurveSpread) and len(curve.curves) > 1:
                half = curve.deviations(value)
                low, high = ([y + sign * d for y, d in zip(height, half, strict=True)] for sign in (-1, 1))
                axes.fill_between(
                    mean.at, low, high, color=line_style(k, "")["color"], alpha=0.18, linewidth=0
                )
        if ensemble:
            axes.axhline(value(ensemble), color="black", linestyle="--", linewidth=1, label="ensemble")
        finish(axes, label, "share of model b")
    legend_below(figure, panels[0][0])
    figure.suptitle(title, fontsize=11)
    return figure


def path_figure(curves: Sequence[BarrierCurve], names: Sequence[str], title: str) -> Figure:
    """Loss and accuracy of a path that leads through several models, each a tick."""
    figure, panels = _panels(curves[0].scores[0])
    places = [k + t for k, c in enumerate(curves) for t in c.at]
    for k, (axes, label, value) in enumerate(panels):
        heights = [value(s) for c in curves for s in c.scores]
        axes.plot(places, heights, color=COLOURS[2 - k], marker=".", markersize=4, linewidth=1.4)
        finish(axes, label, "model")
        axes.set_xticks(range(len(names)), ticks(names))
    figure.suptitle(title, fontsize=11)
    return figure


def level_figure(found: Mapping[str, Robustness], title: str, below: str) -> Figure:
    """Loss and accuracy under growing disturbance, a line for each network."""
    figure, panels = _panels(next(iter(found.values())).scores[0])
    for axes, label, value in panels:
        for k, (name, r) in enumerate(found.items()):
            axes.plot(r.levels, [value(s) for s in r.scores], **line_style(k, name))
        axes.xaxis.set_major_locator(MaxNLocator(5))
        finish(axes, label, below)
    legend_below(figure, panels[0][0])
    figure.suptitle(title, fontsize=11)
    return figure


def descent_figure(alignment: Alignment) -> Figure:
    """The objective after every accepted step; rounds of restarts are marked by their sweeps."""
    figure = blank(6, 3.8)
    axes = figure.subplots()
    course = [alignment.start, *(s.objective for s in alignment.history)]
    axes.step(range(len(course)), course, where="post", color=COLOURS[2], marker=".", markersize=4)
    sweeps = [s.sweep for s in alignment.history]
    for k in range(1, len(sweeps)):
        if sweeps[k] != sweeps[k - 1]:
            axes.axvline(k + 0.5, color="black", linewidth=0.4, alpha=0.3)
    finish(axes, "objective", "accepted steps (lines: sweeps)")
    figure.suptitle(f"{alignment.method} matching, seed {alignment.seed}", fontsize=11)
    return figure


def save_barrier_plot(curves: Curves, ensemble: Score | None, path: str | Path, title: str) -> None:
    """Write ``barrier_figure``; the format is that of the file's ending (.svg, .png, .pdf)."""
    save_figure(barrier_figure(curves, ensemble, title), path)


def save_descent_plot(alignment: Alignment, path: str | Path) -> None:
    """Write ``descent_figure``; the format is that of the file's ending (.svg, .png, .pdf)."""
    save_figure(descent_figure(alignment), path)


def _panels(score: Score) -> tuple[Figure, list[tuple[Axes, str, Callable[[Score], float]]]]:
    """A figure with a panel for each value of such scores: its axes, its label, and how it is read."""
    values = _values(score)
    figure = blank(4.5 * len(values), 3.8)
    panels = figure.subplots(1, len(values), squeeze=False)[0]
    return figure, [(axes, *value) for axes, value in zip(panels, values, strict=True)]
