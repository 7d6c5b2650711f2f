"""The whole path in one call: trace, verify, match, merge, repair, evaluate.

Where there is data nothing is kept because it ought to help: every candidate (naive and aligned
averages, each way of matching, each repair) is measured on held-out batches, and the one with the
lowest loss is kept, and named in the result.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import nn

from graphmerge.errors import InputError
from graphmerge.evaluate import Score, ensemble, evaluate
from graphmerge.match import Alignment, match
from graphmerge.merge import average
from graphmerge.repair import available, repair, reset_batchnorm
from graphmerge.symmetry import ModelGraph, trace
from graphmerge.symmetry.verify import Verification, verify

State = Mapping[str, torch.Tensor]
Batches = Sequence[tuple[Any, Any]]
Repair = Callable[[State, Sequence[float]], State]

HELD_OUT = 0.25
"""Part of the data that is held out to choose by, where no test data is given."""


@dataclass(frozen=True)
class Candidate:
    """A merged state dict, how it came about, and its score on held-out data (None without data)."""

    name: str
    matching: str
    repair: str
    state: State = field(repr=False)
    score: Score | None


@dataclass(frozen=True)
class MergeResult:
    """``kept`` is the best candidate; ``endpoints`` and ``ensemble`` are what to compare it with."""

    graph: ModelGraph
    verification: Verification
    alignments: Mapping[str, Alignment]
    candidates: tuple[Candidate, ...]
    kept: Candidate
    endpoints: tuple[Score, ...]
    ensemble: Score | None
    weights: tuple[float, float]

    @property
    def alignment(self) -> Alignment | None:
        """The alignment behind the kept candidate; None when plain averaging won."""
        return self.alignments.get(self.kept.matching)


def merge_models(
    model: nn.Module,
    a: State,
    b: State,
    args: Sequence[Any],
    kwargs: Mapping[str, Any] | None = None,
    *,
    data: Batches | None = None,
    test: Batches | None = None,
    methods: Sequence[str] = ("weight", "activation"),
    weights: tuple[float, float] = (0.5, 0.5),
    seed: int = 0,
    restarts: int = 3,
    strict: bool = False,
    say: Callable[[str], None] = lambda _: None,
) -> MergeResult:
    """Merge state dicts ``a`` and ``b`` of ``model`` in the frame of a, and repair the result.

    ``args`` and ``kwargs`` are example inputs for tracing. ``data`` are batches to match and repair
    with, ``test`` batches to evaluate on (a quarter of ``data`` by default, then left out of it).
    Activation matching and repair need data and are left out without. Raises what the stages raise,
    GateError where a symmetry fails verification.
    """
    say("tracing")
    graph = trace(model, args, kwargs, strict=strict)
    units = sum(g.units for g in graph.groups)
    say(f"{len(graph.groups)} symmetry groups, {units} units; verifying by running the model")
    verification = verify(graph, model, seed).require()
    say(f"all groups hold (largest relative change {verification.max_error:.1e})")
    data, test = _split(data, test)
    alignments: dict[str, Alignment] = {}
    for method in methods if data else [m for m in methods if m == "weight"]:
        say(f"matching by {method}")
        alignments[method] = match(graph, a, b, method, data, seed, restarts=restarts)
        say(f"objective {alignments[method].start:.4g} -> {alignments[method].objective:.4g}")
    candidates = list(_candidates(graph, model, a, b, alignments, weights, data, test, say))
    aligned = [c for c in candidates if c.matching != "none"] or candidates
    kept = min(candidates, key=lambda c: c.score.loss) if test else aligned[0]  # type: ignore[union-attr]
    endpoints = tuple(evaluate(model, s, test) for s in (a, b)) if test else ()
    together = ensemble(model, (a, b), test) if test else None
    return MergeResult(graph, verification, alignments, tuple(candidates), kept, endpoints, together, weights)


def repairs(graph: ModelGraph, endpoints: Sequence[State], data: Batches) -> dict[str, Repair]:
    """The repairs that apply to this network, as functions of (merged state, weights)."""
    table: dict[str, Repair] = {}
    applies = available(graph)
    if "bn-reset" in applies:
        table["bn-reset"] = lambda state, _: reset_batchnorm(graph.model, state, data)
    if "repair" in applies:
        table["repair"] = lambda state, weights: repair(graph, state, endpoints, data, weights)
    return table


def _split(data: Batches | None, test: Batches | None) -> tuple[Batches | None, Batches | None]:
    """Data to work with and data to judge by, never the same."""
    if data is None or test is not None:
        return data, test
    keep = len(data) - max(1, round(len(data) * HELD_OUT))
    if keep < 1:
        raise InputError(
            f"the data holds {len(data)} batches; at least 2 are needed to hold one out: use smaller batches"
        )
    return data[:keep], data[keep:]


def _candidates(
    graph: ModelGraph,
    model: nn.Module,
    a: State,
    b: State,
    alignments: Mapping[str, Alignment],
    weights: tuple[float, float],
    data: Batches | None,
    test: Batches | None,
    say: Callable[[str], None],
) -> list[Candidate]:
    """Every combination of matching and repair, measured."""
    found = []
    for matching in ("none", *alignments):
        moved = alignments[matching].apply(b) if matching in alignments else b
        merged = average([a, moved], weights)
        ways: dict[str, Repair] = {"none": lambda state, _: state}
        if data:
            ways |= repairs(graph, [a, moved], data)
        for name, way in ways.items():
            state = way(merged, weights)
            score = evaluate(model, state, test) if test else None
            title = ("naive" if matching == "none" else f"{matching} matching") + (
                f" + {name}" if name != "none" else ""
            )
            found.append(Candidate(title, matching, name, state, score))
            say(title + (f": loss {score.loss:.4f}, accuracy {score.accuracy:.4f}" if score else ""))
    return found
