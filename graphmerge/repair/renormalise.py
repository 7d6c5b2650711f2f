"""REPAIR and its parts: give merged activations the means and spreads that the endpoints have.

Averaging units that agree only in part shrinks their variance, the more the deeper. Source: Jordan
et al. 2022, "REPAIR: REnormalizing Permuted Activations for Interpolation Repair", arXiv 2211.08403,
section 3. The correction goes into the weights of the operator that made the activations.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from graphmerge.repair.batchnorm import normalised, pools_of, with_statistics
from graphmerge.repair.sites import Site, sites
from graphmerge.repair.statistics import Goal, JointMoments, Moments
from graphmerge.repair.sums import with_sums
from graphmerge.repair.task import Repaired, Task, check_finite
from graphmerge.trace.run import State, Visit, run_together, tied

NOISE = 1e-6
"""A spread below this part of a unit's own mean is the rounding of float32: the unit never varies."""

DEAD = 1e-8
"""A unit whose spread is below this part of the largest never varies either."""


@dataclass(frozen=True)
class Correction:
    """Scale and shift [unit] (float64), and the units that are dead, or whose sum no scale can repair."""

    scale: torch.Tensor
    shift: torch.Tensor
    dead: torch.Tensor
    out_of_reach: torch.Tensor

    def check(self, weight: str) -> None:
        """InputError where it is not finite; NaN in the data shows in the shift alone at some sites."""
        for value in (self.scale, self.shift):
            check_finite(value, f"the statistics for {weight}")


def repair(task: Task, merged: State, weights: Sequence[float], gains: str, sums: str) -> Repaired:
    """Every site gets the mean and the spread that lie between those of the endpoints.

    All batches go through the merged network site by site together, so that later sites see inputs
    corrected by the statistics of all the data. BatchNorms on the way are reset (see ``reset_on``).
    """
    return _renormalise(task, merged, weights, gains, sums, scale=True, shift=True)


def rescale(task: Task, merged: State, weights: Sequence[float], gains: str, sums: str) -> Repaired:
    """The spread alone: what a site returns is multiplied, its mean with it."""
    return _renormalise(task, merged, weights, gains, sums, scale=True, shift=False)


def reshift(task: Task, merged: State, weights: Sequence[float], gains: str, sums: str) -> Repaired:
    """The mean alone, at sites that have a bias."""
    return _renormalise(task, merged, weights, gains, sums, scale=False, shift=True)


def _renormalise(
    task: Task, merged: State, weights: Sequence[float], gains: str, sums: str, *, scale: bool, shift: bool
) -> Repaired:
    program = task.program
    found, skipped = sites(program, gains == "yes")
    found = with_sums(program, found) if sums == "yes" else found
    found = found if scale else tuple(s for s in found if s.bias)
    goals = task.goals([s.seen for s in found], weights)
    corrections: dict[str, Correction] = {}
    by_node = {s.seen[0]: s for s in found}
    pools, resets = pools_of(program)

    def correct(visits: list[Visit]) -> list[Any]:
        if visits[0].node.name in resets:
            return normalised(visits, resets[visits[0].node.name])
        site = by_node[visits[0].node.name]
        task.progress(f"repairing {site.weight}")
        own = _moments(visits, site)
        c = correction(own, goals[site.seen], scale, shift and site.bias is not None)
        c.check(site.weight)
        corrections[site.node] = c
        return [_corrected(v, c, site) for v in visits]

    run_together(program, [(merged, x) for x in task.batches], {*by_node, *resets}, correct)
    state = fuse(with_statistics(program, merged, pools), found, corrections)
    return Repaired(tied(program, state), notes_of(found, corrections, skipped))


def _moments(visits: Sequence[Visit], site: Site) -> Moments | JointMoments:
    """Statistics of what a site returns; with those of the shortcut where there is a sum."""
    if site.sum is None:
        own = Moments()
        for v in visits:
            own.update(v.value, site.unit_dim)
        return own
    joint = JointMoments()
    for v in visits:
        joint.update((v.args[site.sum.place], v.args[1 - site.sum.place]), site.sum.unit_dim)
    return joint


