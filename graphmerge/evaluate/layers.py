"""Layers of a traced graph, and what several models compute at each of them, side by side."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Any

import torch
from torch import fx

from graphmerge.errors import InputError, UsageError
from graphmerge.match.activations import MOVES_ONLY
from graphmerge.trace import Program
from graphmerge.trace.affine import AFFINE
from graphmerge.trace.affine import op_name as schema_name
from graphmerge.trace.program import module_path, op_name
from graphmerge.trace.run import State, device_of, fitting, visit


@dataclass(frozen=True)
class Layer:
    """A place of the graph: its name for people, its node, and how many affine operators lead to it.

    ``unit_dim`` is the dimension of the units in the value of an affine operator, None elsewhere.
    """

    name: str
    node: str
    depth: int
    unit_dim: int | None = None


def layers(program: Program, only: Sequence[str] = ()) -> tuple[Layer, ...]:
    """The values that leave the module which computed them, or that an affine operator reads.

    Only tensors [sample, ...] that depend on the inputs and on the weights, in the order in which they
    arise. They are named after the module, with the node where it gives several. ``only`` keeps those whose
    names fit one of these patterns (``layer1.*``); UsageError where there is none.
    """
    return _named(program, [n for n in weighted(program) if _leaves(n)], only)


def affine_layers(program: Program, only: Sequence[str] = ()) -> tuple[Layer, ...]:
    """The values of the affine operators: linear maps and convolutions; ``only`` as in ``layers``."""
    return _named(program, [n for n in weighted(program) if schema_name(n) in AFFINE], only)


def weighted(program: Program) -> list[fx.Node]:
    """The nodes that compute a floating tensor [sample, ...] from both the inputs and the weights."""
    from_inputs: set[fx.Node] = set()
    from_weights: set[fx.Node] = set()
    found = []
    for node in program.graph.graph.nodes:
        if node.name in program.inputs or from_inputs.intersection(node.all_input_nodes):
            from_inputs.add(node)
        if node.name in program.tensors or from_weights.intersection(node.all_input_nodes):
            from_weights.add(node)
        if node in from_inputs and node in from_weights and node.op == "call_function" and _computes(node):
            found.append(node)
    return found


def _computes(node: fx.Node) -> bool:
    value = node.meta.get("val")
    tensor = isinstance(value, torch.Tensor) and value.is_floating_point() and value.ndim > 0
    return tensor and op_name(node.target) not in MOVES_ONLY


def _leaves(node: fx.Node) -> bool:
    return any(
        user.op == "output" or module_path(user) != module_path(node) or _affine_input(user, at)
        for user, at in _readers(node)
    )


def _affine_input(user: fx.Node, node: fx.Node) -> bool:
    op = AFFINE.get(schema_name(user))
    return op is not None and user.args[op.x] is node


def _readers(node: fx.Node) -> Iterator[tuple[fx.Node, fx.Node]]:
    """Who reads a value, as it is or only moved, and the node in which they find it."""
    for user in node.users:
        if op_name(user.target) in MOVES_ONLY:
            yield from _readers(user)
        else:
            yield user, node


def _named(program: Program, nodes: Sequence[fx.Node], only: Sequence[str]) -> tuple[Layer, ...]:
    depth = _depths(program)
    paths = Counter(module_path(n) for n in nodes)
    found = []
    for n in nodes:
        path = module_path(n)
        name = path if path and paths[path] == 1 else f"{path}.{n.name}".lstrip(".")
        op = AFFINE.get(schema_name(n))
        found.append(Layer(name, n.name, depth[n], op.unit_dim if op else None))
    kept = tuple(x for x in found if not only or any(fnmatchcase(x.name, p) for p in only))
    if not kept:
        known = ", ".join(x.name for x in found[:5]) or "none"
        raise UsageError(f"no layer fits {', '.join(only) or 'the measure'}; there are e.g. {known}")
    return kept


def _depths(program: Program) -> dict[fx.Node, int]:
    """The most affine operators on any way to each node, its own included."""
    found: dict[fx.Node, int] = {}
    for node in program.graph.graph.nodes:
        before = max((found[n] for n in node.all_input_nodes), default=0)
        found[node] = before + (schema_name(node) in AFFINE)
    return found


def features(
    program: Program, states: Sequence[State], data: Iterable[Any], wanted: Sequence[Layer]
) -> Iterator[tuple[Layer, list[torch.Tensor]]]:
    """Batch by batch, at each layer, its value [sample, ...] in every model.

    Batches of other shapes than the program's (a shorter last one) are left out; InputError where no batch
    is left.
    """
    by_node = {x.node: x for x in wanted}
    seen = False
    for inputs in fitting(program, data, device_of(states[0])):
        if inputs is None:
            continue
        seen = True
        runs = [visit(program, s, inputs, by_node) for s in states]
        for visits in zip(*runs, strict=True):
            yield by_node[visits[0].node.name], [v.value for v in visits]
    if not seen:
        raise InputError("the data holds no batch")
