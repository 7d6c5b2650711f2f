"""The whole path in one call: trace, verify, match, merge, repair, evaluate.

Where there is data nothing is kept because it ought to help: every candidate (naive and aligned
averages, each way of matching, each repair) is measured on a held-out part of the data, and the one
with the lowest loss there is kept, and named in the result; a further step must earn its place. Test
data is for reporting only.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import nn

from graphmerge.errors import InputError
from graphmerge.evaluate import Score, ensemble, evaluate
from graphmerge.match import Alignment, match
from graphmerge.merge import average
from graphmerge.progress import Progress, silent
from graphmerge.repair import available, repair_with_report, reset_batchnorm
from graphmerge.symmetry import ModelGraph, trace
from graphmerge.symmetry.verify import Verification, verify

State = Mapping[str, torch.Tensor]
Batches = Sequence[tuple[Any, Any]]
Repair = Callable[[State, Sequence[float]], State]

HELD_OUT = 0.25
"""Part of the data that is held out to choose by."""

MARGIN = 0.05
"""A further step (another matching, a repair) is kept where it lowers the loss by this part at least."""


@dataclass(frozen=True)
class Candidate:
    """A merged state dict and how it came about.

    ``held_out`` is its score on the part of the data to choose by, ``score`` that on the test data
    (the same where there is none); None without data.
    """

    name: str
    matching: str
    repair: str
    state: State = field(repr=False)
    held_out: Score | None
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
    restarts: int = 2,
    strict: bool = False,
    freeze: Sequence[str] = (),
    say: Progress = silent,
    progress: Progress = silent,
) -> MergeResult:
    """Merge state dicts ``a`` and ``b`` of ``model`` in the frame of a, and repair the result.

    ``args`` and ``kwargs`` are example inputs for tracing. ``data`` are batches to match and repair
    with, a quarter of them held out to choose by; ``test`` are batches to report on. ``say`` is told of
    every stage, ``progress`` of every step within one. ``strict`` and ``freeze`` are those of ``trace``.
    Activation matching and repair need data and are left out without. Raises what the stages raise,
    GateError where a symmetry fails verification.
    """
    say("tracing")
    graph = trace(model, args, kwargs, strict=strict, freeze=freeze)
    graph, verification = prove(graph, model, seed, say, progress)
    if all(n in b and torch.equal(t, b[n]) for n, t in a.items()):
        say("the two models are identical: the merge gives them back")
    data, held_out = split(data)
    test = test or held_out
    alignments: dict[str, Alignment] = {}
    for method in methods if data else [m for m in methods if m == "weight"]:
        say(f"matching by {method}")
        alignments[method] = match(graph, a, b, method, data, seed, restarts=restarts, progress=progress)
        say(f"objective {alignments[method].start:.4g} -> {alignments[method].objective:.4g}")
        if ties := alignments[method].notes.get("ambiguous"):
            say(f"units with a twin, of which either could have been chosen: {ties}")
    candidates = _candidates(graph, (a, b), alignments, weights, data, held_out, test, say)
    kept = choose(candidates)
    endpoints = tuple(evaluate(model, s, test) for s in (a, b)) if test else ()
    together = ensemble(model, (a, b), test) if test else None
    return MergeResult(graph, verification, alignments, tuple(candidates), kept, endpoints, together, weights)


def prove(
    graph: ModelGraph, model: nn.Module, seed: int = 0, say: Progress = silent, progress: Progress = silent
) -> tuple[ModelGraph, Verification]:
    """Run the model with every group; the graph with those frozen of which nothing was seen.

    Raises GateError where a symmetry fails.
    """
    units = sum(g.units for g in graph.groups)
    say(f"{len(graph.groups)} symmetry groups, {units} units; verifying by running the model")
    verification = verify(graph, model, seed, progress=progress).require()
    say(f"all groups hold (largest relative change {verification.max_error:.1e})")
    if verification.unobservable:
        say(f"kept in place, for nothing shows when they move: {', '.join(verification.unobservable)}")
        graph = graph.freeze(verification.unobservable)
    return graph, verification


def repairs(
    graph: ModelGraph, endpoints: Sequence[State], data: Batches, say: Progress = silent
) -> dict[str, Repair]:
    """The repairs that apply to this network, as functions of (merged state, weights)."""
    table: dict[str, Repair] = {}
    applies = available(graph)
    if "bn-reset" in applies:
        table["bn-reset"] = lambda state, _: reset_batchnorm(graph.model, state, data)
    if "repair" in applies:

        def renormalise(state: State, weights: Sequence[float]) -> State:
            repaired, report = repair_with_report(graph, state, endpoints, data, weights)
            if report.dead_units:
                say(f"repair left alone units that never vary: {dict(report.dead_units)}")
            return repaired

        table["repair"] = renormalise
    return table


def choose(candidates: Sequence[Candidate]) -> Candidate:
    """The first candidate that no later one beats by ``MARGIN``; the first aligned one without data."""
    aligned = [c for c in candidates if c.matching != "none"]
    kept = candidates[0]
    if (kept.held_out or kept.score) is None:
        return aligned[0] if aligned else kept
    for c in candidates[1:]:
        if _loss(c) < (1 - MARGIN) * _loss(kept):
            kept = c
    return kept


def _loss(candidate: Candidate) -> float:
    """The loss to choose by; infinite where it is not a number."""
    score = candidate.held_out or candidate.score
    return score.loss if score and math.isfinite(score.loss) else math.inf


def split(data: Batches | None) -> tuple[Batches | None, Batches | None]:
    """Data to work with and data to choose by, never the same."""
    if data is None:
        return None, None
    keep = len(data) - max(1, round(len(data) * HELD_OUT))
    if keep < 1:
        raise InputError(
            f"the data holds {len(data)} batches; at least 2 are needed to hold one out: use smaller batches"
        )
    return data[:keep], data[keep:]


def _candidates(
    graph: ModelGraph,
    ends: tuple[State, State],
    alignments: Mapping[str, Alignment],
    weights: tuple[float, float],
    data: Batches | None,
    held_out: Batches | None,
    test: Batches | None,
    say: Progress,
) -> list[Candidate]:
    """Every combination of matching and repair, measured."""
    found = []
    for matching in ("none", *alignments):
        moved = alignments[matching].apply(ends[1]) if matching in alignments else ends[1]
        merged = average([ends[0], moved], weights)
        ways: dict[str, Repair] = {"none": lambda state, _: state}
        if data:
            ways |= repairs(graph, [ends[0], moved], data, say)
        for name, way in ways.items():
            state = way(merged, weights)
            chosen_by = evaluate(graph.model, state, held_out) if held_out else None
            score = evaluate(graph.model, state, test) if test and test is not held_out else chosen_by
            title = "naive" if matching == "none" else f"{matching} matching"
            title += f" + {name}" if name != "none" else ""
            found.append(Candidate(title, matching, name, state, chosen_by, score))
            say(title + (f": loss {score.loss:.4f}, accuracy {score.accuracy:.4f}" if score else ""))
    return found
