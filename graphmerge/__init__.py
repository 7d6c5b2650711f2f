"""graphmerge: derive the symmetries of a neural network, prove them, and merge models by them."""

from graphmerge.evaluate import BarrierCurve, Score, barrier, ensemble, evaluate
from graphmerge.export import export_onnx, load_checkpoint, save_checkpoint
from graphmerge.match import Alignment, load_alignment, match
from graphmerge.merge import average, merge
from graphmerge.pipeline import MergeResult, merge_models
from graphmerge.repair import repair, reset_batchnorm
from graphmerge.symmetry import ModelGraph, SymmetryGroup, Transform, Verification, trace, verify

__all__ = [
    "Alignment",
    "BarrierCurve",
    "MergeResult",
    "ModelGraph",
    "Score",
    "SymmetryGroup",
    "Transform",
    "Verification",
    "average",
    "barrier",
    "ensemble",
    "evaluate",
    "export_onnx",
    "load_alignment",
    "load_checkpoint",
    "match",
    "merge",
    "merge_models",
    "repair",
    "reset_batchnorm",
    "save_checkpoint",
    "trace",
    "verify",
]
