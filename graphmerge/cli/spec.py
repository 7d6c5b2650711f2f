"""What a user types: a model, its example inputs, its data."""

from __future__ import annotations

import ast
import importlib
import re
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from graphmerge.errors import InputError, UsageError

Batches = list[tuple[Any, Any]]


def import_object(spec: str) -> tuple[Callable[..., Any], dict[str, Any]]:
    """The object behind ``module:name`` or ``module:name(key=literal, ...)``, and those arguments."""
    found = re.fullmatch(r"([\w.]+):([\w.]+)(?:\((.*)\))?", spec.strip(), re.DOTALL)
    if not found:
        raise UsageError(f"{spec!r} is not of the form module:name or module:name(width=2)")
    module_name, path, arguments = found.groups()
    if str(Path.cwd()) not in sys.path:
        sys.path.insert(0, str(Path.cwd()))
    try:
        target: Any = importlib.import_module(module_name)
        for part in path.split("."):
            target = getattr(target, part)
    except (ImportError, AttributeError) as error:
        raise UsageError(f"cannot import {spec!r}: {error}; the current folder is importable") from error
    return target, _keywords(arguments or "", spec)


def _keywords(text: str, spec: str) -> dict[str, Any]:
    try:
        call = ast.parse(f"f({text})", mode="eval").body
        assert isinstance(call, ast.Call)
        if call.args or any(k.arg is None for k in call.keywords):
            raise ValueError("only key=literal arguments are read")
        return {str(k.arg): ast.literal_eval(k.value) for k in call.keywords}
    except (SyntaxError, ValueError) as error:
        raise UsageError(
            f"the arguments of {spec!r} cannot be read: {error}; write e.g. (width=2)"
        ) from error


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


def parse_dtype(name: str) -> torch.dtype:
    """``float16``, ``int64`` and the like."""
    dtype = getattr(torch, name, None)
    if not isinstance(dtype, torch.dtype):
        raise UsageError(f"{name!r} is no dtype of torch; expected such as float32, float16, bfloat16, int64")
    return dtype


def parse_input(text: str) -> tuple[str | None, tuple[int, ...], torch.dtype]:
    """``1x3x32x32``, ``ids=2x7:int64``: name, shape and dtype of one example input."""
    found = re.fullmatch(r"(?:(\w+)=)?(\d+(?:x\d+)*)(?::(\w+))?", text.strip())
    if not found:
        raise UsageError(f"input {text!r}: expected [name=]SHAPE[:dtype], such as 1x3x32x32 or ids=2x7:int64")
    return found[1], tuple(int(n) for n in found[2].split("x")), parse_dtype(found[3] or "float32")


def parse_place(text: str) -> tuple[str, int]:
    """``fc.weight:1``: a parameter and one of its dimensions."""
    name, _, axis = text.rpartition(":")
    if not name or not axis.isdigit():
        raise UsageError(f"{text!r}: expected PARAMETER:DIM, such as fc.weight:1")
    return name, int(axis)


def parse_options(texts: Sequence[str]) -> dict[str, str]:
    """``density=0.5``: names and values, still as text."""
    found: dict[str, str] = {}
    for text in texts:
        name, equals, value = text.partition("=")
        if not equals or not name or name in found:
            raise UsageError(f"--option {text!r}: expected NAME=VALUE, each name once, such as density=0.5")
        found[name] = value
    return found


def parse_weights(texts: Sequence[str]) -> dict[str, tuple[float, ...]] | None:
    """``0.3,0.7`` or ``layer1.*=1,0``: weights of the models by pattern; what has no pattern comes last."""
    found: dict[str, tuple[float, ...]] = {}
    for text in texts:
        pattern, _, row = text.rpartition("=")
        try:
            found[pattern or "*"] = tuple(float(w) for w in row.split(","))
        except ValueError as error:
            raise UsageError(
                f"--weights {text!r}: expected [PATTERN=]W,W,... such as 0.3,0.7 or 'layer1.*=1,0'"
            ) from error
    return {p: found[p] for p in sorted(found, key=lambda p: p == "*")} or None


def example_inputs(
    texts: Sequence[str], device: torch.device, seed: int
) -> tuple[tuple[torch.Tensor, ...], dict[str, torch.Tensor]]:
    """Example inputs: floats drawn from a normal distribution, integers 0 or 1."""
    if not texts:
        raise UsageError(
            "tell the shape of the model's input, such as --input 2x3x32x32 (repeat it for several)"
        )
    generator = torch.Generator().manual_seed(seed)
    args: list[torch.Tensor] = []
    kwargs: dict[str, torch.Tensor] = {}
    for name, shape, dtype in map(parse_input, texts):
        if dtype.is_floating_point:
            value = torch.randn(shape, generator=generator).to(dtype)
        else:
            value = torch.randint(0, 2, shape, generator=generator).to(dtype)
        if name:
            kwargs[name] = value.to(device)
        else:
            args.append(value.to(device))
    return tuple(args), kwargs


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


def pick_device(name: str) -> torch.device:
    """``auto`` is the GPU where there is one."""
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    if name == "cuda" and not torch.cuda.is_available():
        raise UsageError("--device cuda: torch sees no CUDA device here; use --device cpu")
    if name not in ("cpu", "cuda"):
        raise UsageError(f"unknown device {name!r}; there are: auto, cpu, cuda")
    return torch.device(name)
