"""Stitching: the first part of one model, the rest of another, cut at any layer through which all flows.

Source: Lenc and Vedaldi 2015, arXiv 1411.5908; without a stitching layer, as models that are aligned should
not need one (Zhou et al. 2023, arXiv 2307.08286, section 5).
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import networkx as nx
import torch
from torch import fx, nn
from torch.utils import _pytree as pytree

from graphmerge.errors import UsageError
from graphmerge.evaluate.layers import Layer, layers
from graphmerge.losses import Function, Loss
from graphmerge.metrics import Score, score_outputs
from graphmerge.progress import Progress, silent
from graphmerge.symmetry import ModelGraph
from graphmerge.trace import Program
from graphmerge.trace.run import (
    Inputs,
    State,
    call,
    device_of,
    fitting,
    program_for,
    state_of,
    to_device,
    visit,
)


@dataclass(frozen=True)
class Stitching:
    """For each cut the score of the first model up to there, and the second after it."""

    cuts: tuple[str, ...]
    scores: tuple[Score, ...]

    def to_json(self) -> dict[str, Any]:
        """All of it as plain data."""
        rows = zip(self.cuts, self.scores, strict=True)
        return {"cuts": [{"layer": name} | score.to_json() for name, score in rows]}


def stitch(
    graph: ModelGraph,
    first: nn.Module | State,
    second: nn.Module | State,
    data: Iterable[Any],
    *,
    loss: str | Function | Loss = "cross-entropy",
    progress: Progress = silent,
) -> Stitching:
    """Score every way to go from ``first`` to ``second`` (in one frame) at a layer.

    A layer can be cut where every way from the inputs to the output runs through it, so that what comes after
    depends on nothing else of the first model. Batches of other shapes than the first are left out.
    Raises UsageError where the network has no such layer.
    """
    a, b = state_of(first), state_of(second)
    program = program_for(graph.model, data, graph.program)
    found = cuts(program)
    if not found:
        raise UsageError("the network cannot be stitched: no layer has everything flow through it")
    args, kwargs = to_device(program.example, device_of(b))
    spec = pytree.tree_flatten(call(graph.model, b, args, kwargs))[1]
    kept = [batch for batch in data if None not in fitting(program, [batch], device_of(b))]
    scores = []
    for k, cut in enumerate(found, 1):
        progress(f"stitching at {cut.name}: cut {k} of {len(found)}")

        def run(args: Any, kwargs: Any, node: str = cut.node) -> Any:
            return _stitched(program, a, b, (args, kwargs), node, spec)

        scores.append(score_outputs(run, kept, device_of(b), loss=loss))
    return Stitching(tuple(x.name for x in found), tuple(scores))


def cuts(program: Program) -> tuple[Layer, ...]:
    """The layers that lie on every way from the inputs to the outputs, but for the output itself."""
    inputs = {n for n in program.graph.graph.nodes if n.name in program.inputs}
    start, end = "all inputs", program.graph.graph.output_node()
    flow: nx.DiGraph[Any] = nx.DiGraph()
    flow.add_edges_from((start, n) for n in inputs)
    reached = set(inputs)
    for node in program.graph.graph.nodes:
        read = reached.intersection(node.all_input_nodes)
        if read:
            reached.add(node)
            flow.add_edges_from((n, node) for n in read)
    if end not in reached:
        return ()
    above = nx.immediate_dominators(flow, start)
    through = set()
    at = above[end]
    while at != start:
        through.add(at.name)
        at = above[at]
    through -= {n.name for n in end.all_input_nodes}
    return tuple(x for x in layers(program) if x.node in through)


def _stitched(program: Program, a: State, b: State, inputs: Inputs, cut: str, spec: pytree.TreeSpec) -> Any:
    """What the model returns when the node ``cut`` of ``b`` is given the value that it has in ``a``."""
    (handed_over,) = (v.value for v in visit(program, a, inputs, {cut}))
    leaves = pytree.tree_leaves(program.graph.graph.output_node().args[0])[-spec.num_leaves :]
    wanted = {cut, *(n.name for n in leaves if isinstance(n, fx.Node))}
    run = visit(program, b, inputs, wanted)
    values: dict[str, torch.Tensor] = {}
    seen = next(run, None)
    while seen is not None:
        replaced = handed_over if seen.node.name == cut else None
        values[seen.node.name] = seen.value if replaced is None else replaced
        try:
            seen = run.send(replaced)
        except StopIteration:
            seen = None
    return pytree.tree_unflatten([values[n.name] if isinstance(n, fx.Node) else n for n in leaves], spec)
