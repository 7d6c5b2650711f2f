"""What every repair is given, and what it gives."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import torch
from torch.utils import _pytree as pytree

from graphmerge.errors import InputError, refusal
from graphmerge.losses import CROSS_ENTROPY, Loss
from graphmerge.progress import Progress, silent
from graphmerge.repair.statistics import Goal, Moments, goal
from graphmerge.symmetry import ModelGraph
from graphmerge.trace import Program
from graphmerge.trace.run import Inputs, State, Visit, device_of, fitting, program_for, run_together

MIN_SAMPLES = 32
"""Fewer samples than this say too little about a mean and a variance."""

Point = tuple[str, int]
"""A node of the graph, and the dimension of its value along which the units lie."""


@dataclass(frozen=True)
class Repaired:
    """A repaired state dict, and what there is to tell about it."""

    state: dict[str, torch.Tensor]
    notes: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Task:
    """Endpoints in one frame and data. What is measured on the endpoints is kept for further repairs."""

    graph: ModelGraph
    endpoints: tuple[State, ...]
    data: Iterable[Any]
    progress: Progress = silent
    loss: Loss = CROSS_ENTROPY
    _measured: dict[Point, list[Moments]] = field(default_factory=dict, repr=False)
    _known: dict[str, Any] = field(default_factory=dict, repr=False)

    @cached_property
    def program(self) -> Program:
        """The model traced at the shapes of the first batch."""
        return program_for(self.graph.model, self.data, self.graph.program)

    @cached_property
    def batches(self) -> list[Inputs]:
        """The inputs of all batches of the first one's shapes; InputError where there is too little."""
        device = device_of(self.endpoints[0])
        found = [x for x in fitting(self.program, self.data, device) if x is not None]
        require_samples(sum(batch_size(x) for x in found))
        return found

    def once(self, name: str, measure: Callable[[], Any]) -> Any:
        """What was measured on the endpoints under that name, and is measured now if it never was."""
        if name not in self._known:
            self._known[name] = measure()
        return self._known[name]

    def goals(self, points: Collection[Point], weights: Sequence[float]) -> dict[Point, Goal]:
        """Means and spreads between those of the endpoints; one pass over the data for each endpoint."""
        missing = [p for p in points if p not in self._measured]
        if missing:
            each = [self._measure(k, state, missing) for k, state in enumerate(self.endpoints, 1)]
            self._measured.update({p: [m[p] for m in each] for p in missing})
        return {p: goal(self._measured[p], weights) for p in points}

    def _measure(self, which: int, state: State, points: Collection[Point]) -> dict[Point, Moments]:
        moments = {p: Moments() for p in points}
        at: dict[str, list[Point]] = {}
        for point in points:
            at.setdefault(point[0], []).append(point)

        def look(visits: list[Visit]) -> None:
            for v in visits:
                for point in at[v.node.name]:
                    moments[point].update(v.value, point[1])

        for k, inputs in enumerate(self.batches, 1):
            self.progress(f"statistics of model {which}: batch {k} of {len(self.batches)}")
            run_together(self.program, [(state, inputs)], at, look)
        return moments


def batch_size(inputs: Any) -> int:
    """Samples in a batch: dimension 0 of its first tensor."""
    return next((len(t) for t in pytree.tree_leaves(inputs) if isinstance(t, torch.Tensor) and t.ndim), 0)


def require_samples(samples: int, besides: int = 0) -> None:
    """Refuse statistics of too few samples; ``besides`` are those that are held out."""
    if samples < MIN_SAMPLES:
        raise InputError(
            refusal(
                "the data is too little to measure activations.",
                expected=f"at least {MIN_SAMPLES} samples in batches of one shape",
                seen=f"{samples}" + (f", and {besides} that are held out to choose by" if besides else ""),
                means="means and spreads of so few would not be those of the network",
                fix="give more data or batches of equal size; or merge without repair:"
                " --repair none, or repair='none' in Python",
            )
        )


def check_finite(value: torch.Tensor, name: str) -> torch.Tensor:
    """Refuse what was measured and is not finite."""
    if not bool(torch.isfinite(value).all()):
        raise InputError(f"{name} are not finite: does the data hold NaN or infinity?")
    return value
