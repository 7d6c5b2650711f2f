"""An entry of a zoo brought to life: its module, weights, data and graph, made when first asked for."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from torch import nn

from graphmerge.candidates import Repair, repairs
from graphmerge.errors import InputError, UsageError, refusal
from graphmerge.files import sha256
from graphmerge.match import Alignment, match_many
from graphmerge.merge import merge
from graphmerge.recipe import How
from graphmerge.repair import require_applies
from graphmerge.sources import Batches, build_model, example_inputs, load_data
from graphmerge.sources.model import Built
from graphmerge.sources.weights import load_weights
from graphmerge.symmetry import ModelGraph, Verification, trace, verify
from graphmerge.zoo.config import Entry, ZooFolder

State = Mapping[str, torch.Tensor]

CPU = torch.device("cpu")


@dataclass(frozen=True)
class Subject:
    """What the checks of one entry look at; weights are on the CPU in the dtypes of the module."""

    zoo: ZooFolder
    entry: Entry

    @cached_property
    def built(self) -> Built:
        """What the entry names as its model."""
        beside = self.zoo.folder / self.entry.model
        with also_importable(self.zoo.folder), torch.random.fork_rng(devices=[]):
            torch.manual_seed(self.entry.seed)
            return build_model(str(beside) if beside.exists() else self.entry.model, CPU)

    @property
    def model(self) -> nn.Module:
        """The untrained module in evaluation mode; its random weights are those of the seed."""
        return self.built.module

    @cached_property
    def example(self) -> tuple[tuple[Any, ...], dict[str, Any]]:
        """Positional and named example inputs."""
        return example_inputs(self.entry.example_inputs or self.built.examples, CPU, self.entry.seed)

    @cached_property
    def states(self) -> tuple[State, ...]:
        """The checkpoints; the untrained weights where there are none."""
        paths = [str(self.zoo.path(w)) for w in self.entry.inputs]
        return tuple(load_weights(self.model, p).state for p in paths) or (self.model.state_dict(),)

    def require_hashes(self) -> int:
        """How many checkpoints there are; InputError where one is not the file that the zoo tells of."""
        for weights in self.entry.inputs:
            path = self.zoo.path(weights)
            seen = sha256(path) if path.is_file() else "no such file"
            if seen != weights.sha256:
                raise InputError(
                    refusal(
                        f"{str(path)!r} is not the checkpoint of the zoo.",
                        expected=f"SHA-256 {weights.sha256 or '(none is given)'}",
                        seen=seen,
                        means="the baseline was measured on other weights",
                        fix="restore the file, or write its SHA-256 into zoo.yml and `graphmerge zoo update`",
                    )
                )
        return len(self.entry.inputs)

    @cached_property
    def data(self) -> Batches | None:
        """Batches to match and repair with."""
        return self._batches(self.entry.data)

    @cached_property
    def test(self) -> Batches | None:
        """Batches to measure on."""
        return self._batches(self.entry.test or self.entry.data)

    def _batches(self, spec: str | None) -> Batches | None:
        if spec is None:
            return None
        with also_importable(self.zoo.folder):
            return load_data(str(self.zoo.folder / spec) if spec.endswith(".npz") else spec)

    @cached_property
    def traced(self) -> ModelGraph:
        """The graph as traced."""
        args, kwargs = self.example
        return trace(self.model, args, kwargs, freeze=self.entry.freeze)

    @cached_property
    def verification(self) -> Verification:
        """The outcome of running the model with every group."""
        return verify(self.traced, self.model, self.entry.seed)

    @cached_property
    def graph(self) -> ModelGraph:
        """The graph without the groups that do not show."""
        return self.traced.freeze(self.verification.unobservable)

    @cached_property
    def alignments(self) -> tuple[Alignment, ...]:
        """Of every model after the first to the first."""
        how = self.entry.match
        told: dict[str, Any] = how.told(how.method)
        return match_many(self.graph, self.states, how.many, self.data, self.entry.seed, **told).alignments

    @cached_property
    def aligned(self) -> tuple[State, ...]:
        """All models in the frame of the first."""
        moved = (a.apply(s) for a, s in zip(self.alignments, self.states[1:], strict=True))
        return (self.states[0], *moved)

    @cached_property
    def repair(self) -> Callable[[tuple[State, ...]], Repair]:
        """From the models between which to interpolate to the repair that the entry asks for."""
        name = self.entry.repair
        if name == "none":
            return lambda _: lambda state, _: state
        if self.data is None:
            raise UsageError(f"repair: {name} needs data")
        data = self.data
        require_applies(self.graph, name)
        return lambda endpoints: repairs(self.graph, endpoints, data, [name])[name]

    @cached_property
    def merged(self) -> State:
        """All models merged and repaired."""
        how = self.entry.merge
        options: dict[str, Any] = How(merge=how, seed=self.entry.seed).merge_options
        state = merge(
            self.graph, self.states, how.method, self.alignments, how.weights, data=self.data, **options
        )
        shares = how.weights or (1.0,) * len(self.states)
        return self.repair(self.aligned)(state, [w / sum(shares) for w in shares])


@contextmanager
def also_importable(folder: Path) -> Iterator[None]:
    """Within the block modules can be imported from ``folder`` too, after all others."""
    path = str(folder.resolve())
    added = path not in sys.path
    sys.path.extend([path] * added)
    try:
        yield
    finally:
        if added:
            sys.path.remove(path)
