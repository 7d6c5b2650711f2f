"""Merge: one state dict out of several in one frame."""

from graphmerge.merge.average import average
from graphmerge.merge.methods import METHODS, merge

__all__ = ["METHODS", "average", "merge"]
