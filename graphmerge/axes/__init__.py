"""Axes: what each operator states about the dimensions of its tensors."""

from graphmerge.axes import rules as _rules
from graphmerge.axes.registry import RULES, Call, Registry
from graphmerge.axes.units import ANY, FIXED, Link, Universe, Value, Where, Whole, constant_value, fixed_value

assert _rules

__all__ = [
    "ANY",
    "FIXED",
    "RULES",
    "Call",
    "Link",
    "Registry",
    "Universe",
    "Value",
    "Where",
    "Whole",
    "constant_value",
    "fixed_value",
]
