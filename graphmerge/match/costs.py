"""What weight matching compares: the parameters as they are, or views of them.

A view gives both models tensors in the places of their parameters, which the groups move alike; an
alignment found on views is one of the parameters.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import fx

from graphmerge.match.task import Task
from graphmerge.trace import Program
from graphmerge.trace.program import op_name
from graphmerge.trace.run import State

Pair = tuple[dict[str, torch.Tensor], dict[str, torch.Tensor]]

_BATCH_NORM = "aten._native_batch_norm_legit_no_training"
_AFFINE = ("aten.linear", "aten.conv1d", "aten.conv2d", "aten.conv3d")
"""Operators (x, weight [out, in, ...], bias)."""


def plain(task: Task) -> Pair:
    """The parameters as they are."""
    return dict(task.a), dict(task.b)


def balanced(task: Task) -> Pair:
    """Every tensor divided by its norm: a sum of cosines, in which no tensor weighs more for its size."""
    first, second = ({n: t / t.norm().clamp_min(1e-30) for n, t in s.items()} for s in (task.a, task.b))
    return first, second


def folded(task: Task) -> Pair:
    """Every norm merged into the affine operator beside it, as in a network made ready for inference.

    BatchNorm is one affine map with the operator before it, the gain and shift of a LayerNorm or
    RMSNorm one with the operators that read it. The gains are left out of the view; they count
    through the rows and columns that they multiply.
    """
    first, second = (_fold(task.graph.program, *s) for s in zip((task.a, task.b), task.states, strict=True))
    return first, second


COSTS: dict[str, Callable[[Task], Pair]] = {
    "plain": plain,
    "balanced": balanced,
    "folded": folded,
}


def _fold(program: Program, parameters: State, whole: State) -> dict[str, torch.Tensor]:
    """Parameters with their norms folded in; ``whole`` has the running statistics."""
    s = dict(parameters)
    for node in program.graph.graph.nodes:
        if node.op == "call_function" and op_name(node.target) == _BATCH_NORM:
            _fold_batch_norm(program, node, s, whole)
        elif node.op == "call_function" and op_name(node.target) in ("aten.layer_norm", "aten.rms_norm"):
            _fold_into_readers(program, node, s)
    return s


def _name(program: Program, node: object) -> str | None:
    """The parameter that a node is, if nothing else reads it."""
    if not isinstance(node, fx.Node) or len(node.users) != 1 or node.name not in program.tensors:
        return None
    return program.tensors[node.name].name


def _argument(node: fx.Node, k: int) -> object:
    return node.args[k] if len(node.args) > k else None


def _affine(program: Program, node: object) -> tuple[str, str | None] | None:
    """Weight and bias of an affine operator that owns both."""
    if not isinstance(node, fx.Node) or node.op != "call_function" or op_name(node.target) not in _AFFINE:
        return None
    weight, bias = (_name(program, _argument(node, k)) for k in (1, 2))
    owned = weight is not None and (bias is not None or _argument(node, 2) is None)
    return (weight, bias) if owned and weight is not None else None


def _along(t: torch.Tensor, like: torch.Tensor, dim: int) -> torch.Tensor:
    return t.reshape([-1 if d == dim else 1 for d in range(like.ndim)])


def _fold_batch_norm(program: Program, node: fx.Node, s: dict[str, torch.Tensor], whole: State) -> None:
    """g = weight / sqrt(var + eps): W <- g W, shift <- shift + g (bias - mean)."""
    gain, shift, mean, var = (_name(program, _argument(node, k)) for k in (1, 2, 3, 4))
    source = node.args[0]
    affine = _affine(program, source)
    if affine is None or gain is None or shift is None or mean is None or var is None:
        return
    assert isinstance(source, fx.Node)
    assert isinstance(node.args[6], float), "the epsilon of a BatchNorm"
    weight, bias = affine
    if len(source.users) != 1 or not {weight, gain, shift, bias or gain} <= s.keys():
        return
    g = s.pop(gain) / (whole[var].to(s[shift]) + node.args[6]).sqrt()
    s[weight] = s[weight] * _along(g, s[weight], 0)
    s[shift] = s[shift] + g * ((s.pop(bias) if bias else 0) - whole[mean].to(g))


def _fold_into_readers(program: Program, node: fx.Node, s: dict[str, torch.Tensor]) -> None:
    """W (g z + h) + c: W <- W g, c <- c + W h, for all that reads the norm."""
    places = (2, 3) if op_name(node.target) == "aten.layer_norm" else (2,)
    gain, shift = ([_name(program, _argument(node, k)) for k in places] + [None])[:2]
    affine = [_affine(program, user) for user in node.users]
    readers = [r for r in affine if r is not None]
    if gain is None or gain not in s or s[gain].ndim != 1 or not readers or len(readers) < len(affine):
        return
    if any(w not in s for w, _ in readers) or (shift and any(c not in s for _, c in readers)):
        return
    g, h = s.pop(gain), s.pop(shift) if shift else None
    for weight, bias in readers:
        w = s[weight]
        s[weight] = w * _along(g, w, 1)
        if h is not None and bias is not None:
            s[bias] = s[bias] + (w * _along(h, w, 1)).sum(tuple(range(1, w.ndim)))
