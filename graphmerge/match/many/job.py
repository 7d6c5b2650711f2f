"""What every way of matching many models is given, and what it gives back."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch

from graphmerge.losses import Loss
from graphmerge.match.alignment import Alignment, Step
from graphmerge.match.climb import pairs
from graphmerge.match.matching import match
from graphmerge.match.methods import METHODS
from graphmerge.precision import weighted_sum
from graphmerge.progress import Progress
from graphmerge.symmetry import ModelGraph, Transform
from graphmerge.trace.run import State


@dataclass(frozen=True)
class Job:
    """Models to align.

    ``states`` [model] are whole state dicts, ``parameters`` [model] what groups move of them (by names
    of the structure, float32 or wider). ``pairwise`` is how two models are matched where a way does
    that, with the options ``pair_options``; ``options`` are those of the way.
    """

    graph: ModelGraph
    states: tuple[State, ...]
    parameters: tuple[State, ...]
    options: Mapping[str, Any]
    pairwise: str
    pair_options: Mapping[str, Any]
    data: Iterable[Any] | None
    seed: int
    loss: Loss
    progress: Progress

    def match(self, a: State, b: State, start: Transform | None = None) -> Alignment:
        """Two models by the pairwise method; those that run them get the dtypes of the first model."""
        if METHODS[self.pairwise].needs_data:
            a, b = ({n: t.to(self.states[0][n].dtype) for n, t in s.items()} for s in (a, b))
        return match(
            self.graph, a, b, self.pairwise, self.data, self.seed, start=start, loss=self.loss,
            progress=self.progress, **self.pair_options,
        )  # fmt: skip

    def all_pairs(self, transforms: Sequence[Transform]) -> float:
        """The sum over all pairs of models of the inner product of their parameters (float64)."""
        return sum(
            float(pairs([t.apply_to(n, own[n]) for t, own in zip(transforms, self.parameters, strict=True)]))
            for n in self.parameters[0]
        )


@dataclass(frozen=True)
class Placed:
    """The result of a way: a symmetry of every model, all into one frame, whichever that is.

    ``history`` holds accepted steps with the all-pairs objective after each, ``direct`` alignments to the
    first model as the pairwise method gave them, where it did.
    """

    transforms: tuple[Transform, ...]
    history: tuple[Step, ...] = ()
    converged: bool = True
    direct: tuple[Alignment, ...] = ()
    notes: Mapping[str, Any] = field(default_factory=dict)


def mean(states: Sequence[State], weights: Sequence[float] | None = None) -> dict[str, torch.Tensor]:
    """The mean of state dicts in float32 or wider; tensors that are not floating are those of the first."""
    shares = [1.0] * len(states) if weights is None else weights
    return {
        name: weighted_sum((s[name] for s in states), shares) / sum(shares) if t.is_floating_point() else t
        for name, t in states[0].items()
    }
