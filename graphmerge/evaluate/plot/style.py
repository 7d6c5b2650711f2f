"""What all pictures share: colours, axes, and files that are the same each time."""

from __future__ import annotations

import io
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import matplotlib
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.text import Text

COLOURS = ("#9a3b3b", "#c98a1b", "#1f6f8b", "#3a7d44", "#6b4c9a", "#5f5f5f")
MARKS = ("o", "s", "D", "^", "v", "P")
SHADES = "viridis"
"""Colours of planes and matrices: even in lightness, so they survive a printer."""

_DPI = 150
_LETTERS = 13
"""Letters of a legend in an inch."""

_LONGEST, _LONGEST_TICK = 100, 48
"""Letters of a text, and of the name of a tick, before its middle is left out."""


def blank(width: float, height: float) -> Figure:
    """An empty figure, in inches."""
    figure = Figure(figsize=(width, height), layout="constrained")
    FigureCanvasAgg(figure)
    return figure


def line_style(k: int, label: str) -> dict[str, Any]:
    """How the line number ``k`` is drawn: colour and mark, so that it is told apart in grey as well."""
    return {
        "color": COLOURS[k % len(COLOURS)],
        "marker": MARKS[k % len(MARKS)],
        "markersize": 3.5,
        "linewidth": 1.4,
        "label": label,
    }


def finish(axes: Axes, label: str, below: str) -> None:
    """Names of the axes, a light grid, no frame."""
    axes.set_xlabel(below)
    axes.set_ylabel(label)
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(alpha=0.25)
    axes.set_axisbelow(True)


def legend_below(figure: Figure, axes: Axes) -> None:
    """One legend for all panels, under them, where it hides nothing, in as many rows as it needs."""
    handles, labels = axes.get_legend_handles_labels()
    fitting = int(figure.get_figwidth() * _LETTERS / (max(map(len, labels)) + 7))
    figure.legend(
        handles, labels, loc="outside lower center", ncols=max(1, min(4, fitting)), frameon=False, fontsize=9
    )


def save_figure(figure: Figure, path: str | Path) -> None:
    """Write a figure in the format of the file's ending (.svg, .png, .pdf)."""
    _settle(figure)
    with matplotlib.rc_context({"svg.hashsalt": "graphmerge"}):
        figure.savefig(path, dpi=_DPI, metadata=_undated(Path(path).suffix))


def svg(figure: Figure) -> str:
    """The figure as the text of an SVG element, to stand in a page."""
    out = io.StringIO()
    _settle(figure)
    with matplotlib.rc_context({"svg.hashsalt": "graphmerge"}):
        figure.savefig(out, format="svg", metadata=_undated(".svg"))
    text = out.getvalue()
    return text[text.index("<svg") :]


def _settle(figure: Figure) -> None:
    """Make a figure ready to be written any number of times: laid out once, with names that are only seen.

    There is no mathematics between dollar signs.
    """
    if figure.get_layout_engine() is None:
        return
    for text in figure.findobj(Text):
        if isinstance(text, Text):
            text.set_parse_math(False)
            text.set_text(_shortened(printable(text.get_text()), _LONGEST))
    figure.draw_without_rendering()
    figure.set_layout_engine("none")


def ticks(names: Sequence[str]) -> list[str]:
    """Names as they stand beside an axis."""
    return [_shortened(printable(name), _LONGEST_TICK) for name in names]


def printable(text: str) -> str:
    """A text without characters that steer a terminal or a browser instead of being seen."""
    return "".join(c if c.isprintable() or c == "\n" else "\N{REPLACEMENT CHARACTER}" for c in text)


def _shortened(text: str, most: int) -> str:
    half = (most - 3) // 2
    return text if len(text) <= most else f"{text[:half]}...{text[-half:]}"


def _undated(suffix: str) -> dict[str, None]:
    if suffix == ".png":
        return {"Software": None}
    return {"Date": None} if suffix == ".svg" else {"CreationDate": None}
