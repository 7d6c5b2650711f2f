"""Match: find the symmetry that brings one model into the frame of another."""

from graphmerge.match.alignment import Alignment, Step, load_alignment
from graphmerge.match.matching import Progress, match

__all__ = ["Alignment", "Progress", "Step", "load_alignment", "match"]
