"""Barrier curves as a picture."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from graphmerge.evaluate.barrier import BarrierCurve
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


def _finish(axes: Axes, label: str) -> None:
    axes.set_xlabel("share of model b")
    axes.set_ylabel(label)
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(alpha=0.25)
