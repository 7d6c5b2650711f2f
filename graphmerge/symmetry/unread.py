"""Units that no operator reads: the part of a table that a slice leaves out at the shapes of the trace."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import numpy as np
import torch
from torch import fx

from graphmerge.axes.units import Value, Whole
from graphmerge.symmetry.groups import members
from graphmerge.symmetry.propagate import Facts
from graphmerge.symmetry.structure import Structure
from graphmerge.trace import Program
from graphmerge.trace.program import op_name

MOVERS = frozenset(
    f"aten.{op}"
    for op in (
        "alias", "clone", "detach", "expand", "permute", "select", "slice", "split", "split_with_sizes",
        "squeeze", "t", "transpose", "unbind", "unsqueeze", "view", "_unsafe_view", "_to_copy",
        "constant_pad_nd",
    )
)  # fmt: skip
"""Operators that hand on what they are given, or a part of it: to pass one is not to be read."""

BY_ELEMENT = frozenset(
    f"aten.{op}" for op in ("linear", "matmul", "bmm", "mm", "addmm", "einsum", "conv1d", "conv2d", "conv3d")
)
"""Operators that read what they sum over, and hand on each unit of the other dimensions by itself."""

SHAPE_ONLY = frozenset(
    f"aten.{op}"
    for op in (
        "empty_like", "full_like", "new_empty", "new_full", "new_ones", "new_zeros", "ones_like", "rand_like",
        "randn_like", "zeros_like",
    )
)  # fmt: skip
"""Operators that look at the shape of their argument alone."""


def unread(structure: Structure, program: Program, facts: Facts) -> frozenset[int]:
    """Sorts whose units stand in nothing that an operator reads.

    At other shapes they may be read, and then their order counts, so that not to see it move proves
    nothing.
    """
    structure = replace(structure, frozen=frozenset())
    values: dict[str, Value] = {
        **facts.values,
        **{n: facts.parameters[t.name] for n, t in program.tensors.items() if t.name in facts.parameters},
    }
    sorts = {name: _sorts(structure, v) for name, v in values.items()}
    found: set[int] = set().union(*(_read(node, sorts) for node in program.graph.graph.nodes))
    for _, heads in structure.branches:  # a branch is read as a whole
        found |= set(structure.sort_of[structure.classes[heads]].ravel().tolist()) - {-1}
    read: set[int] = set().union(*(structure.ancestors(k) for k in found))
    return frozenset(k for k, places in members(structure).items() if places and k not in read)


def _sorts(structure: Structure, value: Value) -> set[int]:
    """The sorts of the units along all dimensions of a value."""
    units = [np.unique(x) for x in value.labels or () if not isinstance(x, Whole)]
    kinds = {int(k) for x in units for k in structure.sort_of[structure.classes[x]]}
    return kinds - {-1}


def _read(node: fx.Node, sorts: Mapping[str, set[int]]) -> set[int]:
    """The sorts that a node looks at; a subgraph looks at all that it is given."""
    overload = node.target if isinstance(node.target, torch._ops.OpOverload) else None
    name = op_name(overload) if overload else ""
    if node.op not in ("call_function", "output") or name in MOVERS | SHAPE_ONLY:
        return set()
    overwrites = name in ("aten.copy", "aten.slice_scatter", "aten.select_scatter")
    given = [n for n in node.all_input_nodes if not (overwrites and n is node.args[0])]
    taken: set[int] = set().union(*(sorts.get(n.name, set()) for n in given))
    by_element = overload and (torch.Tag.pointwise in overload.tags or name in BY_ELEMENT)
    return taken - sorts.get(node.name, set()) if by_element else taken
