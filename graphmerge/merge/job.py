"""What a merge method is given."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from typing import Any

import torch

from graphmerge.errors import UsageError
from graphmerge.losses import CROSS_ENTROPY, Loss
from graphmerge.merge.method import Kind
from graphmerge.merge.tensors import State, measured, whole
from graphmerge.precision import wide
from graphmerge.progress import Progress, silent
from graphmerge.symmetry import ModelGraph

Weights = Sequence[float] | Mapping[str, Sequence[float]]


@dataclass(frozen=True)
class Job:
    """Models to merge, ready for a method.

    ``states`` [model] are in one frame, tied weights under one name only; ``base`` is the model that
    they were fine-tuned from (empty where there is none), in that frame. ``weights`` are those of
    every tensor [model]. ``parameters`` names the tensors that are weights; all others are merged by
    rule. ``data`` [model] is what each model is measured on. ``names`` maps the names that tied
    weights have to the one in ``states``.
    """

    graph: ModelGraph
    states: tuple[State, ...]
    weights: Mapping[str, tuple[float, ...]]
    parameters: frozenset[str]
    names: Mapping[str, str]
    base: State = field(default_factory=dict)
    data: tuple[Iterable[Any], ...] = ()
    out_dtype: torch.dtype | None = None
    progress: Progress = silent
    loss: Loss = CROSS_ENTROPY

    def all(self, name: str) -> Iterator[torch.Tensor]:
        """A tensor of every model, as stored."""
        return (s[name] for s in self.states)

    def start(self, name: str) -> torch.Tensor:
        """A tensor of the base, float32 or wider."""
        return wide(self.base[name])

    def task_vectors(self, name: str) -> Iterator[torch.Tensor]:
        """What each model moved from the base, float32 or wider."""
        start = self.start(name)
        return (wide(t) - start for t in self.all(name))

    def each_parameter(self, one: Callable[[str], torch.Tensor]) -> dict[str, torch.Tensor]:
        """A state dict of ``one(name)`` for every parameter, the buffers merged by rule."""
        result = {}
        for name, first in self.states[0].items():
            self.progress(f"merging {name}")
            floating = first.is_floating_point() or first.is_complex()
            if name in self.parameters:
                value = one(name)
            elif floating:
                value = measured(list(self.all(name)), self.weights[name])
            else:
                value = whole(name, list(self.all(name)))
            result[name] = value.to(self.out_dtype or first.dtype) if floating else value
        return result

    def full(self, state: State) -> dict[str, torch.Tensor]:
        """A state dict with every name that tied weights have."""
        return {alias: state[name] for alias, name in self.names.items()}


def resolve_weights(
    graph: ModelGraph, names: Mapping[str, str], given: Weights | None, models: int, kind: Kind
) -> dict[str, tuple[float, ...]]:
    """The weights [model] of every tensor.

    ``given`` are weights for all tensors, or patterns (of a parameter's or a group's name) with the
    weights for what fits, of which the first counts; what nothing fits gets those by default.
    """
    usual = (1.0 if kind == "sum" else 1 / models,) * models
    patterns = given if isinstance(given, Mapping) else {} if given is None else {"*": given}
    found: dict[str, tuple[float, ...]] = {}
    for pattern, row in patterns.items():
        values = check_weights(tuple(float(w) for w in row), models, kind)
        for name in fitting(graph, names, pattern):
            found.setdefault(names[name], values)
    return {name: found.get(name, usual) for name in names.values()}


def check_weights(weights: tuple[float, ...], models: int, kind: Kind) -> tuple[float, ...]:
    """The weights of one tensor; shares made to add up to 1. UsageError for such as a method cannot use."""
    if len(weights) != models:
        raise UsageError(f"{models} models but {len(weights)} weights: give one weight per model")
    if not all(map(math.isfinite, weights)):
        raise UsageError(f"weights {weights}: expected finite numbers")
    if kind != "shares":
        return weights
    if min(weights) < 0 or not sum(weights):
        raise UsageError(f"weights {weights}: this method takes shares, expected none below 0 and one above")
    return tuple(w / sum(weights) for w in weights)


def fitting(graph: ModelGraph, names: Mapping[str, str], pattern: str) -> set[str]:
    """The tensors that fit a pattern by their own name, or that a group moves whose name fits."""
    moved = {p for g in graph.groups if fnmatchcase(g.name, pattern) for p, _ in g.members}
    found = {n for n in names if fnmatchcase(n, pattern)} | moved
    if not found:
        known = ", ".join(g.name for g in graph.groups[:5])
        raise UsageError(f"{pattern!r}: no parameter or group is called so; groups are e.g. {known}")
    return found
