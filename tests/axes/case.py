"""One row of the table of operator calls that the rules are held to."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch._ops import OpOverload

ATEN = torch.ops.aten
SPACE = "positions in space or time"
PLACES = "an index names the position"

_generator = torch.Generator().manual_seed(0)


@dataclass(frozen=True)
class Case:
    """A call; ``fixed`` are the dimensions that may stay fixed though the operator lets them move."""

    op: OpOverload
    args: Sequence[Any]
    kwargs: Mapping[str, Any] = field(default_factory=dict)
    note: str = ""
    fixed: Mapping[str, Sequence[int]] = field(default_factory=dict)
    because: str = ""

    @property
    def name(self) -> str:
        """The operator's name in the registry."""
        return f"{self.op.namespace}.{self.op._schema.name.split('::')[1]}"

    def __str__(self) -> str:
        return f"{self.name}-{self.note}" if self.note else self.name


def t(*shape: int) -> torch.Tensor:
    """A random tensor in float64."""
    return torch.randn(shape, generator=_generator, dtype=torch.float64)


def pos(*shape: int) -> torch.Tensor:
    """A random tensor in float64, between 0.1 and 0.9."""
    return 0.1 + 0.8 * torch.rand(shape, generator=_generator, dtype=torch.float64)


def ints(*values: int) -> torch.Tensor:
    """A vector of integers."""
    return torch.tensor(values)
