"""Tables that models share: saved buffers that are no part of what was trained, such as a fixed mask.

Moving one along with the units that it belongs to is a symmetry of each model. But the merged model has
one table, and the mean of a table and itself in another order is neither: its units stay in place.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import torch

from graphmerge.symmetry import ModelGraph, Transform
from graphmerge.trace.run import State


def shared_tables(graph: ModelGraph, states: Sequence[State]) -> dict[str, str]:
    """The groups that would change a buffer which is the same in all models, each with the name of one."""
    same = {}
    for tensor in filter(lambda t: t.is_buffer, graph.program.tensors.values()):
        first, *others = [next(s[n] for n in tensor.names if n in s) for s in states]
        if all(torch.equal(t, first) for t in others):
            same[tensor.name] = first
    return {
        group.name: name
        for group in graph.groups
        for name, dim in group.members
        if name in same and bool((same[name] != same[name].narrow(dim, 0, 1)).any())
    }


def on(graph: ModelGraph, transform: Transform) -> Transform:
    """A transform of the graph with some groups frozen as one of ``graph``."""
    return replace(graph.identity(), phi=transform.phi)
