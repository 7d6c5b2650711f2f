"""graphmerge: derive the symmetries of a neural network, prove them, and merge models by them."""

from graphmerge.errors import GateError, GraphMergeError, InputError, SystemFault, TraceError, UsageError
from graphmerge.evaluate import BarrierCurve, Score, barrier, ensemble, evaluate
from graphmerge.export import export_onnx
from graphmerge.files import load_checkpoint, save_checkpoint
from graphmerge.match import Alignment, ManyAlignment, load_alignment, load_many_alignment, match, match_many
from graphmerge.merge import average, merge, merge_heads
from graphmerge.pipeline import MergeResult, merge_models, prove
from graphmerge.recipe import File, How, Match, Merge, Recipe, Repair, Rule, Stage, read_recipe
from graphmerge.repair import repair, reset_batchnorm
from graphmerge.run import run_recipe
from graphmerge.symmetry import (
    ModelGraph,
    SymmetryGroup,
    Transform,
    Verification,
    check_rule,
    claim,
    rule,
    trace,
    verify,
)

__all__ = [
    "Alignment",
    "BarrierCurve",
    "File",
    "GateError",
    "GraphMergeError",
    "How",
    "InputError",
    "ManyAlignment",
    "Match",
    "Merge",
    "MergeResult",
    "ModelGraph",
    "Recipe",
    "Repair",
    "Rule",
    "Score",
    "Stage",
    "SymmetryGroup",
    "SystemFault",
    "TraceError",
    "Transform",
    "UsageError",
    "Verification",
    "average",
    "barrier",
    "check_rule",
    "claim",
    "ensemble",
    "evaluate",
    "export_onnx",
    "load_alignment",
    "load_checkpoint",
    "load_many_alignment",
    "match",
    "match_many",
    "merge",
    "merge_heads",
    "merge_models",
    "prove",
    "read_recipe",
    "repair",
    "reset_batchnorm",
    "rule",
    "run_recipe",
    "save_checkpoint",
    "trace",
    "verify",
]
