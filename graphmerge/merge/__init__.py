"""Merge: one state dict out of several in one frame."""

from graphmerge.merge.average import average
from graphmerge.merge.heads import Head, merge_heads
from graphmerge.merge.merge import MergeReport, merge, merge_with_report, require_call
from graphmerge.merge.methods import METHODS

__all__ = [
    "METHODS",
    "Head",
    "MergeReport",
    "average",
    "merge",
    "merge_heads",
    "merge_with_report",
    "require_call",
]
