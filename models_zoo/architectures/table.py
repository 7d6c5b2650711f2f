"""One row of the table of architectures."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

Inputs = tuple[tuple[Any, ...], dict[str, Any]]


@dataclass(frozen=True)
class Architecture:
    """How to build a network and its example inputs.

    ``needs`` is the library that it comes from, ``notes`` what sets it apart from its neighbours.
    """

    name: str
    build: Callable[[], nn.Module]
    inputs: Callable[[], Inputs]
    needs: str = "torch"
    notes: str = ""


def floats(*shape: int) -> Callable[[], Inputs]:
    """One float input of this shape."""
    return lambda: ((torch.randn(shape),), {})
