"""Repair without running the merged network: its statistics are told from those of the endpoints.

Were every layer of the merged network the weighted sum of the endpoints' layers, a unit would have
the variance sum_ij w_i w_j cov(z_i, z_j). Source: Jordan et al. 2022, "REPAIR", arXiv 2211.08403,
section 3 (the variance of an interpolated unit), and their closed form for VGG.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch

from graphmerge.repair.batchnorm import with_statistics
from graphmerge.repair.renormalise import Correction, correction, fuse, notes_of
from graphmerge.repair.sites import norms, sites
from graphmerge.repair.statistics import JointMoments, Moments, goal
from graphmerge.repair.task import Point, Repaired, Task
from graphmerge.trace.run import State, tied, visit


def closed_form(task: Task, merged: State, weights: Sequence[float], gains: str) -> Repaired:
    """Sites are scaled by the spread wanted over the one told; BatchNorms get the statistics told.

    Merging must have been an average with these weights. One pass over the data, in which all endpoints
    run side by side; ``merged`` itself is not run.
    """
    found, skipped = sites(task.program, gains == "yes")
    resets = norms(task.program)
    inputs = {n.mean: (n.input, 1) for n in resets}
    points = sorted({*(s.seen for s in found), *inputs.values()})
    joint = task.once(f"joint moments of {points}", lambda: _together(task, points))
    state = with_statistics(
        task.program, merged, {mean: joint[p].mixture(weights) for mean, p in inputs.items()}
    )
    corrections: dict[str, Correction] = {}
    for site in found:
        each = joint[site.seen]
        wanted = goal([each.of(k) for k in range(len(weights))], weights)
        told: Moments = each.mixture(weights)
        c = correction(told, wanted, scale=True, shift=site.bias is not None)
        c.check(site.weight)
        corrections[site.node] = c
    notes = notes_of(found, corrections, skipped)
    return Repaired(tied(task.program, fuse(state, found, corrections)), notes)


def _together(task: Task, points: Sequence[Point]) -> dict[Point, JointMoments]:
    """Moments of the same points of all endpoints on the same data."""
    moments = {p: JointMoments() for p in points}
    at: dict[str, list[Point]] = {}
    for point in points:
        at.setdefault(point[0], []).append(point)
    for k, inputs in enumerate(task.batches, 1):
        task.progress(f"statistics of all models: batch {k} of {len(task.batches)}")
        runs = (visit(task.program, state, inputs, at) for state in task.endpoints)
        for visits in zip(*runs, strict=True):
            for point in at[visits[0].node.name]:
                moments[point].update([torch.as_tensor(v.value) for v in visits], point[1])
    return moments
