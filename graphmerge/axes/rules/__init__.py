"""Importing this package registers every rule."""

from graphmerge.axes.rules import conv, index, linear, norm, pointwise, positions, recurrent, reduce, shape

__all__ = ["conv", "index", "linear", "norm", "pointwise", "positions", "recurrent", "reduce", "shape"]
