"""Where activations can be repaired, found on the graph.

A site is an operator whose result can be rescaled and shifted, unit by unit, by changing its own
weight and bias: nothing is added to the network. Affine operators are such, and the affine parts of
norms, and gains by which a parameter multiplies. BatchNorm is a site of another kind, for its
statistics can be measured anew.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import fx

from graphmerge.trace import Program
from graphmerge.trace.affine import AFFINE, Operands, op_name, tensor_name

_BATCH_NORM = "aten::_native_batch_norm_legit_no_training"

_NO_BIAS = 99
"""A place beyond all arguments."""

NORMS = {
    "aten::layer_norm": Operands(0, 2, 3, 0, -1),
    "aten::group_norm": Operands(0, 2, 3, 0, 1),
    "aten::instance_norm": Operands(0, 1, 2, 0, 1),
    "aten::rms_norm": Operands(0, 2, _NO_BIAS, 0, -1),
}
"""Norms that look at one example alone, whose weight and bias have one number a unit."""

_MOVES = {
    f"aten::{name}"
    for name in ("view", "permute", "transpose", "squeeze", "unsqueeze", "clone", "slice", "select", "alias",
                 "_to_copy")
}  # fmt: skip


@dataclass(frozen=True)
class Sum:
    """An addition: its node, which of its arguments a site makes, and the dimension of the units there."""

    node: str
    place: int
    unit_dim: int


@dataclass(frozen=True)
class Site:
    """An operator: its node, its weight and bias, and the dimension of its units in each.

    Where there is a ``sum``, the site is corrected so that this sum has the statistics wanted.
    """

    node: str
    weight: str
    bias: str | None
    weight_dim: int
    unit_dim: int
    sum: Sum | None = None

    @property
    def seen(self) -> tuple[str, int]:
        """The node whose statistics count, and the dimension of the units there."""
        return (self.sum.node, self.sum.unit_dim) if self.sum else (self.node, self.unit_dim)


@dataclass(frozen=True)
class Norm:
    """A BatchNorm: its node, that of its input, and the names of its running mean and variance."""

    node: str
    input: str
    mean: str
    var: str


def norms(program: Program) -> tuple[Norm, ...]:
    """Every BatchNorm with running statistics, in the order in which they run."""
    found = []
    for node in program.graph.graph.nodes:
        if node.op == "call_function" and op_name(node) == _BATCH_NORM:
            mean, var = (tensor_name(program, node.args[k]) for k in (3, 4))
            if mean and var:
                found.append(Norm(node.name, node.args[0].name, mean, var))
    return tuple(found)


def sites(program: Program, gains: bool = False) -> tuple[tuple[Site, ...], dict[str, str]]:
    """Sites in the order in which they run, and the weights that are none, with the reason.

    With ``gains`` the affine parts of norms, and parameters that multiply, are sites too.
    """
    found: list[Site] = []
    skipped: dict[str, str] = {}
    for node in program.graph.graph.nodes:
        op = operands(program, node)
        if op is None or not (gains or op_name(node) in AFFINE):
            continue
        site, reason = _site(program, node, op)
        if site:
            found.append(site)
        elif reason:
            skipped[tensor_name(program, node.args[op.weight]) or node.name] = reason
    return tuple(found), skipped


def operands(program: Program, node: fx.Node) -> Operands | None:
    """Where an affine operator, a norm with a weight or a gain has its operands; None for others."""
    if node.op != "call_function":
        return None
    name = op_name(node)
    if name in AFFINE:
        return AFFINE[name]
    if name in NORMS:
        op = NORMS[name]
        weight = node.args[op.weight] if len(node.args) > op.weight else None
        return op if weight is not None and len(_shape(weight)) == 1 else None
    return _gain(program, node) if name == "aten::mul" else None


def _gain(program: Program, node: fx.Node) -> Operands | None:
    """A product with a parameter that has one number a unit."""
    for weight, x in ((0, 1), (1, 0)):
        shape = _shape(node.args[weight])
        units = [k for k, n in enumerate(shape) if n > 1]
        computed = tensor_name(program, node.args[x]) is None and isinstance(node.args[x], fx.Node)
        if tensor_name(program, node.args[weight]) and computed and len(units) == 1:
            return Operands(x, weight, _NO_BIAS, units[0], units[0] - len(shape))
    return None


def _shape(node: object) -> tuple[int, ...]:
    value = node.meta.get("val") if isinstance(node, fx.Node) else None
    return tuple(value.shape) if isinstance(value, torch.Tensor) else ()


def bias_of(node: fx.Node, op: Operands) -> object:
    """The bias of an operator as it stands among the arguments; None where there is none."""
    return node.args[op.bias] if len(node.args) > op.bias else None


def _site(program: Program, node: fx.Node, op: Operands) -> tuple[Site | None, str]:
    bias_node = bias_of(node, op)
    weight, bias = tensor_name(program, node.args[op.weight]), tensor_name(program, bias_node)
    owned = [n for n in (node.args[op.weight], bias_node) if isinstance(n, fx.Node)]
    if weight is None or (bias_node is not None and bias is None):
        return None, "its weight is computed, not a parameter"
    if any(len(n.users) > 1 for n in owned):
        return None, "its weight is used more than once"
    if node.kwargs.get("beta", 1) != 1:
        return None, f"its bias counts {node.kwargs['beta']} times"
    if "transpose" in op_name(node) and len(node.args) > 6 and node.args[6] != 1:
        return None, "a transposed convolution in groups"
    if all(op_name(user) == _BATCH_NORM for user in node.users):
        return None, ""  # the BatchNorm corrects it
    if reaches_output(node):
        return None, "its result is the output of the model"
    return Site(node.name, weight, bias, op.weight_dim, op.unit_dim), ""


def reaches_output(node: fx.Node) -> bool:
    """The value goes out of the model with nothing but reshapes in between."""
    return any(
        user.op == "output" or (op_name(user) in _MOVES and reaches_output(user)) for user in node.users
    )
