"""Matching of many models: every one into the frame of the first, in any of several ways."""

from graphmerge.match.many.alignment import ManyAlignment, load_many_alignment
from graphmerge.match.many.matching import match_many
from graphmerge.match.many.ways import WAYS, Way, described_ways, fitting_methods, way_settings

__all__ = [
    "WAYS",
    "ManyAlignment",
    "Way",
    "described_ways",
    "fitting_methods",
    "load_many_alignment",
    "match_many",
    "way_settings",
]
