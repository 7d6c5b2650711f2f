"""Match: find the symmetry that brings one model into the frame of another."""

from graphmerge.match.alignment import Alignment, Step, load_alignment
from graphmerge.match.matching import match
from graphmerge.match.methods import METHODS, Method

__all__ = ["METHODS", "Alignment", "Method", "Step", "load_alignment", "match"]
