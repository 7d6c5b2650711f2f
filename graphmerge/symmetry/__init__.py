"""Symmetry: the groups of a traced model, their transforms, and the proof that they hold."""

from graphmerge.symmetry.graph import FixedAxis, ModelGraph, SymmetryGroup, trace
from graphmerge.symmetry.transform import Transform

__all__ = ["FixedAxis", "ModelGraph", "SymmetryGroup", "Transform", "trace"]
