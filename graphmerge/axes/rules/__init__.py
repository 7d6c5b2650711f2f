"""Importing this package registers every rule."""

from graphmerge.axes.rules import (
    conv,
    index,
    linear,
    masked,
    norm,
    pointwise,
    positions,
    recurrent,
    reduce,
    shape,
    spectrum,
)

__all__ = [
    "conv", "index", "linear", "masked", "norm", "pointwise", "positions", "recurrent", "reduce", "shape",
    "spectrum",
]  # fmt: skip
