"""Evaluate: scores, paths and planes of the loss, layers compared, and their pictures."""

from graphmerge.evaluate.agreement import Agreement, agreement
from graphmerge.evaluate.barrier import BarrierCurve, barrier, barrier_path
from graphmerge.evaluate.batches import check_batches
from graphmerge.evaluate.calibration import Calibration, calibration
from graphmerge.evaluate.connectivity import Connectivity, lewc, llfc
from graphmerge.evaluate.distance import Distances, distances
from graphmerge.evaluate.matrix import BarrierMatrix, barrier_matrix
from graphmerge.evaluate.plane import LossPlane, plane_through, random_plane
from graphmerge.evaluate.plot import save_barrier_plot, save_descent_plot
from graphmerge.evaluate.robustness import Robustness, robustness
from graphmerge.evaluate.similarity import LayerSimilarity, cka
from graphmerge.evaluate.spread import CurveSpread
from graphmerge.evaluate.stitch import Stitching, stitch
from graphmerge.evaluate.unmoved import require_unmoved
from graphmerge.evaluate.variance import VariancePath, variance_path
from graphmerge.metrics import Score, ensemble, evaluate

__all__ = [
    "Agreement",
    "BarrierCurve",
    "BarrierMatrix",
    "Calibration",
    "Connectivity",
    "CurveSpread",
    "Distances",
    "LayerSimilarity",
    "LossPlane",
    "Robustness",
    "Score",
    "Stitching",
    "VariancePath",
    "agreement",
    "barrier",
    "barrier_matrix",
    "barrier_path",
    "calibration",
    "check_batches",
    "cka",
    "distances",
    "ensemble",
    "evaluate",
    "lewc",
    "llfc",
    "plane_through",
    "random_plane",
    "require_unmoved",
    "robustness",
    "save_barrier_plot",
    "save_descent_plot",
    "stitch",
    "variance_path",
]
