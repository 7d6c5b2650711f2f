"""Batches of data, as a user names them."""

from __future__ import annotations

import math
import os
import struct
import zipfile
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch

from graphmerge.errors import InputError, amount, out_of_memory, refusal
from graphmerge.files import load_checkpoint, shapes_of
from graphmerge.sources.factory import import_object, is_import

Batches = list[tuple[Any, Any]]

SAFETENSORS = ".safetensors"

BATCH, PARTS = 500, 4
"""Samples of a file that are a batch; of a small file fewer, so that some batches can be held out."""

DAMAGE = (OSError, EOFError, ValueError, TypeError, LookupError, zipfile.BadZipFile, zlib.error, struct.error)
"""What zipfile and numpy raise on damaged bytes."""


def load_data(spec: str) -> Batches:
    """Batches ``(inputs, targets)`` from ``module:loader``, or a file of arrays inputs and targets."""
    if spec.endswith((".npz", SAFETENSORS)):
        return _from_file(Path(spec))
    if not is_import(spec):
        raise InputError(_no_data(spec, f"{spec!r}, which is neither", "nothing was read"))
    loader, arguments = import_object(spec)
    try:
        batches = list(loader(**arguments))
    except Exception as error:
        if out_of_memory(error):
            raise
        seen = f"{type(error).__name__}: {error}"
        raise InputError(
            _no_data(spec, seen, "the call failed, or what it returns holds no batches")
        ) from error
    if not batches:
        raise InputError(_no_data(spec, "no batch at all", "there is nothing to measure on"))
    for batch in batches:
        if not isinstance(batch, list | tuple):  # a tensor alone would fall apart into its samples
            seen = f"a {type(batch).__name__} as a batch"
            raise InputError(_no_data(spec, seen, "inputs and targets cannot be told apart"))
    return [tuple(batch) for batch in batches]


def _no_data(spec: str, seen: str, means: str) -> str:
    return refusal(
        f"{spec!r} gives no data.",
        expected="module:loader, which returns batches (inputs, targets) in a list, a generator or a"
        " DataLoader; or a file .npz or .safetensors with inputs and targets",
        seen=seen,
        means=means,
        fix="call it in Python once: list(loader()) must be a list of pairs of tensors"
        if is_import(spec)
        else "name such a file, or a loader such as mydata:train",
    )


def check_data_file(path: str | Path) -> dict[str, torch.Tensor]:
    """Inputs and targets of an .npz or .safetensors on the meta device, from its headers alone.

    Raises InputError where it is missing or damaged, lacks one of the two, or their lengths differ.
    """
    path = Path(path)
    if not path.is_file() or path.suffix not in (".npz", SAFETENSORS):
        seen = f"a file {path.suffix}" if path.is_file() else "no file of that name, and no module:loader"
        raise InputError(_no_data(str(path), seen, "nothing was read"))
    found = shapes_of(path) if path.suffix == SAFETENSORS else _npz_shapes(path)
    if {"inputs", "targets"} - found.keys():
        raise InputError(f"{path} has arrays {sorted(found)}, expected inputs and targets")
    x, y = found["inputs"], found["targets"]
    if not x.ndim or not y.ndim or len(x) != len(y):
        raise InputError(f"{path}: inputs are {(*x.shape,)}, but targets {(*y.shape,)}: expected as many")
    return found


def _npz_shapes(path: Path) -> dict[str, torch.Tensor]:
    try:
        with zipfile.ZipFile(path) as archive:
            unpacked = sum(entry.file_size for entry in archive.infolist())
            if unpacked > memory_bytes():
                raise InputError(_too_large(path, unpacked))
            return {n.removesuffix(".npy"): _array(archive, n) for n in archive.namelist()}
    except (*DAMAGE, NotImplementedError) as error:
        raise InputError(f"the data file {str(path)!r} cannot be read as .npz: {error}") from error


def _array(archive: zipfile.ZipFile, name: str) -> torch.Tensor:
    """An array without its values; ValueError unless the entry has as many bytes as its own header says."""
    with archive.open(name) as file:
        version = np.lib.format.read_magic(file)
        read = (
            np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
        )
        shape: tuple[int, ...]
        shape, _, dtype = read(file)
        declared, held = math.prod(shape) * dtype.itemsize, archive.getinfo(name).file_size - file.tell()
        if declared != held:
            raise ValueError(f"{name} says that it has {declared} bytes, and has {held}")
        return torch.from_numpy(np.empty(0, dtype)).to("meta").new_empty(shape)


def memory_bytes() -> int:
    """Bytes of memory that this machine has."""
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")


def _too_large(path: Path, unpacked: int) -> str:
    return refusal(
        f"the data file {str(path)!r} does not fit into memory.",
        expected=f"at most {amount(memory_bytes())}, all that this machine has",
        seen=f"{amount(unpacked)}, packed into {amount(path.stat().st_size)}",
        means="nothing was unpacked",
        fix="give fewer samples: some thousands are enough for matching and repair",
    )


def _from_file(path: Path) -> Batches:
    check_data_file(path)
    return batches_of(load_checkpoint(path) if path.suffix == SAFETENSORS else _arrays(path))


def batches_of(arrays: Mapping[str, torch.Tensor]) -> Batches:
    """The inputs and targets of a file, cut into batches."""
    x, y = arrays["inputs"], arrays["targets"]
    batch = max(1, min(BATCH, len(x) // PARTS))
    return [(x[k : k + batch], y[k : k + batch]) for k in range(0, len(x), batch)]


def _arrays(path: Path) -> dict[str, torch.Tensor]:
    try:
        with np.load(path, allow_pickle=False) as arrays:
            return {n: torch.from_numpy(arrays[n]) for n in ("inputs", "targets")}
    except DAMAGE as error:
        raise InputError(f"the data file {str(path)!r} cannot be read: {error}") from error
