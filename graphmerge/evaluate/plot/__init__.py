"""Pictures of evaluations, as figures and as files; the same results give the same bytes."""

from graphmerge.evaluate.plot.bars import layer_figure
from graphmerge.evaluate.plot.curves import (
    barrier_figure,
    descent_figure,
    level_figure,
    path_figure,
    save_barrier_plot,
    save_descent_plot,
)
from graphmerge.evaluate.plot.matrices import matrix_figure
from graphmerge.evaluate.plot.planes import plane_figure
from graphmerge.evaluate.plot.reliability import reliability_figure
from graphmerge.evaluate.plot.style import printable, save_figure, svg

__all__ = [
    "barrier_figure",
    "descent_figure",
    "layer_figure",
    "level_figure",
    "matrix_figure",
    "path_figure",
    "plane_figure",
    "printable",
    "reliability_figure",
    "save_barrier_plot",
    "save_descent_plot",
    "save_figure",
    "svg",
]
