"""Match: find the symmetry that brings one model into the frame of another."""

from graphmerge.match.alignment import Alignment, MatchingInterrupted, Step, load_alignment
from graphmerge.match.many import WAYS, ManyAlignment, Way, load_many_alignment, match_many
from graphmerge.match.matching import match
from graphmerge.match.methods import METHODS, Method

__all__ = [
    "METHODS",
    "WAYS",
    "Alignment",
    "ManyAlignment",
    "MatchingInterrupted",
    "Method",
    "Step",
    "Way",
    "load_alignment",
    "load_many_alignment",
    "match",
    "match_many",
]
