"""Example inputs, as a user writes them down."""

from __future__ import annotations

import re
from collections.abc import Sequence

import torch

from graphmerge.errors import UsageError


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
