"""Batches of data, as a user names them."""

from __future__ import annotations

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


def _from_npz(path: Path, batch: int = 500) -> Batches:
    if not path.exists():
        raise InputError(f"data file {path} does not exist")
    with np.load(path, allow_pickle=False) as arrays:
        missing = {"inputs", "targets"} - set(arrays.files)
        if missing:
            raise InputError(f"{path} has arrays {sorted(arrays.files)}, expected inputs and targets")
        x, y = torch.from_numpy(arrays["inputs"]), torch.from_numpy(arrays["targets"])
    if len(x) != len(y):
        raise InputError(f"{path}: {len(x)} inputs but {len(y)} targets")
    return [(x[k : k + batch], y[k : k + batch]) for k in range(0, len(x), batch)]
