"""Which parameters to multiply by one factor so that the model's output is multiplied by it."""

from __future__ import annotations

from torch import fx
from torch.utils import _pytree as pytree

from graphmerge.errors import TraceError
from graphmerge.repair.sites import NORMS, bias_of, operands
from graphmerge.trace import Program
from graphmerge.trace.affine import AFFINE, op_name

_FIRST = {
    f"aten::{name}"
    for name in (
        "view", "_unsafe_view", "reshape", "permute", "transpose", "squeeze", "unsqueeze", "clone", "slice",
        "select", "alias", "_to_copy", "contiguous", "expand", "flatten", "dropout", "relu", "leaky_relu",
        "neg", "sum", "mean", "max_pool2d", "avg_pool2d", "adaptive_avg_pool2d", "upsample_nearest2d", "div",
        "index",
    )
}  # fmt: skip
"""Operators that multiply their result by a positive factor where their first argument is."""

_ALL = {"aten::add", "aten::sub", "aten::cat", "aten::stack", "aten::maximum", "aten::minimum"}
"""Operators of which all arguments are to be multiplied."""

_EITHER = {"aten::mul", "aten::matmul", "aten::mm", "aten::bmm"}
"""Operators of which either argument is to be multiplied."""


def scales_of_output(program: Program) -> frozenset[str]:
    """The parameters by which a positive factor goes through to the output.

    Those of the last affine operators, or of the norm before where their weights are read elsewhere too,
    such as a tied embedding. TraceError where there are none, with the reason.
    """
    (output,) = (n for n in program.graph.graph.nodes if n.op == "output")
    leaves = [n for n in pytree.tree_leaves(output.args) if isinstance(n, fx.Node)]
    if len(leaves) != 1:
        raise TraceError(f"the model returns {len(leaves)} tensors: which are the logits cannot be told")
    found = _scale(program, leaves[0], output)
    if isinstance(found, str):
        raise TraceError(f"the output cannot be scaled by weights: {found}")
    return found


def _scale(program: Program, node: object, reader: fx.Node) -> frozenset[str] | str:
    """The parameters that scale the value of a node, or the reason why none do."""
    if not isinstance(node, fx.Node):
        return f"{op_name(reader)} reads a constant"
    if len(node.users) > 1:
        return f"{node.name} is read more than once"
    if node.op == "placeholder":
        tensor = program.tensors.get(node.name)
        return frozenset({tensor.name}) if tensor and not tensor.is_buffer else f"{node.name} is no parameter"
    name, op = op_name(node), operands(program, node)
    if op is not None:
        return _operator(program, node)
    if name in NORMS:
        return f"{name} has no weight"
    if name in _FIRST:
        return _scale(program, node.args[0], node)
    if name in _ALL:
        return _both(*(_scale(program, x, node) for x in pytree.tree_leaves(_tensors(node))))
    if name in _EITHER:
        return _either(*(_scale(program, x, node) for x in node.args[:2]))
    return f"{name or node.name} does not pass a factor on"


def _operator(program: Program, node: fx.Node) -> frozenset[str] | str:
    """Scale the weight and bias; where the weight cannot be, the input of an affine operator in its place."""
    op = operands(program, node)
    assert op is not None
    found = _scale(program, node.args[op.weight], node)
    if isinstance(found, str) and (op_name(node) in AFFINE or op_name(node) == "aten::mul"):
        found = _either(_scale(program, node.args[op.x], node), found)
    bias = bias_of(node, op)
    return found if bias is None else _both(found, _scale(program, bias, node))


def _tensors(node: fx.Node) -> object:
    """The arguments that are added up: a list, or two."""
    return node.args[0] if isinstance(node.args[0], list | tuple) else node.args[:2]


def _both(*found: frozenset[str] | str) -> frozenset[str] | str:
    names: frozenset[str] = frozenset()
    for f in found:
        if isinstance(f, str):
            return f
        if names & f:
            return f"{min(names & f)} would be scaled twice"
        names |= f
    return names


def _either(*found: frozenset[str] | str) -> frozenset[str] | str:
    return next((f for f in found if not isinstance(f, str)), found[-1])
