"""The module that a user names, and the device that it runs on."""

from __future__ import annotations

import torch
from torch import nn

from graphmerge.errors import UsageError
from graphmerge.sources.factory import import_object


def build_model(spec: str, device: torch.device) -> nn.Module:
    """The module that ``module:factory`` makes, on ``device``."""
    factory, arguments = import_object(spec)
    try:
        model = factory(**arguments)
    except Exception as error:
        raise UsageError(f"{spec!r} failed: {type(error).__name__}: {error}") from error
    if not isinstance(model, nn.Module):
        raise UsageError(f"{spec!r} gives a {type(model).__name__}, expected a torch.nn.Module")
    return model.to(device)


def pick_device(name: str) -> torch.device:
    """``auto`` is the GPU where there is one."""
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    if name == "cuda" and not torch.cuda.is_available():
        raise UsageError("--device cuda: torch sees no CUDA device here; use --device cpu")
    if name not in ("cpu", "cuda"):
        raise UsageError(f"unknown device {name!r}; there are: auto, cpu, cuda")
    return torch.device(name)
