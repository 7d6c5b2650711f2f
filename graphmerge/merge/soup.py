"""Greedy soup: average only those models that do not make the average worse."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import torch

from graphmerge.merge.average import linear
from graphmerge.merge.job import Job
from graphmerge.merge.method import Merged
from graphmerge.metrics import evaluate


def greedy_soup(job: Job) -> Merged:
    """The plain average of chosen models: from the best on, each is added if accuracy does not fall.

    Accuracy is measured on the data, which must be held out from training. Source: Wortsman et al.
    2022, "Model soups", arXiv 2203.05482, recipe 1.
    """
    alone = [_accuracy(job, [k]) for k in range(len(job.states))]
    first, *others = sorted(range(len(alone)), key=lambda k: -alone[k])
    chosen, best = [first], alone[first]
    for k in others:
        job.progress(f"greedy soup: trying model {k + 1}")
        accuracy = _accuracy(job, [*chosen, k])
        if accuracy >= best:
            chosen, best = [*chosen, k], accuracy
    notes = {"ingredients": sorted(chosen), "accuracy": best, "accuracies": alone}
    return Merged(_mixed(job, chosen), notes)


def _mixed(job: Job, chosen: Sequence[int]) -> dict[str, torch.Tensor]:
    """The plain average of some of the models."""
    equal = dict.fromkeys(job.weights, (1 / len(chosen),) * len(chosen))
    return linear(replace(job, states=tuple(job.states[k] for k in chosen), weights=equal)).state


def _accuracy(job: Job, chosen: Sequence[int]) -> float:
    """Measured in the dtype of the models, whatever is returned."""
    soup = _mixed(replace(job, out_dtype=None), chosen)
    return evaluate(job.graph.model, job.full(soup), job.data[0]).accuracy
