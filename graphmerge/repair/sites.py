"""Where activations can be repaired, found on the graph.

A site is an affine operator whose result can be rescaled and shifted, unit by unit, by changing
its own weight and bias: nothing is added to the network. BatchNorm is a site of another kind, for
its statistics can be measured anew.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import fx

from graphmerge.trace import Program

_AFFINE = {  # operator: (place of x, weight, bias; weight's output dimension; output's unit dimension)
    "aten::linear": (0, 1, 2, 0, -1),
    "aten::conv1d": (0, 1, 2, 0, 1),
    "aten::conv2d": (0, 1, 2, 0, 1),
    "aten::conv3d": (0, 1, 2, 0, 1),
    "aten::conv_transpose1d": (0, 1, 2, 1, 1),
    "aten::conv_transpose2d": (0, 1, 2, 1, 1),
    "aten::conv_transpose3d": (0, 1, 2, 1, 1),
    "aten::addmm": (1, 2, 0, 1, -1),
}
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


def _name(node: fx.Node) -> str:
    target = node.target
    return target._schema.name if isinstance(target, torch._ops.OpOverload) else ""


def _tensor(program: Program, node: object) -> str | None:
    found = program.tensors.get(node.name) if isinstance(node, fx.Node) else None
    return found.name if found else None


def norms(program: Program) -> tuple[Norm, ...]:
    """Every BatchNorm with running statistics, in the order in which they run."""
    found = []
    for node in program.graph.graph.nodes:
        if node.op == "call_function" and _name(node) == _BATCH_NORM:
            mean, var = (_tensor(program, node.args[k]) for k in (3, 4))
            if mean and var:
                found.append(Norm(node.name, mean, var))
    return tuple(found)


def sites(program: Program) -> tuple[tuple[Site, ...], dict[str, str]]:
    """Sites in the order in which they run, and the weights that are none, with the reason."""
    found: list[Site] = []
    skipped: dict[str, str] = {}
    for node in program.graph.graph.nodes:
        if node.op != "call_function" or _name(node) not in _AFFINE:
            continue
        site, reason = _site(program, node)
        if site:
            found.append(site)
        elif reason:
            skipped[_tensor(program, node.args[_AFFINE[_name(node)][1]]) or node.name] = reason
    return tuple(found), skipped


def _site(program: Program, node: fx.Node) -> tuple[Site | None, str]:
    _, w, b, weight_dim, unit_dim = _AFFINE[_name(node)]
    bias_node = node.args[b] if len(node.args) > b else None
    weight, bias = _tensor(program, node.args[w]), _tensor(program, bias_node)
    owned = [n for n in (node.args[w], bias_node) if isinstance(n, fx.Node)]
    if weight is None or (bias_node is not None and bias is None):
        return None, "its weight is computed, not a parameter"
    if any(len(n.users) > 1 for n in owned):
        return None, "its weight is used more than once"
    if "transpose" in _name(node) and len(node.args) > 6 and node.args[6] != 1:
        return None, "a transposed convolution in groups"
    if all(_name(user) == _BATCH_NORM for user in node.users):
        return None, ""  # the BatchNorm corrects it
    if _reaches_output(node):
        return None, "its result is the output of the model"
    return Site(node.name, weight, bias, weight_dim, unit_dim), ""


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
        if _name(user).removeprefix("aten::") in moves and _reaches_output(user):
            return True
    return False
