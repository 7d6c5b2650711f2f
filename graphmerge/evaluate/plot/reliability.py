"""Reliability diagrams: how often a network is right, against how sure it is."""

from __future__ import annotations

from collections.abc import Mapping

from matplotlib.figure import Figure

from graphmerge.evaluate.calibration import Calibration
from graphmerge.evaluate.plot.style import COLOURS, blank, legend_below


def reliability_figure(found: Mapping[str, Calibration], title: str) -> Figure:
    """A panel for each network: accuracy of each bin of confidence, and the share of predictions in it."""
    figure = blank(0.6 + 2.9 * len(found), 3.4)
    panels = figure.subplots(1, len(found), sharey=True, squeeze=False)[0]
    for axes, (name, c) in zip(panels, found.items(), strict=True):
        bins, total = len(c.counts), sum(c.counts)
        middles = [(b + 0.5) / bins for b in range(bins)]
        heights = [a if n else 0.0 for n, a in zip(c.counts, c.accuracy, strict=True)]
        axes.bar(middles, heights, 0.94 / bins, color=COLOURS[2], label="accuracy")
        shares = [n / total for n in c.counts]
        axes.step(middles, shares, where="mid", color=COLOURS[1], linewidth=1.2, label="share of predictions")
        axes.plot([0, 1], [0, 1], color="black", linestyle="--", linewidth=0.8, label="calibrated")
        axes.set_title(f"{name}\nECE {100 * c.ece:.1f} %", fontsize=10)
        axes.set_xlim(0, 1)
        axes.set_ylim(0, 1)
        axes.set_aspect("equal")
        axes.set_xlabel("confidence")
        axes.spines[["top", "right"]].set_visible(False)
    legend_below(figure, panels[0])
    figure.suptitle(title, fontsize=11)
    return figure
