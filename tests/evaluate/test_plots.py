"""Pictures: each kind holds what it was given, and is the same file each time."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path

import pytest
from matplotlib.figure import Figure

from graphmerge.evaluate import BarrierCurve, Calibration, CurveSpread, LossPlane, Robustness, Score
from graphmerge.evaluate.plot import (
    barrier_figure,
    layer_figure,
    level_figure,
    matrix_figure,
    path_figure,
    plane_figure,
    reliability_figure,
    save_figure,
    svg,
)


def curve(top: float) -> BarrierCurve:
    return BarrierCurve((0.0, 0.5, 1.0), tuple(Score(x, 1 / (1 + x), 10) for x in (1.0, top, 1.0)))


def plane() -> LossPlane:
    scores = tuple(tuple(Score(1 + x * x + y * y, 0.5, 9) for x in range(3)) for y in range(3))
    hole = (scores[0][0], scores[0][1], Score(math.nan, math.nan, 9))  # NaN is left blank
    return LossPlane((0, 1, 2), (0, 1, 2), (hole, *scores[1:]), {"first": (0.0, 0.0)}, ("east", "north"))


def calibrated() -> Calibration:
    return Calibration((0, 3, 7), (math.nan, 0.5, 0.9), (math.nan, 0.4, 1.0))


KINDS: dict[str, Callable[[], Figure]] = {
    "barrier": lambda: barrier_figure(
        {"one": curve(3), "many": CurveSpread((curve(2), curve(4)))}, Score(0.5, 0.9, 9), "T"
    ),
    "path": lambda: path_figure([curve(2), curve(3)], ["a", "b", "c"], "T"),
    "levels": lambda: level_figure({"one": Robustness("fgsm", (0, 1, 2), curve(2).scores)}, "T", "step"),
    "layers": lambda: layer_figure(["conv", "fc"], {"one": [1, 2], "two": [3, 4]}, "value", "T", 1.0),
    "many layers": lambda: layer_figure([f"layer{k}" for k in range(99)], {"one": [1.0] * 99}, "value", "T"),
    "matrix": lambda: matrix_figure([[0, 1], [1, 0]], ["a", "b"], ["a", "b"], "nats", "T", groups=[0, 1]),
    "plane": lambda: plane_figure(plane(), "T"),
    "reliability": lambda: reliability_figure({"one": calibrated(), "two": calibrated()}, "T"),
}


@pytest.mark.parametrize("kind", KINDS)
def test_the_same_results_give_the_same_files(kind: str, tmp_path: Path) -> None:
    for name in ("one", "two"):
        figure = KINDS[kind]()
        save_figure(figure, tmp_path / f"{name}.png")
        save_figure(figure, tmp_path / f"{name}.svg")
    for ending, start in (("png", b"\x89PNG"), ("svg", b"<?xml")):
        one, two = ((tmp_path / f"{n}.{ending}").read_bytes() for n in ("one", "two"))
        assert one == two
        assert one.startswith(start)


def test_an_inline_picture_is_one_element() -> None:
    text = svg(KINDS["path"]())
    assert text.startswith("<svg")
    assert text.rstrip().endswith("</svg>")
    assert text == svg(KINDS["path"]())


def test_the_lines_are_those_of_the_curves() -> None:
    left, right = KINDS["barrier"]().axes
    assert [list(line.get_ydata()) for line in left.lines] == [[1, 3, 1], [1, 3, 1], [0.5, 0.5]]
    assert list(right.lines[0].get_ydata()) == pytest.approx([50, 25, 50])
    band = left.collections[0].get_paths()[0].vertices
    assert max(y for _, y in band) == pytest.approx(3 + math.sqrt(2))


def test_small_matrices_are_written_out_and_large_ones_are_not() -> None:
    assert [t.get_text() for t in KINDS["matrix"]().axes[0].texts] == ["0.00", "1.00", "1.00", "0.00"]
    large = matrix_figure([[0.5] * 40] * 40, ["x"] * 40, ["x"] * 40, "v", "T")
    assert not large.axes[0].texts
    assert len(large.axes[0].get_yticks()) == 20
