"""Repair: the activation statistics of a merged network, corrected in its weights."""

from graphmerge.repair.batchnorm import reset_batchnorm
from graphmerge.repair.biases import add_biases
from graphmerge.repair.methods import METHODS, Method
from graphmerge.repair.repair import (
    CHOICES,
    RepairReport,
    available,
    has_option,
    repair,
    repair_with_report,
    require_applies,
    require_fitting,
    require_repair,
)
from graphmerge.repair.task import Task

__all__ = [
    "CHOICES",
    "METHODS",
    "Method",
    "RepairReport",
    "Task",
    "add_biases",
    "available",
    "has_option",
    "repair",
    "repair_with_report",
    "require_applies",
    "require_fitting",
    "require_repair",
    "reset_batchnorm",
]
