"""graphmerge: derive the symmetries of a neural network, prove them, and merge models by them."""

from graphmerge.symmetry import ModelGraph, SymmetryGroup, Transform, trace

__all__ = ["ModelGraph", "SymmetryGroup", "Transform", "trace"]
