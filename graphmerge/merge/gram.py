"""Affine operators as matrix products: their inputs as rows, their weights as matrices."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import fx

from graphmerge.trace import Program
from graphmerge.trace.affine import AFFINE, op_name, tensor_name
from graphmerge.trace.run import Visit

MEMORY = 1 << 25
"""Numbers that the rows taken at a time may hold."""


@dataclass(frozen=True)
class Product:
    """An affine operator whose weight is a parameter: its node, the parameter, and the operator.

    ``bias`` is its bias, where that is a parameter which nothing else reads.
    """

    node: str
    weight: str
    op: str
    groups: int
    bias: str | None = None

    def matrix(self, weight: torch.Tensor, bias: torch.Tensor | None = None) -> torch.Tensor:
        """The weight as [group, output unit, input feature]; a bias stands for one more feature."""
        if self.op == "aten::addmm":
            weight = weight.T
        matrix = weight.reshape(self.groups, weight.shape[0] // self.groups, -1)
        return matrix if bias is None else torch.cat([matrix, bias.reshape(*matrix.shape[:2], 1)], -1)

    def weight_of(self, matrix: torch.Tensor, like: torch.Tensor) -> torch.Tensor:
        """A weight shaped as ``like`` from such a matrix."""
        return matrix[0].T if self.op == "aten::addmm" else matrix.reshape(like.shape)

    def gram(self, visit: Visit) -> torch.Tensor:
        """X'X of the input features over the number of rows: [group, feature, feature] (float64)."""
        count, total = 0, torch.zeros((), dtype=torch.float64)
        for rows in self.rows(visit):
            total = total.to(rows.device) + rows.mT @ rows
            count += rows.shape[1]
        return total / count

    def rows(self, visit: Visit) -> Iterator[torch.Tensor]:
        """Input features [group, row, feature] (float64: the equations may be close to singular)."""
        x = visit.args[AFFINE[self.op].x].double()
        if self.op in ("aten::linear", "aten::addmm"):
            yield x.reshape(1, -1, x.shape[-1])
            return
        window = visit.args[1].shape[2:]
        size = max(1, MEMORY // (x[0].numel() * window.numel()))
        for part in x.split(size):
            yield _patches(part, window, visit.args, self.groups)


def _patches(x: torch.Tensor, window: Sequence[int], args: Sequence[Any], groups: int) -> torch.Tensor:
    """What a convolution sees at each place: [group, row, channel of the group x place in the window]."""
    n = len(window)
    given = ((3, 1), (4, 0), (5, 1))  # place among the arguments, and default
    stride, padding, dilation = (_each(args[k] if len(args) > k else d, n) for k, d in given)
    sides = [_sides(p, d * (w - 1)) for p, d, w in zip(padding, dilation, window, strict=True)]
    x = F.pad(x, [side for pair in reversed(sides) for side in pair])
    for k in range(n):
        reach = dilation[k] * (window[k] - 1) + 1
        x = x.unfold(2 + k, reach, stride[k])[..., :: dilation[k]]
    x = x.reshape(len(x), groups, -1, *x.shape[2:])  # [sample, group, channel, places..., window...]
    places, offsets = range(3, 3 + n), range(3 + n, 3 + 2 * n)
    x = x.permute(1, 0, *places, 2, *offsets)
    return x.flatten(2 + n).flatten(1, 1 + n)


def _each(value: Any, n: int) -> list[Any]:
    """One value for every spatial dimension."""
    if isinstance(value, Sequence) and not isinstance(value, str):
        return list(value) * (n if len(value) == 1 else 1)
    return [value] * n


def _sides(padding: int | str, reach: int) -> tuple[int, int]:
    """Zeros before and after, for a padding told in numbers or as "same" or "valid"."""
    if padding == "same":
        return reach // 2, reach - reach // 2
    return (0, 0) if isinstance(padding, str) else (padding, padding)


def products(program: Program) -> tuple[tuple[Product, ...], dict[str, str]]:
    """Operators whose weight can be solved for, in the order in which they run; others with the reason."""
    found: list[Product] = []
    skipped: dict[str, str] = {}
    for node in program.graph.graph.nodes:
        if node.op != "call_function" or op_name(node) not in AFFINE:
            continue
        op = op_name(node)
        source = node.args[AFFINE[op].weight]
        weight = tensor_name(program, source)
        if weight is None:
            continue
        other = _other_reader(source)
        if other:
            skipped[weight] = f"{other} reads it too"
        elif "transpose" in op:
            skipped[weight] = "a transposed convolution"
        else:
            groups = node.args[6] if op.startswith("aten::conv") and len(node.args) > 6 else 1
            found.append(Product(node.name, weight, op, groups, _own_bias(program, node)))
    return tuple(p for p in found if p.weight not in skipped), skipped


def _own_bias(program: Program, node: fx.Node) -> str | None:
    """The bias of an affine operator, where it is a parameter that is read there alone."""
    place = AFFINE[op_name(node)].bias
    source = node.args[place] if len(node.args) > place else None
    return tensor_name(program, source) if isinstance(source, fx.Node) and len(source.users) == 1 else None


def _other_reader(source: fx.Node) -> str | None:
    """An operator that reads a weight otherwise than as the weight of a product."""
    for user in source.users:
        op = op_name(user)
        if op not in AFFINE or user.args[AFFINE[op].weight] is not source:
            return op or str(user.target)
    return None
