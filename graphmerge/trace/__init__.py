"""Trace: a live module becomes a functional graph of ATen operators."""

from graphmerge.trace.export import export_program
from graphmerge.trace.program import Program, Tensor

__all__ = ["Program", "Tensor", "export_program"]
