"""What a checkpoint holds, told by its header alone."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor

from graphmerge.errors import InputError
from graphmerge.files.checkpoint import load_checkpoint
from graphmerge.files.header import METADATA, read_header
from graphmerge.files.shards import require_index, weight_files

DTYPES = {
    "F64": torch.float64, "F32": torch.float32, "F16": torch.float16, "BF16": torch.bfloat16,
    "I64": torch.int64, "I32": torch.int32, "I16": torch.int16, "I8": torch.int8, "U8": torch.uint8,
    "BOOL": torch.bool, "C64": torch.complex64, "F8_E4M3": torch.float8_e4m3fn, "F8_E5M2": torch.float8_e5m2,
}  # fmt: skip
"""The names of dtypes in a safetensors header."""


def shapes_of(path: str | Path) -> dict[str, Tensor]:
    """The tensors of a checkpoint on the meta device: names, shapes and dtypes without values.

    Only headers of safetensors files are read; a file of torch.save is opened as ``load_checkpoint`` does.
    Raises InputError as that does, and where an index does not agree with its files.
    """
    files = weight_files(path)
    each = {file: _shapes(file) for file in files}
    require_index(Path(path), {f: set(own) for f, own in each.items()} if files != (Path(path),) else {})
    return {name: t for own in each.values() for name, t in own.items()}


def _shapes(file: Path) -> dict[str, Tensor]:
    with file.open("rb") as opened:
        start = opened.read(9)
    if start[8:9] != b"{":
        return {n: t.to("meta") for n, t in load_checkpoint(file).items()}
    found = {}
    for name, entry in read_header(file).items():
        if name == METADATA:
            continue
        if entry["dtype"] not in DTYPES:
            raise InputError(f"{str(file)!r}: tensor {name!r} has dtype {entry['dtype']!r}: not supported")
        found[name] = torch.empty(entry["shape"], dtype=DTYPES[entry["dtype"]], device="meta")
    return found
