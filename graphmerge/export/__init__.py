"""Export: checkpoints, output folders and ONNX files, each checked and written as a whole."""

from graphmerge.export.check import CheckedState, check_against_model, check_finite
from graphmerge.export.checkpoint import load_checkpoint, read_metadata, same_bytes, save_checkpoint, sha256
from graphmerge.export.onnx import OnnxReport, export_onnx
from graphmerge.export.output import staged_output

__all__ = [
    "CheckedState",
    "OnnxReport",
    "check_against_model",
    "check_finite",
    "export_onnx",
    "load_checkpoint",
    "read_metadata",
    "same_bytes",
    "save_checkpoint",
    "sha256",
    "staged_output",
]
