"""The result of matching many models: a symmetry of each, into the frame of the first."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import nn

from graphmerge.errors import InputError
from graphmerge.files import load_checkpoint, read_metadata, save_checkpoint
from graphmerge.match.alignment import Alignment, Step, restored, steps_of, undamaged
from graphmerge.symmetry import ModelGraph, Transform
from graphmerge.trace.run import State, state_of


@dataclass(frozen=True)
class ManyAlignment:
    """What moves every model into the frame of the first.

    ``alignments`` are those of all models after the first, as ``merge`` takes them. ``objective`` is the
    sum over all pairs of models of the inner product of their parameters, ``start`` what it was for the
    models as they were, ``history`` its course where the way raises it (otherwise empty), which never falls.
    ``seconds`` is the wall time, ``options`` are those that the way and the pairwise method ran with.
    """

    alignments: tuple[Alignment, ...]
    method: str
    objective: float
    start: float
    history: tuple[Step, ...]
    seconds: float
    seed: int
    converged: bool
    options: Mapping[str, Any] = field(default_factory=dict)
    notes: Mapping[str, Any] = field(default_factory=dict)

    @property
    def transforms(self) -> tuple[Transform, ...]:
        """For each model the symmetry into the frame of the first; that of the first moves nothing."""
        others = [a.transform for a in self.alignments]
        return (others[0].inverse() @ others[0], *others)

    def between(self, i: int, j: int) -> Transform:
        """The symmetry that brings model ``j`` into the frame of model ``i`` (counted from 0).

        Round any cycle these compose to the identity, exactly.
        """
        transforms = self.transforms
        return transforms[i].inverse() @ transforms[j]

    def apply(self, models: Sequence[nn.Module | State]) -> list[dict[str, torch.Tensor]]:
        """All models, modules or state dicts, as state dicts in the frame of the first."""
        return [t.apply(state_of(m)) for t, m in zip(self.transforms, models, strict=True)]

    def to_json(self) -> dict[str, Any]:
        """Everything but the transforms themselves."""
        return {
            "way": self.method,
            "objective": self.objective,
            "start": self.start,
            "history": [[s.sweep, s.group, s.moved, s.objective] for s in self.history],
            "seconds": self.seconds,
            "seed": self.seed,
            "converged": self.converged,
            "options": dict(self.options),
            "notes": dict(self.notes),
            "alignments": [a.to_json() for a in self.alignments],
        }

    def save(self, path: str | Path) -> None:
        """Write the places of all units of all models as safetensors, the rest in its metadata."""
        tensors = {
            f"{i}.{group}": places.contiguous()
            for i, a in enumerate(self.alignments, 1)
            for group, places in sorted(a.transform.targets().items())
        }
        save_checkpoint(path, tensors, self.to_json())


def load_many_alignment(path: str | Path, graph: ModelGraph) -> ManyAlignment:
    """Read a saved alignment of many models; InputError where it does not fit the graph."""
    saved = read_metadata(path)
    if "way" not in saved:
        raise InputError(f"{path} is no alignment of many models: its metadata names no way of matching")
    tensors = load_checkpoint(path) if graph.atom_of else {}
    with undamaged(path):
        alignments = []
        for i, own in enumerate(saved["alignments"], 1):
            start = f"{i}."
            targets = {n.removeprefix(start): t for n, t in tensors.items() if n.startswith(start)}
            alignments.append(restored(path, graph, own, targets))
        return ManyAlignment(
            tuple(alignments),
            str(saved["way"]),
            float(saved["objective"]),
            float(saved["start"]),
            steps_of(saved["history"]),
            float(saved["seconds"]),
            int(saved["seed"]),
            bool(saved["converged"]),
            dict(saved["options"]),
            dict(saved["notes"]),
        )
