"""Where the rows of two models belong to the same thing, and where each has an order of its own.

Two networks that read the same batch compute row by row of the same samples and tokens, until one of them
picks or sorts rows by what it computes itself: tokens sent to experts, tokens kept by their score. From
there on row 5 of one model says nothing of row 5 of another, until the rows are put back in their places.
"""

from __future__ import annotations

import torch
from torch import fx

from graphmerge.match.activations import is_sorted
from graphmerge.symmetry import ModelGraph
from graphmerge.trace import Program


def own_order(graph: ModelGraph, program: Program) -> set[str]:
    """The nodes whose rows stand in an order that each model finds for itself.

    An operator reorders where it is told positions that depend on the weights, and has data to take from
    there; pointwise ones (masks) leave all in place. Tokens that were sorted by expert are back in order
    where the symmetries of ``graph`` say so; what was picked otherwise stays picked.
    """
    sorted_by = graph.facts.universe.sorted_by
    values = graph.facts.values
    by_expert = {n for n, v in values.items() if is_sorted(v, sorted_by)}
    from_data, from_weights, found = set[fx.Node](), set[fx.Node](), set[fx.Node]()
    for node in program.graph.graph.nodes:
        inputs = node.all_input_nodes
        tensor = program.tensors.get(node.name)
        if node.name in program.inputs or any(n in from_data for n in inputs):
            from_data.add(node)
        if (tensor and not tensor.is_buffer) or any(n in from_weights for n in inputs):
            from_weights.add(node)
        if _moves_rows(node) and any(_names_places(n) and n in from_weights for n in inputs):
            taken = [n for n in inputs if n in from_data and not _names_places(n)]
            back = any(n.name in by_expert for n in taken) and node.name in values
            moved = bool(taken) and not (back and node.name not in by_expert)
        else:
            moved = any(n in found for n in inputs)
        if moved:
            found.add(node)
    return {n.name for n in found}


def _moves_rows(node: fx.Node) -> bool:
    """Whether an operator may take rows from where they stand."""
    return isinstance(node.target, torch._ops.OpOverload) and torch.Tag.pointwise not in node.target.tags


def _names_places(node: fx.Node) -> bool:
    """Whether a value is integers, or a mask."""
    value = node.meta.get("val")
    return isinstance(value, torch.Tensor) and not (value.is_floating_point() or value.is_complex())
