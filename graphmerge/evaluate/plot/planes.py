"""Contours: the loss and the accuracy over a plane, with the models on it."""

from __future__ import annotations

from typing import Literal

import numpy as np
from matplotlib.figure import Figure
from matplotlib.patheffects import withStroke

from graphmerge.evaluate.plane import LossPlane
from graphmerge.evaluate.plot.style import SHADES, blank

_LEVELS = 14

Map = tuple[str, np.ndarray, np.ndarray, str, Literal["max", "neither"]]
"""Label, values [y][x], levels, colours, and what lies beyond."""


def plane_figure(plane: LossPlane, title: str) -> Figure:
    """Contours of loss and accuracy; levels of the loss are even in its logarithm, to its 95th percentile."""
    maps = _maps(plane)
    figure = blank(5 * len(maps), 4.2)
    middle = (plane.x[0] + plane.x[-1]) / 2
    panels = figure.subplots(1, len(maps), squeeze=False)[0]
    for axes, (label, values, levels, shades, beyond) in zip(panels, maps, strict=True):
        filled = axes.contourf(plane.x, plane.y, values, levels=levels, cmap=shades, extend=beyond)
        axes.contour(plane.x, plane.y, values, levels=levels, colors="white", linewidths=0.3, alpha=0.6)
        bar = figure.colorbar(filled, ax=axes, label=label)
        ticks = levels.tolist()[::2]
        bar.set_ticks(ticks, labels=[f"{v:.3g}" for v in ticks])
        for name, (x, y) in plane.marks.items():
            axes.plot(x, y, marker="o", color="white", markeredgecolor="black", markersize=6)
            axes.annotate(
                name, (x, y), textcoords="offset points", fontsize=10,
                xytext=(6, 6) if x <= middle else (-6, 6), ha="left" if x <= middle else "right",
                path_effects=[withStroke(linewidth=2.5, foreground="white")],
            )  # fmt: skip
        axes.set_xlabel(plane.axes[0])
        axes.set_ylabel(plane.axes[1])
        axes.set_aspect("equal")
    figure.suptitle(title, fontsize=11)
    return figure


def _maps(plane: LossPlane) -> list[Map]:
    """The panels: the loss, and the accuracy if there is one; NaN is left blank."""
    loss = np.array([[s.loss for s in row] for row in plane.scores])
    right = 100 * np.array([[s.accuracy for s in row] for row in plane.scores])
    finite = loss[np.isfinite(loss)]
    low, high = max(float(finite.min()), 1e-6), max(float(np.quantile(finite, 0.95)), 1e-5)
    levels = np.geomspace(low, max(high, 1.01 * low), _LEVELS)
    unit = plane.scores[0][0].unit
    found: list[Map] = [(f"loss ({unit})", np.ma.masked_invalid(loss), levels, f"{SHADES}_r", "max")]
    part = right[np.isfinite(right)]
    if part.size:
        grades = np.linspace(part.min(), max(part.max(), part.min() + 1e-3), _LEVELS)
        found.append(("accuracy (%)", np.ma.masked_invalid(right), grades, SHADES, "neither"))
    return found
