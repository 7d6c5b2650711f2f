"""Repair: the activation statistics of a merged network, corrected in its weights."""

from graphmerge.repair.batchnorm import reset_batchnorm
from graphmerge.repair.repair import RepairReport, available, repair, repair_with_report

__all__ = ["RepairReport", "available", "repair", "repair_with_report", "reset_batchnorm"]
