"""Greedy soup: average only those models that do not make the average worse."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import torch

from graphmerge.merge.average import linear
from graphmerge.merge.job import Job
from graphmerge.merge.method import Merged
from graphmerge.metrics import Score, evaluate


def greedy_soup(job: Job) -> Merged:
    """The plain average of chosen models: from the best on, each is added if it makes the mix no worse.

    What counts is accuracy, or the loss where that knows no right and wrong, on the data, which must be held
    out from training. Source: Wortsman et al. 2022, "Model soups", arXiv 2203.05482, recipe 1.
    """
    alone = [_score(job, [k]) for k in range(len(job.states))]
    first, *others = sorted(range(len(alone)), key=lambda k: -_merit(alone[k]))
    chosen, best = [first], alone[first]
    for k in others:
        job.progress(f"greedy soup: trying model {k + 1}")
        score = _score(job, [*chosen, k])
        if _merit(score) >= _merit(best):
            chosen, best = [*chosen, k], score
    notes: dict[str, Any] = {"ingredients": sorted(chosen)}
    if math.isnan(best.accuracy):
        notes |= {"loss": best.loss, "losses": [s.loss for s in alone]}
    else:
        notes |= {"accuracy": best.accuracy, "accuracies": [s.accuracy for s in alone]}
    return Merged(_mixed(job, chosen), notes)


def _merit(score: Score) -> float:
    return -score.loss if math.isnan(score.accuracy) else score.accuracy


def _mixed(job: Job, chosen: Sequence[int]) -> dict[str, torch.Tensor]:
    """The plain average of some of the models."""
    equal = dict.fromkeys(job.weights, (1 / len(chosen),) * len(chosen))
    return linear(replace(job, states=tuple(job.states[k] for k in chosen), weights=equal)).state


def _score(job: Job, chosen: Sequence[int]) -> Score:
    """Measured in the dtype of the models, whatever is returned."""
    soup = _mixed(replace(job, out_dtype=None), chosen)
    return evaluate(job.graph.model, job.full(soup), job.data[0], loss=job.loss)
