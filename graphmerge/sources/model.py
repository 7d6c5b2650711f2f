"""The module that a user names, and the device that it runs on."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import torch
from torch import nn

from graphmerge.errors import InputError, UsageError, out_of_memory, refusal
from graphmerge.sources.archive import SUFFIX, build_from_archive
from graphmerge.sources.factory import import_object
from graphmerge.sources.huggingface import build_from_config, default_inputs, is_folder


@dataclass(frozen=True)
class Built:
    """A module, and the example inputs that are known of it, as a recipe writes them."""

    module: nn.Module
    examples: tuple[str, ...] = ()


def build_model(spec: str, device: torch.device, trusted: bool = False) -> Built:
    """The module that ``spec`` names, on ``device``, in evaluation mode.

    ``spec`` is ``module:factory`` or ``module:factory(width=2)``, a folder with a config.json, or an
    archive of torch.export, which is read only if it is ``trusted``. Raises UsageError for anything
    else, and where the module cannot be made.
    """
    if is_folder(spec):
        made = build_from_config(spec)
        built = Built(made, default_inputs(made))
    elif Path(spec).suffix == SUFFIX:
        built = Built(*build_from_archive(spec, trusted))
    elif Path(spec).suffix == ".onnx" or Path(spec).exists():
        raise UsageError(_no_model(spec))
    else:
        built = Built(_call(spec))
    return Built(built.module.to(device).eval(), built.examples)


def build_on_meta(spec: str, trusted: bool = False) -> Built:
    """The same without memory for its weights; a factory that needs their values is run on the CPU first."""
    if Path(spec).suffix == SUFFIX:
        return build_model(spec, torch.device("meta"), trusted)
    try:
        with torch.device("meta"):
            return build_model(spec, torch.device("meta"), trusted)
    except (UsageError, InputError, NotImplementedError, RuntimeError):
        return build_model(spec, torch.device("meta"), trusted)


def _call(spec: str) -> nn.Module:
    factory, arguments = import_object(spec)
    try:
        model = factory(**arguments)
    except Exception as error:
        if out_of_memory(error):
            raise
        raise UsageError(f"{spec!r} failed: {type(error).__name__}: {error}") from error
    if not isinstance(model, nn.Module):
        raise UsageError(f"{spec!r} gives a {type(model).__name__}, expected a torch.nn.Module")
    return model


def _no_model(spec: str) -> str:
    onnx = Path(spec).suffix == ".onnx"
    return refusal(
        f"{spec!r} is no model that can be traced.",
        expected="module:factory, a folder with a config.json, or a .pt2 of torch.export.save",
        seen="an ONNX file" if onnx else "a folder without config.json" if Path(spec).is_dir() else "a file",
        means="an ONNX file does not say which weights a checkpoint has" if onnx else "no network is known",
        fix="name the torch module that it was made from (--model module:factory), or export that to .pt2",
    )


def pick_device(name: str) -> torch.device:
    """``auto`` is the GPU where there is one."""
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    if name == "cuda" and not torch.cuda.is_available():
        raise UsageError("--device cuda: torch sees no CUDA device here; use --device cpu")
    if name not in ("cpu", "cuda"):
        raise UsageError(f"unknown device {name!r}; there are: auto, cpu, cuda")
    return torch.device(name)
