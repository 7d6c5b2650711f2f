"""Bars: a value for every layer, side by side for several networks or frames."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.figure import Figure

from graphmerge.evaluate.plot.style import COLOURS, blank, finish, legend_below, ticks

_NAMED = 48
"""Of more layers than this every second, third, ... is named."""


def layer_figure(
    layers: Sequence[str],
    series: Mapping[str, Sequence[float]],
    label: str,
    title: str,
    line: float | None = None,
) -> Figure:
    """Grouped bars [layer] for each of ``series``; ``line`` is what the values are compared with."""
    layers = ticks(layers)
    count = len(layers)
    figure = blank(min(14.0, max(5.0, 2.0 + 0.28 * count)), 4.2)
    axes = figure.subplots()
    width = 0.82 / len(series)
    places = np.arange(count)
    for k, (name, values) in enumerate(series.items()):
        shift = (k - (len(series) - 1) / 2) * width
        axes.bar(places + shift, values, width, color=COLOURS[k % len(COLOURS)], label=name)
    if line is not None:
        axes.axhline(line, color="black", linestyle="--", linewidth=0.8)
    finish(axes, label, "")
    axes.grid(visible=False, axis="x")
    step = -(-count // _NAMED)
    axes.set_xticks(
        places[::step],
        layers[::step],
        rotation=90 if count * max(map(len, layers)) > 50 else 0,
        fontsize=8,
    )
    axes.set_xlim(-0.6, count - 0.4)
    figure.suptitle(title, fontsize=11)
    if len(series) > 1:
        legend_below(figure, axes)
    return figure
