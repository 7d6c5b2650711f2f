"""What methods that search by a loss share: where they begin, and the best symmetry so far."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from typing import Any

import torch

from graphmerge.match.alignment import Step
from graphmerge.match.coordinate import match_weights
from graphmerge.match.objective import Path
from graphmerge.match.task import Found, Task
from graphmerge.symmetry import Transform
from graphmerge.trace.run import State

WEIGHT_OPTIONS = {"cost": "plain", "restarts": 2, "seconds": None}
"""How weight matching runs where a search begins at its result."""


def beginning(task: Task) -> Transform:
    """The start given, or that of the option ``begin``: weight matching, or the identity."""
    if task.start is not None:
        return task.start
    if task.options["begin"] == "identity" or identical(task):
        return task.graph.identity()
    return match_weights(replace(task, options=WEIGHT_OPTIONS)).transform


def identical(task: Task) -> bool:
    """The two models have the same parameters: the identity cannot be improved on."""
    return all(torch.equal(t, task.b[n]) for n, t in task.a.items())


def path_of(task: Task) -> Path:
    """The path between the two models, judged on the data of the task."""
    assert task.data is not None, "the table says that this method needs data"
    return Path(task.graph, *task.states, task.data, task.loss)


def with_names(task: Task, moved: State) -> dict[str, torch.Tensor]:
    """The whole state dict of b with ``moved`` (by names of the structure) in it, under all names it has."""
    parts = task.graph.structure.spread(moved)
    return {n: parts.get(task.graph.names.get(n, n), t) for n, t in task.states[1].items()}


def endless(path: Path) -> Iterator[Any]:
    """The batches over and over."""
    for _ in itertools.count():
        yield from path.data


@dataclass
class Record:
    """The best symmetry found, by an objective to raise."""

    value: Callable[[Transform], float]
    best: Transform
    task: Task
    objective: float = field(init=False)
    start: float = field(init=False)
    steps: list[Step] = field(default_factory=list)

    def __post_init__(self) -> None:
        with self.task.stage("judging"):
            self.start = self.objective = self.value(self.best)

    def offer(self, transform: Transform, step: int) -> float:
        """The objective of a symmetry, which is kept where it is the best."""
        if transform == self.best:
            return self.objective
        with self.task.stage("judging"):
            value = self.value(transform)
        if value > self.objective:
            moved = int((transform.phi != self.best.phi).sum())
            self.best, self.objective = transform, value
            self.steps.append(Step(step, "all groups", moved, value))
            self.task.keep(transform, value)
        return value

    def found(self, **notes: Any) -> Found:
        """The result of the method."""
        end = (self.objective,)
        return Found(self.best, self.objective, self.start, tuple(self.steps), True, end, None, notes)


def generator(seed: int) -> torch.Generator:
    """Random numbers on the CPU, so that the device does not change the result."""
    return torch.Generator().manual_seed(seed)
