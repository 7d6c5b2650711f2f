"""Exported programs (.pt2) as models."""

from __future__ import annotations

import types
import zipfile
from pathlib import Path
from typing import Any

import torch
from torch import nn

from graphmerge.errors import InputError, UsageError, refusal

SUFFIX = ".pt2"


def build_from_archive(path: str | Path, trusted: bool) -> tuple[nn.Module, tuple[str, ...]]:
    """The module of a torch.export archive, in the mode that it was exported in, and its example inputs.

    Raises UsageError unless the file is ``trusted``,
    InputError where it cannot be read.
    """
    if not trusted:
        raise UsageError(
            refusal(
                f"{str(path)!r} is an exported program, and reading one can run code.",
                expected="your word that it can be trusted",
                seen="no --trust",
                means="nothing was read",
                fix="pass --trust (trust: true in a recipe) if you know where the file is from",
            )
        )
    if not Path(path).is_file():
        raise InputError(f"{str(path)!r}: nothing at this path")
    try:
        program = torch.export.load(path)
        module: nn.Module = program.module()
    except (RuntimeError, ValueError, KeyError, OSError, EOFError, zipfile.BadZipFile) as error:
        raise InputError(f"{str(path)!r} is no archive of torch.export: {error}") from error
    for name in ("train", "eval"):  # a program has one mode, and torch refuses to set it
        setattr(module, name, types.MethodType(lambda self, *_: self, module))
    return module, _texts(program.example_inputs)


def _texts(examples: Any) -> tuple[str, ...]:
    """Example inputs as a recipe writes them; empty where they are more than tensors."""
    args, kwargs = examples or ((), {})
    values = [*(("", x) for x in args), *((f"{n}=", x) for n, x in kwargs.items())]
    if not all(isinstance(x, torch.Tensor) and x.dim() for _, x in values):
        return ()
    return tuple(
        f"{name}{'x'.join(map(str, x.shape))}:{str(x.dtype).removeprefix('torch.')}" for name, x in values
    )
