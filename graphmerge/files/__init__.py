"""Files in and out: checkpoints that are checked before use, outputs that are written as a whole."""

from graphmerge.files.check import CheckedState, check_against_model, check_finite, header_faults, nonfinite
from graphmerge.files.checkpoint import load_checkpoint, read_metadata, same_bytes, save_checkpoint, sha256
from graphmerge.files.output import require_free, staged_output, write_text
from graphmerge.files.shapes import shapes_of
from graphmerge.files.shards import (
    WHOLE,
    hash_of,
    load_weights_of,
    read_index,
    require_index,
    save_model,
    weight_bytes,
    weight_files,
)
from graphmerge.files.traced import cached_program

__all__ = [
    "WHOLE",
    "CheckedState",
    "cached_program",
    "check_against_model",
    "check_finite",
    "hash_of",
    "header_faults",
    "load_checkpoint",
    "load_weights_of",
    "nonfinite",
    "read_index",
    "read_metadata",
    "require_free",
    "require_index",
    "same_bytes",
    "save_checkpoint",
    "save_model",
    "sha256",
    "shapes_of",
    "staged_output",
    "weight_bytes",
    "weight_files",
    "write_text",
]
