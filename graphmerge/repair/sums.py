"""Sums that a site can make up for: the addition at the end of a residual branch.

The paper puts a 1x1 convolution on every shortcut in order to rescale a sum (REPAIR, arXiv
2211.08403, code for ResNet50). Without a new layer the branch alone can be rescaled and shifted, so that
the sum of branch and shortcut has the mean and the spread wanted, wherever there is such a scale.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import torch
from torch import fx

from graphmerge.repair.sites import Site, Sum
from graphmerge.trace import Program
from graphmerge.trace.affine import op_name

_SAME = {"aten::clone", "aten::alias", "aten::_to_copy", "aten::contiguous", "aten::dropout"}
"""Operators that leave every value in its place (dropout in evaluation mode)."""


def _permuted(user: fx.Node, unit: int) -> int:
    order = [int(d) % len(_shape(user)) for d in user.args[1]]  # type: ignore[arg-type, union-attr]
    return order.index(unit)


def _transposed(user: fx.Node, unit: int) -> int:
    a, b = (int(d) % len(_shape(user)) for d in user.args[1:3])  # type: ignore[arg-type]
    return {a: b, b: a}.get(unit, unit)


_MOVED = {"aten::permute": _permuted, "aten::transpose": _transposed}
"""Operators that reorder dimensions: where that of the units goes."""


def with_sums(program: Program, sites: Sequence[Site]) -> tuple[Site, ...]:
    """The sites, those that end a branch of a sum bound to it: of two branches that which runs last."""
    nodes = {n.name: n for n in program.graph.graph.nodes}
    bound: dict[str, tuple[str, Sum]] = {}
    for site in sites:
        found = _sum(nodes[site.node], site.unit_dim)
        if found:
            bound[found.node] = site.node, found
    sums = dict(bound.values())
    return tuple(replace(s, sum=sums.get(s.node)) for s in sites)


def _sum(node: fx.Node, unit_dim: int) -> Sum | None:
    """The addition that a value goes into, and into nothing else."""
    unit = unit_dim % len(_shape(node))
    while len(node.users) == 1:
        (user,) = node.users
        name = op_name(user)
        if name == "aten::add":
            return _addition(user, node, unit)
        if name in _MOVED:
            unit = _MOVED[name](user, unit)
        elif name not in _SAME:
            return None
        node = user
    return None


def _addition(user: fx.Node, node: fx.Node, unit: int) -> Sum | None:
    a, b = user.args[:2]
    alike = isinstance(a, fx.Node) and isinstance(b, fx.Node) and a is not b and _shape(a) == _shape(b)
    if not alike or user.kwargs.get("alpha", 1) != 1:
        return None
    return Sum(user.name, 0 if a is node else 1, unit)


def _shape(node: fx.Node) -> tuple[int, ...]:
    value = node.meta["val"]
    return tuple(value.shape) if isinstance(value, torch.Tensor) else ()
