"""Batches of data, as a user names them."""

from __future__ import annotations

import math
import os
import struct
import zipfile
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import torch

from graphmerge.errors import InputError, amount, out_of_memory, refusal
from graphmerge.files import load_checkpoint
from graphmerge.files.header import METADATA, read_header
from graphmerge.sources.factory import import_object

Batches = list[tuple[Any, Any]]

SAFETENSORS = ".safetensors"

DAMAGE = (OSError, EOFError, ValueError, TypeError, LookupError, zipfile.BadZipFile, zlib.error, struct.error)
"""What zipfile and numpy raise on damaged bytes."""


def load_data(spec: str) -> Batches:
    """Batches ``(inputs, targets)`` from ``module:loader``, or a file of arrays inputs and targets."""
    if spec.endswith((".npz", SAFETENSORS)):
        return _from_file(Path(spec))
    loader, arguments = import_object(spec)
    try:
        batches = list(loader(**arguments))
    except Exception as error:
        if out_of_memory(error):
            raise
        raise InputError(f"{spec!r} failed: {type(error).__name__}: {error}") from error
    for batch in batches:
        if not isinstance(batch, list | tuple):  # a tensor alone would fall apart into its samples
            seen = type(batch).__name__
            raise InputError(f"{spec!r} gives a {seen} as a batch; expected pairs (inputs, targets)")
    return [tuple(batch) for batch in batches]


def check_data_file(path: str | Path) -> dict[str, tuple[int, ...]]:
    """The shapes of inputs and targets in an .npz or .safetensors, from its headers alone.

    Raises InputError where it is missing or damaged, lacks one of the two, or their lengths differ.
    """
    path = Path(path)
    if not path.is_file():
        raise InputError(f"the data file {str(path)!r} does not exist")
    shapes = _safetensors_shapes(path) if path.suffix == SAFETENSORS else _npz_shapes(path)
    if {"inputs", "targets"} - shapes.keys():
        raise InputError(f"{path} has arrays {sorted(shapes)}, expected inputs and targets")
    x, y = shapes["inputs"], shapes["targets"]
    if not x or not y or x[0] != y[0]:
        raise InputError(f"{path}: inputs are {x}, but targets {y}: expected as many")
    return shapes


def _safetensors_shapes(path: Path) -> dict[str, tuple[int, ...]]:
    return {n: tuple(t["shape"]) for n, t in read_header(path).items() if n != METADATA}


def _npz_shapes(path: Path) -> dict[str, tuple[int, ...]]:
    try:
        with zipfile.ZipFile(path) as archive:
            unpacked = sum(entry.file_size for entry in archive.infolist())
            if unpacked > memory_bytes():
                raise InputError(_too_large(path, unpacked))
            return {n.removesuffix(".npy"): _shape(archive, n) for n in archive.namelist()}
    except (*DAMAGE, NotImplementedError) as error:
        raise InputError(f"the data file {str(path)!r} cannot be read as .npz: {error}") from error


def _shape(archive: zipfile.ZipFile, name: str) -> tuple[int, ...]:
    """The shape of an array; ValueError unless the entry has as many bytes as its own header says."""
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
        return shape


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


def _from_file(path: Path, batch: int = 500) -> Batches:
    check_data_file(path)
    arrays = load_checkpoint(path) if path.suffix == SAFETENSORS else _arrays(path)
    x, y = arrays["inputs"], arrays["targets"]
    return [(x[k : k + batch], y[k : k + batch]) for k in range(0, len(x), batch)]


def _arrays(path: Path) -> dict[str, torch.Tensor]:
    try:
        with np.load(path, allow_pickle=False) as arrays:
            return {n: torch.from_numpy(arrays[n]) for n in ("inputs", "targets")}
    except DAMAGE as error:
        raise InputError(f"the data file {str(path)!r} cannot be read: {error}") from error
