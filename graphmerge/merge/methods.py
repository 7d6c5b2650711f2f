"""The table of merge methods, and the one function that runs them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import nn

from graphmerge.errors import UsageError
from graphmerge.merge.average import average
from graphmerge.symmetry import ModelGraph
from graphmerge.trace.run import State, state_of


class Alignment(Protocol):
    """What moves a model into the frame of the first."""

    def apply(self, state: State) -> dict[str, torch.Tensor]: ...


@dataclass(frozen=True)
class Method:
    """A merge method on state dicts in one frame, with its source."""

    run: Callable[[Sequence[State], Sequence[float] | None], dict[str, torch.Tensor]]
    source: str


METHODS: dict[str, Method] = {
    "average": Method(average, "linear interpolation; model soups, Wortsman et al. 2022, arXiv 2203.05482"),
}


def merge(
    graph: ModelGraph,
    models: Sequence[nn.Module | State],
    method: str = "average",
    alignment: Alignment | Sequence[Alignment] | None = None,
    weights: Sequence[float] | None = None,
) -> dict[str, torch.Tensor]:
    """Merge models of one architecture into a state dict, in the frame of the first.

    ``alignment`` moves every model after the first (one alignment for two models, else one for
    each of the others); None averages the models as they are. ``weights`` [model] default to
    equal parts. Raises UsageError for an unknown method or a wrong number of alignments or weights,
    TraceError where a module has another graph.
    """
    if method not in METHODS:
        raise UsageError(f"unknown merge method {method!r}; there are: {', '.join(METHODS)}")
    for model in models:
        if isinstance(model, nn.Module):
            graph.require_same(model)
    states = [state_of(m) for m in models]
    known = graph.names.keys() | set(graph.program.unused)
    strange = [n for s in states for n in s if n not in known]
    if strange:
        raise UsageError(f"the traced model has no tensor {strange[0]!r}: was another architecture traced?")
    moves = [] if alignment is None else list(alignment) if isinstance(alignment, Sequence) else [alignment]
    if moves and len(moves) != len(states) - 1:
        raise UsageError(f"{len(states)} models need {len(states) - 1} alignments, got {len(moves)}")
    aligned = [states[0], *(a.apply(s) for a, s in zip(moves, states[1:], strict=True))] if moves else states
    return METHODS[method].run(aligned, weights)
