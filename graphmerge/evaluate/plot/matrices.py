"""Heat maps: a value for every pair, written into the cells where there is room."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from matplotlib.figure import Figure

from graphmerge.evaluate.plot.style import SHADES, blank, ticks

_WRITTEN = 14
"""Matrices of more rows than this have colours only."""

_NAMED = 30
"""Of more rows than this every second, third, ... is named."""


def matrix_figure(
    values: Sequence[Sequence[float]],
    rows: Sequence[str],
    columns: Sequence[str],
    label: str,
    title: str,
    *,
    low: float | None = None,
    high: float | None = None,
    groups: Sequence[int] | None = None,
    axes_names: tuple[str, str] = ("", ""),
) -> Figure:
    """Values [row][column] as colours from ``low`` to ``high``, with lines where ``groups`` [row] change."""
    table = np.asarray(values, dtype=float)
    rows, columns = ticks(rows), ticks(columns)
    count = max(table.shape)
    size = min(9.0, max(3.2, 1.6 + (0.62 if count <= _WRITTEN else 0.16) * count))
    figure = blank(size + 1.0, size)
    axes = figure.subplots()
    image = axes.imshow(table, cmap=SHADES, vmin=low, vmax=high)
    figure.colorbar(image, ax=axes, label=label, shrink=0.85)
    step = -(-count // _NAMED)
    turned = 90 if max(map(len, columns)) > 6 else 0
    axes.set_xticks(range(0, len(columns), step), columns[::step], rotation=turned, fontsize=8)
    axes.set_yticks(range(0, len(rows), step), rows[::step], fontsize=8)
    axes.set_ylabel(axes_names[0])
    axes.set_xlabel(axes_names[1])
    axes.spines[:].set_visible(False)
    axes.tick_params(length=0)
    if count <= _WRITTEN:
        low, high = image.get_clim()
        for (i, j), v in np.ndenumerate(table):
            dark = np.isfinite(v) and v < low + 0.6 * (high - low)
            axes.text(
                j, i, f"{v:.2f}", ha="center", va="center", fontsize=8, color="white" if dark else "black"
            )
    for k in range(1, len(groups or ())):
        if groups and groups[k] != groups[k - 1]:
            axes.axhline(k - 0.5, color="white", linewidth=2.5)
            axes.axvline(k - 0.5, color="white", linewidth=2.5)
    figure.suptitle(title, fontsize=11)
    return figure
