"""Symmetry: the groups of a traced model, their transforms, and the proof that they hold."""

from graphmerge.symmetry.check import check_call as check_rule
from graphmerge.symmetry.claim import claim
from graphmerge.symmetry.custom import rule
from graphmerge.symmetry.fixed import FixedAxis
from graphmerge.symmetry.graph import ModelGraph, trace
from graphmerge.symmetry.groups import SymmetryGroup
from graphmerge.symmetry.transform import Transform
from graphmerge.symmetry.verify import GroupCheck, Verification, verify

__all__ = [
    "FixedAxis",
    "GroupCheck",
    "ModelGraph",
    "SymmetryGroup",
    "Transform",
    "Verification",
    "check_rule",
    "claim",
    "rule",
    "trace",
    "verify",
]
