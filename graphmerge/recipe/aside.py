"""Tensors with NaN or infinity, where a recipe allows them: copied, never matched."""

from __future__ import annotations

import glob
from collections.abc import Mapping, Sequence

import torch

from graphmerge.files import nonfinite
from graphmerge.progress import Progress
from graphmerge.recipe.parts import Rule
from graphmerge.recipe.schema import How
from graphmerge.symmetry import ModelGraph

State = Mapping[str, torch.Tensor]


def set_aside(graph: ModelGraph, states: Sequence[State], how: How, say: Progress) -> tuple[ModelGraph, How]:
    """What moves a tensor that holds NaN or infinity in any model stays, and the first model's is kept.

    Only if the recipe allows such tensors; otherwise the stages refuse them.
    """
    bad = sorted({n for s in states for n in nonfinite(s)}) if how.allow_nonfinite else []
    if not bad:
        return graph, how
    say(f"copied from the first model, for they hold NaN or infinity: {', '.join(bad)}")
    names = {graph.names.get(n, n) for n in bad}
    moving = [g.name for g in graph.groups if names & {p for p, _ in g.members}]
    kept = tuple(Rule(match=glob.escape(n), action="keep-a") for n in bad)
    return graph.freeze(moving), how.model_copy(update={"rules": (*kept, *how.rules)})


def without_nonfinite(state: State) -> State:
    """A state dict with zeros in place of every tensor that holds NaN or infinity: it then has no say."""
    bad = set(nonfinite(state))
    return {n: torch.zeros_like(t) if n in bad else t for n, t in state.items()}
