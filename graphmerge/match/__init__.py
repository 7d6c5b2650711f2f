"""Match: find the symmetry that brings one model into the frame of another."""

from graphmerge.match.alignment import Alignment, Step, load_alignment
from graphmerge.match.matching import match

__all__ = ["Alignment", "Step", "load_alignment", "match"]
