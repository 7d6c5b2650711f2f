"""Model Stock: how far to trust the average, told by the angles between fine-tuned models."""

from __future__ import annotations

import torch

from graphmerge.merge.job import Job
from graphmerge.merge.method import Merged
from graphmerge.precision import weighted_sum


def model_stock(job: Job) -> Merged:
    """t x average + (1 - t) x base, parameter by parameter.

    With n models at a mean cosine c between their task vectors, t = n c / (1 + (n - 1) c): the point
    nearest to the centre that models of equal length scatter around. A cosine below 0, or of a model
    that did not move, counts as 0, so that t lies between 0 and 1. Source: Jang et al. 2024, "Model
    Stock: All we need is just a few fine-tuned models", arXiv 2403.19522, section 4.
    """
    ratios: dict[str, float] = {}

    def one(name: str) -> torch.Tensor:
        ratios[name] = t = _ratio(job, name)
        n = len(job.states)
        return job.start(name).add(weighted_sum(job.task_vectors(name), [t / n] * n))

    return Merged(job.each_parameter(one), {"t": ratios})


def _ratio(job: Job, name: str) -> float:
    """t of one parameter; the sum of unit vectors tells the mean cosine of all pairs."""
    n = len(job.states)
    together: torch.Tensor | float = 0.0
    for v in job.task_vectors(name):
        length = v.double().norm()
        if not length:
            return 0.0
        together = together + v.double() / length
    cosine = (float(torch.as_tensor(together).square().sum()) - n) / (n * (n - 1))
    cosine = min(max(cosine, 0.0), 1.0)
    return n * cosine / (1 + (n - 1) * cosine)
