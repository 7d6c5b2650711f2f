"""Where activations can be repaired, found on the graph.

A site is an affine operator whose result can be rescaled and shifted, unit by unit, by changing
its own weight and bias: nothing is added to the network. BatchNorm is a site of another kind, for
its statistics can be measured anew.
"""

from __future__ import annotations

from dataclasses import dataclass

from torch import fx

from graphmerge.trace import Program
from graphmerge.trace.affine import AFFINE, op_name, tensor_name

_BATCH_NORM = "aten::_native_batch_norm_legit_no_training"


@dataclass(frozen=True)
class Site:
    """An affine operator: its node, its weight and bias, and the dimension of its units in each."""

    node: str
    weight: str
    bias: str | None
    weight_dim: int
    unit_dim: int


@dataclass(frozen=True)
class Norm:
    """A BatchNorm: its node, and the names of its running mean, variance and batch counter."""

    node: str
    mean: str
    var: str


def norms(program: Program) -> tuple[Norm, ...]:
    """Every BatchNorm with running statistics, in the order in which they run."""
    found = []
    for node in program.graph.graph.nodes:
        if node.op == "call_function" and op_name(node) == _BATCH_NORM:
            mean, var = (tensor_name(program, node.args[k]) for k in (3, 4))
            if mean and var:
                found.append(Norm(node.name, mean, var))
    return tuple(found)


def sites(program: Program) -> tuple[tuple[Site, ...], dict[str, str]]:
    """Sites in the order in which they run, and the weights that are none, with the reason."""
    found: list[Site] = []
    skipped: dict[str, str] = {}
    for node in program.graph.graph.nodes:
        if node.op != "call_function" or op_name(node) not in AFFINE:
            continue
        site, reason = _site(program, node)
        if site:
            found.append(site)
        elif reason:
            skipped[tensor_name(program, node.args[AFFINE[op_name(node)].weight]) or node.name] = reason
    return tuple(found), skipped


def _site(program: Program, node: fx.Node) -> tuple[Site | None, str]:
    op = AFFINE[op_name(node)]
    bias_node = node.args[op.bias] if len(node.args) > op.bias else None
    weight, bias = tensor_name(program, node.args[op.weight]), tensor_name(program, bias_node)
    owned = [n for n in (node.args[op.weight], bias_node) if isinstance(n, fx.Node)]
    if weight is None or (bias_node is not None and bias is None):
        return None, "its weight is computed, not a parameter"
    if any(len(n.users) > 1 for n in owned):
        return None, "its weight is used more than once"
    if "transpose" in op_name(node) and len(node.args) > 6 and node.args[6] != 1:
        return None, "a transposed convolution in groups"
    if all(op_name(user) == _BATCH_NORM for user in node.users):
        return None, ""  # the BatchNorm corrects it
    if _reaches_output(node):
        return None, "its result is the output of the model"
    return Site(node.name, weight, bias, op.weight_dim, op.unit_dim), ""


def _reaches_output(node: fx.Node) -> bool:
    """The value goes out of the model with nothing but reshapes in between."""
    moves = (
        "view",
        "permute",
        "transpose",
        "squeeze",
        "unsqueeze",
        "clone",
        "slice",
        "select",
        "alias",
        "_to_copy",
    )
    for user in node.users:
        if user.op == "output":
            return True
        if op_name(user).removeprefix("aten::") in moves and _reaches_output(user):
            return True
    return False
