"""Methods on the singular vectors of task matrices: TSV-M and Iso-C.

A parameter with two dimensions or more (of those longer than 1) is a matrix, its first dimension
against all others: a convolution [out, in, y, x] is [out, in y x]. Vectors, and matrices of a rank
below the number of models, get the mean of the task vectors. Grouped convolutions and stacks of experts
are one matrix too: where units move within a group, the result depends on the frame.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch

from graphmerge.merge.job import Job
from graphmerge.merge.method import Merged
from graphmerge.precision import weighted_sum

Matrices = Sequence[torch.Tensor]


def tsv_m(job: Job, scale: float) -> Merged:
    """Keep the first singular triplets of each of T task matrices, 1/T of the rank, and whiten them apart.

    The kept singular vectors of all tasks side by side, U and V, are replaced by the nearest
    orthonormal ones: base + scale x U' S V'. Source: Gargiulo et al. 2025, "Task Singular Vectors:
    Reducing Task Interference in Model Merging", arXiv 2412.00081, section 4, algorithm 1.
    """
    return _spectral(job, scale, _whitened)


def iso_c(job: Job, scale: float) -> Merged:
    """Give all singular values of the summed task matrices their mean.

    Source: Marczak et al. 2025, "No Task Left Behind: Isotropic Model Merging with Common and
    Task-Specific Subspaces", arXiv 2502.04959, section 4.1, algorithm 1.
    """
    return _spectral(job, scale, _flattened)


def _spectral(job: Job, scale: float, combine: Callable[[Matrices], torch.Tensor]) -> Merged:
    n = len(job.states)

    def one(name: str) -> torch.Tensor:
        start = job.start(name)
        rows = next((size for size in start.shape if size > 1), 1)
        if min(rows, start.numel() // rows) < max(n, 2):
            update = weighted_sum(job.task_vectors(name), [1 / n] * n)
        else:
            update = combine([v.reshape(rows, -1) for v in job.task_vectors(name)]).reshape(start.shape)
        return start.add(update, alpha=scale)

    return Merged(job.each_parameter(one))


def _whitened(matrices: Matrices) -> torch.Tensor:
    kept = min(matrices[0].shape) // len(matrices)
    parts = [torch.linalg.svd(m, full_matrices=False) for m in matrices]
    u = torch.cat([u[:, :kept] for u, _, _ in parts], 1)
    s = torch.cat([s[:kept] for _, s, _ in parts])
    v = torch.cat([v[:kept] for _, _, v in parts])
    return (_orthonormal(u) * s) @ _orthonormal(v)


def _orthonormal(m: torch.Tensor) -> torch.Tensor:
    """The nearest matrix with orthonormal columns or rows (orthogonal Procrustes)."""
    u, _, v = torch.linalg.svd(m, full_matrices=False)
    nearest: torch.Tensor = u @ v
    return nearest


def _flattened(matrices: Matrices) -> torch.Tensor:
    u, s, v = torch.linalg.svd(weighted_sum(matrices, [1.0] * len(matrices)), full_matrices=False)
    equal: torch.Tensor = (u @ v) * s.mean()
    return equal
