"""The result of matching: a transform, and how it was found."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import nn

from graphmerge.errors import InputError
from graphmerge.files import load_checkpoint, read_metadata, save_checkpoint
from graphmerge.symmetry import ModelGraph, Transform
from graphmerge.trace.run import State, state_of

CERTIFIED = 1e-6
"""Relative gap that counts as none, above the rounding of float32 sums."""

START = -1
"""The sweep of the step that places all groups before the first sweep."""


@dataclass(frozen=True)
class Step:
    """One accepted step: the group that moved (two where a pair was restarted), units, objective after it."""

    sweep: int
    group: str
    moved: int
    objective: float


@dataclass(frozen=True)
class Alignment:
    """What moves model b into the frame of model a.

    ``objective`` is the inner product of the parameters of a and aligned b (weight matching), the sum
    of correlations of matched units (activation matching), the mean of both, each relative to its
    largest value (dual), or minus the midpoint loss (methods with a loss). ``start`` is where it
    began, ``history`` its course, which never falls, ``restarts`` its value after the first descent and
    after each round of restarts. ``seconds`` is the wall time, ``stages`` what of it each stage took,
    ``options`` are those that the method ran with. ``gaps`` says for each group how much another order
    of it alone could raise the objective at most (None: the method does not know).
    """

    transform: Transform
    method: str
    objective: float
    start: float
    history: tuple[Step, ...]
    seconds: float
    seed: int
    converged: bool
    restarts: tuple[float, ...] = ()
    notes: Mapping[str, Any] = field(default_factory=dict)
    stages: Mapping[str, float] = field(default_factory=dict)
    options: Mapping[str, Any] = field(default_factory=dict)
    gaps: Mapping[str, float] | None = None

    @property
    def gap(self) -> float | None:
        """The largest of ``gaps``, relative to the objective."""
        if self.gaps is None:
            return None
        return max(self.gaps.values(), default=0.0) / max(abs(self.objective), 1e-30)

    @property
    def certified(self) -> bool:
        """It is proved that no other order of any one group is better, the others being where they are."""
        return self.gap is not None and self.gap <= CERTIFIED

    def apply(self, b: nn.Module | State) -> dict[str, torch.Tensor]:
        """Model b, a module or its state dict, as a state dict in the frame of a."""
        return self.transform.apply(state_of(b))

    def to_json(self) -> dict[str, Any]:
        """Everything but the transform itself."""
        return {
            "method": self.method,
            "objective": self.objective,
            "start": self.start,
            "seconds": self.seconds,
            "seed": self.seed,
            "converged": self.converged,
            "restarts": list(self.restarts),
            "moved": self.transform.moved_units(),
            "history": [[s.sweep, s.group, s.moved, s.objective] for s in self.history],
            "notes": dict(self.notes),
            "stages": dict(self.stages),
            "options": dict(self.options),
            "gaps": None if self.gaps is None else dict(self.gaps),
            "gap": self.gap,
            "certified": self.certified,
        }

    def save(self, path: str | Path) -> None:
        """Write the places of all units as safetensors, the rest in its metadata."""
        tensors = {n: t.contiguous() for n, t in sorted(self.transform.targets().items())}
        save_checkpoint(path, tensors, self.to_json())


class MatchingInterrupted(KeyboardInterrupt):
    """Ctrl-C while matching; ``alignment`` is what had been reached, to go on from (``match(start=...)``)."""

    def __init__(self, alignment: Alignment) -> None:
        super().__init__("matching was interrupted")
        self.alignment = alignment


def load_alignment(path: str | Path, graph: ModelGraph) -> Alignment:
    """Read a saved alignment of the same architecture; InputError where it does not fit the graph."""
    saved = read_metadata(path)
    if "history" not in saved:
        raise InputError(f"{path} is no alignment: its metadata has no history of matching")
    return restored(path, graph, saved, load_checkpoint(path) if saved.get("moved") else {})


def restored(
    path: str | Path, graph: ModelGraph, saved: Mapping[str, Any], targets: Mapping[str, torch.Tensor]
) -> Alignment:
    """An alignment from what ``to_json`` said of it and the places of its units."""
    missing = graph.atom_of.keys() ^ targets.keys()
    if missing:
        raise InputError(f"{path} was made for another graph: the groups differ at {sorted(missing)[0]!r}")
    with undamaged(path):
        return _read(graph.identity().with_targets(targets), saved)


@contextmanager
def undamaged(path: str | Path) -> Iterator[None]:
    """InputError where what a saved alignment tells of itself cannot be read."""
    try:
        yield
    except (KeyError, TypeError, ValueError, AttributeError, OverflowError) as error:
        seen = f"{type(error).__name__}: {error}"
        raise InputError(
            f"{path} is a damaged alignment: what it tells of its matching gives {seen}"
        ) from error


def _read(transform: Transform, saved: Mapping[str, Any]) -> Alignment:
    """What ``to_json`` wrote, each value of its own kind."""
    gaps = saved["gaps"]
    return Alignment(
        transform,
        str(saved["method"]),
        float(saved["objective"]),
        float(saved["start"]),
        steps_of(saved["history"]),
        float(saved["seconds"]),
        int(saved["seed"]),
        bool(saved["converged"]),
        tuple(map(float, saved["restarts"])),
        dict(saved["notes"]),
        _numbers(saved["stages"]),
        dict(saved["options"]),
        None if gaps is None else _numbers(gaps),
    )


def steps_of(saved: Iterable[Any]) -> tuple[Step, ...]:
    """The steps that ``to_json`` wrote."""
    return tuple(Step(int(k), str(g), int(n), float(x)) for k, g, n, x in saved)


def _numbers(saved: Mapping[str, Any]) -> dict[str, float]:
    return {str(n): float(x) for n, x in saved.items()}
