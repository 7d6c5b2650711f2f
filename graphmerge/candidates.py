"""The candidates of a merge: what was averaged, with each repair, measured; and which of them is kept."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from graphmerge.evaluate import Score, evaluate
from graphmerge.losses import CROSS_ENTROPY, Loss
from graphmerge.progress import Progress
from graphmerge.recipe.parts import Repair as Repairs
from graphmerge.repair import RepairReport, Task, available, has_option, repair_with_report
from graphmerge.symmetry import ModelGraph
from graphmerge.trace.run import State

Batches = Sequence[tuple[Any, Any]]
Repair = Callable[[State, Sequence[float]], State]
Notes = Mapping[str, Any]

MARGIN = 0.05
"""A further step (another matching, a repair) is kept where it lowers the loss by this part at least."""


@dataclass(frozen=True)
class Candidate:
    """A merged state dict and how it came about.

    ``held_out`` is its score on the part of the data to choose by, ``score`` that on the test data
    (the same where there is none); None without data. ``notes`` are what each repair has to tell.
    """

    name: str
    matching: str
    repair: str
    state: State = field(repr=False)
    held_out: Score | None
    score: Score | None
    notes: Notes = field(default_factory=dict, repr=False)


def repairs(
    graph: ModelGraph,
    endpoints: Sequence[State],
    data: Batches,
    names: Sequence[str],
    options: Mapping[str, object] | None = None,
    told: Callable[[RepairReport], None] | None = None,
    loss: Loss = CROSS_ENTROPY,
) -> dict[str, Repair]:
    """Repairs, such as ``repair`` or ``repair+temperature``, as functions of (merged state, weights).

    ``told`` is given the report of every repair that is made.
    """
    task = Task(graph, tuple(endpoints), data, loss=loss)

    def by(name: str) -> Repair:
        def run(state: State, weights: Sequence[float]) -> State:
            own = {n: v for n, v in (options or {}).items() if has_option(name, n)}
            repaired, report = repair_with_report(task, state, weights, name, **own)
            if told:
                told(report)
            return repaired

        return run

    return {name: by(name) for name in names}


def choose(candidates: Sequence[Candidate], always_repaired: bool = False) -> Candidate:
    """The first candidate that no later one beats by ``MARGIN``; the first aligned one without data.

    Where models are ``always_repaired``, those that were not are left out if there are others.
    """
    repaired = [c for c in candidates if c.repair != "none"] if always_repaired else []
    candidates = repaired or candidates
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


@dataclass(frozen=True)
class Measure:
    """What candidates are made and measured with."""

    graph: ModelGraph
    data: Batches | None
    held_out: Batches | None
    test: Batches | None
    shares: Sequence[float]
    repair: Repairs
    loss: Loss
    say: Progress
    unmatched: str = "naive"
    """What models that were merged as they are are called."""

    def score(self, state: State, data: Batches) -> Score:
        """The score of a state dict."""
        return evaluate(self.graph.model, state, data, loss=self.loss)

    def __call__(self, matching: str, repair: str, state: State, notes: Notes) -> Candidate:
        """A candidate with its scores."""
        held_out, test = self.held_out, self.test
        chosen_by = self.score(state, held_out) if held_out else None
        score = self.score(state, test) if test and test is not held_out else chosen_by
        title = self.unmatched if matching == "none" else f"{matching} matching"
        title += f" + {repair.replace('+', ' + ')}" if repair != "none" else ""
        self.say(f"{title}: {score}" if score else title)
        for method, note in notes.items():
            if dead := note.get("dead units"):
                self.say(f"{method} left alone units that never vary: {dead}")
        return Candidate(title, matching, repair, state, chosen_by, score, notes)


def repaired(measure: Measure, endpoints: Sequence[State], matching: str, merged: State) -> list[Candidate]:
    """A merged state dict, and it with every repair that is to be tried, measured."""
    found, fix = [measure(matching, "none", merged, {})], measure.repair
    if measure.data:
        names = available(measure.graph, fix.method, measure.loss.name, **fix.options)
        heard: list[RepairReport] = []
        ways = repairs(measure.graph, endpoints, measure.data, names, fix.options, heard.append, measure.loss)
        for name, way in ways.items():
            state = way(merged, measure.shares)
            found.append(measure(matching, name, state, heard[-1].notes))
    return found


def further(
    measure: Measure, endpoints: Sequence[State], starts: Sequence[Candidate], step: str
) -> list[Candidate]:
    """Candidates of one matching with one more repair, measured; none where it does not apply."""
    if measure.data is None or (
        step == "temperature" and step not in available(measure.graph, loss=measure.loss.name)
    ):
        return []
    fix, found = measure.repair, []
    options = {**fix.options, "steps": fix.finetune} if step == "finetune" else fix.options
    heard: list[RepairReport] = []
    way = repairs(measure.graph, endpoints, measure.data, [step], options, heard.append, measure.loss)[step]
    for start in starts:
        done = [] if start.repair == "none" else start.repair.split("+")
        if step == "finetune" or (done and step not in done):
            state = way(start.state, measure.shares)
            notes = {**start.notes, **heard[-1].notes}
            found.append(measure(start.matching, "+".join([*done, step]), state, notes))
    return found
