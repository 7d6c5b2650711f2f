"""A graph for programs: everything that is known of it, as plain data."""

from __future__ import annotations

from collections import Counter
from typing import Any

import torch
from torch import fx

from graphmerge.symmetry import ModelGraph, SymmetryGroup
from graphmerge.symmetry.modules import home
from graphmerge.trace.program import op_name


def graph_json(graph: ModelGraph) -> dict[str, Any]:
    """Groups, fixed axes with reasons, operators, parameters and shapes; keys are only ever added."""
    program, named = graph.program, graph.named.items()
    return {
        "model": type(graph.model).__name__,
        "groups": [_group(g) for g in graph.groups],
        "frozen": [_group(g) for k, g in named if k in graph.structure.frozen],
        "fixed": [
            {"parameter": f.parameter, "dim": f.dim, "units": f.units, "reason": f.reason, "cause": f.cause}
            for f in graph.fixed
        ],
        "unknown": [{"reason": reason, "where": str(where)} for where, reason in graph.pinned],
        "probed": [{"rule": text, "where": str(where)} for where, text in graph.probed],
        "unused": program.unused,
        "operators": operators(program.graph),
        "parameters": [
            {
                "name": t.name,
                "aliases": t.names[1:],
                "shape": t.shape,
                "dtype": str(t.dtype).removeprefix("torch."),
                "buffer": t.is_buffer,
            }
            for t in program.tensors.values()
        ],
        "constants": {name: tuple(t.shape) for name, t in program.constants.items()},
        "inputs": _shapes(program.graph, "placeholder", set(program.inputs)),
        "outputs": _outputs(program.graph),
    }


def _group(g: SymmetryGroup) -> dict[str, Any]:
    return {
        "name": g.name,
        "size": g.size,
        "copies": g.copies,
        "kind": g.kind,
        "within": g.within,
        "members": g.members,
        "module": home(g),
    }


def operators(module: fx.GraphModule) -> Counter[str]:
    """How often each operator is called, subgraphs included."""
    found: Counter[str] = Counter()
    for body in module.modules():
        if isinstance(body, fx.GraphModule):
            found.update(op_name(n.target) for n in body.graph.nodes if n.op == "call_function")
    del found["getitem"]
    return found


def _shapes(module: fx.GraphModule, op: str, names: set[str]) -> dict[str, tuple[int, ...]]:
    values = {n.name: n.meta.get("val") for n in module.graph.nodes if n.op == op and n.name in names}
    return {name: tuple(v.shape) for name, v in values.items() if isinstance(v, torch.Tensor)}


def _outputs(module: fx.GraphModule) -> dict[str, tuple[int, ...]]:
    names = {n.name for n in module.graph.output_node().all_input_nodes}
    return _shapes(module, "call_function", names) | _shapes(module, "placeholder", names)
