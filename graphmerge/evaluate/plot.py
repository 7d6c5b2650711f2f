"""Barrier curves, and the course of a matching, as pictures."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import matplotlib
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from graphmerge.evaluate.barrier import BarrierCurve
from graphmerge.match import Alignment
from graphmerge.metrics import Score

_COLOURS = ("#9a3b3b", "#c98a1b", "#1f6f8b", "#3a7d44", "#6b4c9a")
_MARKS = ("o", "s", "D", "^", "v")


def save_barrier_plot(
    curves: Mapping[str, BarrierCurve], ensemble: Score | None, path: str | Path, title: str
) -> None:
    """Write loss and accuracy along the path, one line per curve and a dashed one for the ensemble."""
    figure = Figure(figsize=(9, 3.8), layout="constrained")
    FigureCanvasAgg(figure)
    left, right = figure.subplots(1, 2)
    for k, (name, curve) in enumerate(curves.items()):
        style = {
            "color": _COLOURS[k % len(_COLOURS)],
            "marker": _MARKS[k % len(_MARKS)],
            "markersize": 3.5,
            "label": name,
        }
        left.plot(curve.at, [s.loss for s in curve.scores], **style)
        right.plot(curve.at, [100 * s.accuracy for s in curve.scores], **style)
    if ensemble:
        left.axhline(ensemble.loss, color="black", linestyle="--", linewidth=1, label="ensemble")
        right.axhline(100 * ensemble.accuracy, color="black", linestyle="--", linewidth=1, label="ensemble")
    _finish(left, "loss (nats)")
    _finish(right, "accuracy (%)")
    right.legend(frameon=False, fontsize=8, loc="best")
    figure.suptitle(title, fontsize=11)
    figure.savefig(path, dpi=150, metadata={"Software": None})


def save_descent_plot(alignment: Alignment, path: str | Path) -> None:
    """Write the objective after every accepted step; rounds of restarts are marked by their sweeps.

    The format is that of the file's ending (.svg, .png, .pdf); the same alignment gives the same bytes.
    """
    with matplotlib.rc_context({"svg.hashsalt": "graphmerge"}):
        figure = Figure(figsize=(6, 3.8), layout="constrained")
        FigureCanvasAgg(figure)
        axes = figure.subplots()
        course = [alignment.start, *(s.objective for s in alignment.history)]
        axes.step(range(len(course)), course, where="post", color=_COLOURS[2], marker=".", markersize=4)
        sweeps = [s.sweep for s in alignment.history]
        for k in range(1, len(sweeps)):
            if sweeps[k] != sweeps[k - 1]:
                axes.axvline(k + 0.5, color="black", linewidth=0.4, alpha=0.3)
        _finish(axes, "objective", "accepted steps (lines: sweeps)")
        figure.suptitle(f"{alignment.method} matching, seed {alignment.seed}", fontsize=11)
        no_date = {"Date": None} if str(path).endswith(".svg") else {}
        figure.savefig(path, dpi=150, metadata=no_date)


def _finish(axes: Axes, label: str, below: str = "share of model b") -> None:
    axes.set_xlabel(below)
    axes.set_ylabel(label)
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(alpha=0.25)
