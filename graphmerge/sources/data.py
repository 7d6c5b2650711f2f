"""Batches of data, as a user names them."""

from __future__ import annotations

import zipfile
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import torch

from graphmerge.errors import InputError
from graphmerge.sources.factory import import_object

Batches = list[tuple[Any, Any]]


def load_data(spec: str) -> Batches:
    """Batches ``(inputs, targets)`` from ``module:loader`` or an .npz with arrays inputs and targets."""
    if spec.endswith(".npz"):
        return _from_npz(Path(spec))
    loader, arguments = import_object(spec)
    try:
        return [tuple(batch) for batch in loader(**arguments)]
    except Exception as error:
        raise InputError(f"{spec!r} failed: {type(error).__name__}: {error}") from error


def check_data_file(path: str | Path) -> dict[str, tuple[int, ...]]:
    """The shapes of inputs and targets in an .npz, from its headers alone.

    Raises InputError where it is missing or damaged, lacks one of the two, or their lengths differ.
    """
    path = Path(path)
    try:
        with zipfile.ZipFile(path) as archive:
            shapes = {n.removesuffix(".npy"): _shape(archive, n) for n in archive.namelist()}
    except (OSError, ValueError, zipfile.BadZipFile, EOFError) as error:
        raise InputError(f"the data file {str(path)!r} cannot be read as .npz: {error}") from error
    if {"inputs", "targets"} - shapes.keys():
        raise InputError(f"{path} has arrays {sorted(shapes)}, expected inputs and targets")
    x, y = shapes["inputs"], shapes["targets"]
    if not x or not y or x[0] != y[0]:
        raise InputError(f"{path}: inputs are {x}, but targets {y}: expected as many")
    return shapes


def _shape(archive: zipfile.ZipFile, name: str) -> tuple[int, ...]:
    with archive.open(name) as file:
        version = np.lib.format.read_magic(file)
        read = (
            np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
        )
        shape: tuple[int, ...] = read(file)[0]
        return shape


def _from_npz(path: Path, batch: int = 500) -> Batches:
    check_data_file(path)
    try:
        with np.load(path, allow_pickle=False) as arrays:
            x, y = torch.from_numpy(arrays["inputs"]), torch.from_numpy(arrays["targets"])
    except (OSError, ValueError, TypeError, zipfile.BadZipFile, zlib.error) as error:
        raise InputError(f"the data file {str(path)!r} cannot be read: {error}") from error
    return [(x[k : k + batch], y[k : k + batch]) for k in range(0, len(x), batch)]
