"""Files in and out: checkpoints that are checked before use, outputs that are written as a whole."""

from graphmerge.files.check import CheckedState, check_against_model, check_finite
from graphmerge.files.checkpoint import load_checkpoint, read_metadata, same_bytes, save_checkpoint, sha256
from graphmerge.files.output import staged_output, write_text
from graphmerge.files.traced import cached_program

__all__ = [
    "CheckedState",
    "cached_program",
    "check_against_model",
    "check_finite",
    "load_checkpoint",
    "read_metadata",
    "same_bytes",
    "save_checkpoint",
    "sha256",
    "staged_output",
    "write_text",
]
