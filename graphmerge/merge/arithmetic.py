"""Methods that add up task vectors, what each model moved from the base, entry by entry."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

import torch

from graphmerge.merge.job import Job
from graphmerge.merge.method import Merged
from graphmerge.precision import weighted_sum

Vectors = Iterable[torch.Tensor]


def task_arithmetic(job: Job, scale: float) -> Merged:
    """Base + scale x the sum of weight times task vector.

    Source: Ilharco et al. 2023, "Editing models with task arithmetic", arXiv 2212.04089, section 2;
    scale 0.4 without tuning as in Yadav et al. 2023, section 6.
    """
    return _combined(job, scale, lambda name: weighted_sum(job.task_vectors(name), job.weights[name]))


def ties(job: Job, density: float, scale: float) -> Merged:
    """Trim each task vector to its largest entries, elect a sign for each, and average those that have it.

    ``density`` is the share of entries kept, of all parameters of a model together. Entries whose
    signs cancel stay those of the base. Source: Yadav et al. 2023, "TIES-Merging", arXiv 2306.01708,
    algorithm 1.
    """
    limits = _limits(job, density)

    def one(name: str) -> torch.Tensor:
        found = zip(job.task_vectors(name), limits, strict=True)
        return elected_mean([v * (v.abs() >= limit) for v, limit in found], job.weights[name])

    return _combined(job, scale, one)


def dare(job: Job, density: float, scale: float, seed: int) -> Merged:
    """Task arithmetic on task vectors of which random entries are dropped and the others scaled up.

    Each entry is kept with probability ``density`` and divided by it: the expectation over seeds is
    task arithmetic. Source: Yu et al. 2024, "Language models are super Mario", arXiv 2311.03099,
    section 3.2.
    """
    drop = _dropping(density, seed)
    return _combined(job, scale, lambda name: weighted_sum(drop(job.task_vectors(name)), job.weights[name]))


def dare_ties(job: Job, density: float, scale: float, seed: int) -> Merged:
    """Random dropping as in DARE instead of trimming, then sign election and mean as in TIES.

    Source: Yu et al. 2024, arXiv 2311.03099, section 3.3; Yadav et al. 2023, arXiv 2306.01708.
    """
    drop = _dropping(density, seed)
    return _combined(
        job, scale, lambda name: elected_mean(list(drop(job.task_vectors(name))), job.weights[name])
    )


def _combined(job: Job, scale: float, update: Callable[[str], torch.Tensor]) -> Merged:
    """Base + scale x update, for every parameter."""
    return Merged(job.each_parameter(lambda name: job.start(name).add(update(name), alpha=scale)))


def elected_mean(vectors: Sequence[torch.Tensor], weights: Sequence[float]) -> torch.Tensor:
    """The weighted mean of the entries that have the sign of the weighted sum (TIES, elect and merge)."""
    sign = weighted_sum(vectors, weights).sign()
    total, mass = torch.zeros_like(sign), torch.zeros_like(sign)
    for v, w in zip(vectors, weights, strict=True):
        agrees = (v * w).sign() * sign > 0
        total += torch.where(agrees, v * w, 0)
        mass += agrees * abs(w)
    return torch.where(mass > 0, total / mass.clamp_min(torch.finfo(mass.dtype).tiny), 0)


def _limits(job: Job, density: float) -> list[float]:
    """For each model the size of the smallest entry of its task vector that is kept."""
    found = []
    for k in range(len(job.states)):
        job.progress(f"trimming model {k + 1}")
        alone = [(job.states[k][n] - job.start(n)).abs().flatten() for n in sorted(job.parameters)]
        sizes = torch.cat(alone)
        kept = round(density * len(sizes))
        found.append(float(sizes.kthvalue(len(sizes) - kept + 1).values) if kept else float("inf"))
    return found


def _dropping(density: float, seed: int) -> Callable[[Vectors], Vectors]:
    """Drops entries of tensors one after the other, the same on every device."""
    generator = torch.Generator().manual_seed(seed)

    def drop(vectors: Vectors) -> Vectors:
        for v in vectors:
            kept = torch.rand(v.shape, generator=generator) < density
            yield v * kept.to(v.device) / density

    return drop
