"""Evaluate: scores, barriers, and their picture."""

from graphmerge.evaluate.barrier import BarrierCurve, barrier
from graphmerge.evaluate.plot import save_barrier_plot, save_descent_plot
from graphmerge.metrics import Score, ensemble, evaluate

__all__ = [
    "BarrierCurve",
    "Score",
    "barrier",
    "ensemble",
    "evaluate",
    "save_barrier_plot",
    "save_descent_plot",
]
