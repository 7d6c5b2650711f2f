"""Importing this package registers every rule."""

from graphmerge.axes.rules import conv, linear, norm, pointwise, recurrent, reduce, shape, spectrum

__all__ = ["conv", "linear", "norm", "pointwise", "recurrent", "reduce", "shape", "spectrum"]
