"""Leave a local optimum by placing two neighbouring groups anew, all others being where they are.

Coordinate descent ends where no single group can move; two groups that share a tensor hold each other
in place. One of them is assigned again under the bound that presumes nothing of the other (see
``start``), the other follows, and both are solved in turn; what comes of it is kept where the
objective is higher. Restarts of pairs gain pair by pair, restarts of the whole only by luck of the whole.
"""

from __future__ import annotations

import math
import time
from collections.abc import Mapping

from graphmerge.match.alignment import Step
from graphmerge.match.descent import RISE, improve, neighbours
from graphmerge.match.layout import Plan
from graphmerge.match.start import place_one
from graphmerge.match.task import Keep, forget
from graphmerge.match.weights import WeightSimilarity
from graphmerge.progress import Progress, silent

LARGEST = 64
"""Wider groups take long and gain next to nothing: what luck decides averages out over many units."""

TURNS = 50
"""Most steps on one pair; a handful is usual."""

PATIENCE = 64
"""Restarts in a row that gain nothing after which the others are left out."""


def refine(
    similarity: WeightSimilarity,
    plans: Mapping[str, Plan],
    sweep: int,
    progress: Progress = silent,
    deadline: float = math.inf,
    keep: Keep = forget,
) -> tuple[WeightSimilarity, list[Step]]:
    """Restart the pairs of neighbouring groups once each; what is reached, and the steps that were kept.

    Those come first between which the models are least alike: what is in the wrong place shows there. Pairs
    after ``PATIENCE`` that gained nothing, or whose turn would come after ``deadline`` (in the seconds of
    ``time.perf_counter``), are left out. Groups whose units contain others (heads), and those of more than
    ``LARGEST`` units in a fibre, keep their places.
    """
    sizes = {g: similarity.transform.structure.sorts[p.atom].size for g, p in plans.items()}
    plain = [g for g, p in plans.items() if not p.inner and sizes[g] <= LARGEST]
    pairs = [(g, h) for g in plain for h in plain if h in neighbours(plans, g)]
    pairs.sort(key=lambda p: similarity.alike(plans[p[0]].names & plans[p[1]].names))
    steps, fruitless = [], 0
    for n, (group, other) in enumerate(pairs, 1):
        if time.perf_counter() > deadline or fruitless == PATIENCE:
            break
        fruitless += 1
        trial = _restarted(similarity, plans, group, other)
        if trial.objective > similarity.objective + RISE * abs(similarity.objective):
            moved = int((trial.transform.phi != similarity.transform.phi).sum())
            similarity, fruitless = trial, 0
            steps.append(Step(sweep, f"{group}, {other}", moved, similarity.objective))
            keep(similarity.transform, similarity.objective)
        progress(f"matching: restart {n} of {len(pairs)} pairs, objective {similarity.objective:.4f}")
    return similarity, steps


def _restarted(
    similarity: WeightSimilarity, plans: Mapping[str, Plan], group: str, other: str
) -> WeightSimilarity:
    """``group`` placed without regard to ``other``, then both in turn until neither moves."""
    trial, before = similarity.fork(), similarity.objective
    atoms = set(trial.transform.structure.atoms)
    place_one(trial, plans[group], atoms - {plans[group].atom, plans[other].atom})
    turn, still = other, 0
    for _ in range(TURNS):
        if still == 2:
            break
        start = trial.objective
        still = 0 if improve(trial, plans[turn])[0] else still + 1
        gain, turn = trial.objective - start, group if turn == other else other
        if turn == other and trial.objective + gain < before:
            break  # gains shrink from step to step: this one will not get there
    return trial