def correction(own: Moments | JointMoments, target: Goal, scale: bool, shift: bool) -> Correction:
    """What takes one set of statistics to another; units that never vary are left alone."""
    mean, std = target
    branch, rest = (own, None) if isinstance(own, Moments) else (own.of(0), own.of(1))
    dead = _still(branch.std(), torch.as_tensor(branch.mean)) | _still(std, mean)
    factor = torch.ones_like(std)
    out_of_reach = torch.zeros_like(dead)
    if scale and isinstance(own, JointMoments):
        factor, out_of_reach = _factor_in_sum(own.covariance(), std)
    elif scale:
        factor = std / branch.std().clamp_min(1e-300)
    factor = torch.where(dead | out_of_reach, 1.0, factor)
    offset = mean - factor * branch.mean - (rest.mean if rest else 0.0)
    offset = torch.where(dead, 0.0, offset) if shift else torch.zeros_like(factor)
    return Correction(factor, offset, dead, out_of_reach & ~dead)


def _still(std: torch.Tensor, mean: torch.Tensor) -> torch.Tensor:
    return (std <= DEAD * std.max()) | (std <= NOISE * mean.abs())


def _factor_in_sum(covariance: torch.Tensor, std: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """The scale a > 0 nearest to 1 that gives a x branch + shortcut a spread [unit], and where none does.

    a^2 var(branch) + 2 a cov(branch, shortcut) + var(shortcut) = std^2.
    """
    branch, both, shortcut = covariance[0, 0].clamp_min(1e-300), covariance[0, 1], covariance[1, 1]
    inside = both.square() - branch * (shortcut - std.square())
    root = inside.clamp_min(0.0).sqrt()
    roots = torch.stack([(-both - root) / branch, (-both + root) / branch])
    distance = torch.where(roots > 0, (roots - 1).abs(), torch.inf)
    best = distance.argmin(0, keepdim=True)
    none = (inside < 0) | distance.gather(0, best)[0].isinf()
    return roots.gather(0, best)[0], none


def _corrected(visit: Visit, c: Correction, site: Site) -> torch.Tensor:
    value: torch.Tensor = visit.value
    shape = [1] * value.ndim
    shape[site.seen[1]] = -1
    scale, shift = c.scale.to(value).reshape(shape), c.shift.to(value).reshape(shape)
    if site.sum is None:
        return value * scale + shift
    branch, rest = visit.args[site.sum.place], visit.args[1 - site.sum.place]
    return branch * scale + shift + rest  # type: ignore[no-any-return]


def fuse(
    state: State, found: Sequence[Site], corrections: Mapping[str, Correction]
) -> dict[str, torch.Tensor]:
    """Put the corrections into the weights and biases."""
    result = dict(state)
    for site in found:
        c, weight = corrections[site.node], result[site.weight]
        shape = [1] * weight.ndim
        shape[site.weight_dim] = -1
        result[site.weight] = (weight.double() * c.scale.reshape(shape)).to(weight.dtype)
        if site.bias is not None:
            bias = result[site.bias]
            result[site.bias] = (bias.double() * c.scale + c.shift).to(bias.dtype)
    return result


def notes_of(
    found: Sequence[Site], corrections: Mapping[str, Correction], skipped: Mapping[str, str]
) -> dict[str, Any]:
    """What was corrected, what could be only in part, and what was not, by the names of the weights."""

    def count(units: str) -> dict[str, int]:
        counts = {s.weight: int(getattr(corrections[s.node], units).sum()) for s in found}
        return {name: n for name, n in counts.items() if n}

    notes: dict[str, Any] = {
        "corrected": [s.weight for s in found],
        "without a bias": [s.weight for s in found if s.bias is None],
        "dead units": count("dead"),
        "units of a sum out of reach": count("out_of_reach"),
        "no sites": dict(skipped),
    }
    return {name: note for name, note in notes.items() if note}
