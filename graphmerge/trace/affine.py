"""The affine operators of a traced graph: where each has its input, its weight and its bias."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import fx

from graphmerge.trace.program import Program


class Operands(NamedTuple):
    """Places of the arguments of an affine operator, and the dimensions of its units.

    ``weight_dim`` is the dimension of the weight along which its output units lie, ``unit_dim`` that
    of the result.
    """

    x: int
    weight: int
    bias: int
    weight_dim: int
    unit_dim: int


AFFINE = {
    "aten::linear": Operands(0, 1, 2, 0, -1),
    "aten::conv1d": Operands(0, 1, 2, 0, 1),
    "aten::conv2d": Operands(0, 1, 2, 0, 1),
    "aten::conv3d": Operands(0, 1, 2, 0, 1),
    "aten::conv_transpose1d": Operands(0, 1, 2, 1, 1),
    "aten::conv_transpose2d": Operands(0, 1, 2, 1, 1),
    "aten::conv_transpose3d": Operands(0, 1, 2, 1, 1),
    "aten::addmm": Operands(1, 2, 0, 1, -1),
}


def op_name(node: fx.Node) -> str:
    """``aten::linear`` and the like; empty for what is no operator."""
    target = node.target
    return target._schema.name if isinstance(target, torch._ops.OpOverload) else ""


def tensor_name(program: Program, node: object) -> str | None:
    """The name of the parameter or buffer that a node stands for; None for any other value."""
    found = program.tensors.get(node.name) if isinstance(node, fx.Node) else None
    return found.name if found else None
