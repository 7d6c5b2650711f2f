"""REPAIR: give merged activations the means and spreads that the endpoints have.

Averaging units that agree only in part shrinks their variance, the more the deeper. Source: Jordan
et al. 2022, "REPAIR: REnormalizing Permuted Activations for Interpolation Repair", arXiv 2211.08403,
section 3. The correction goes into the weights of the operator that made the activations.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from graphmerge.repair.batchnorm import batch_size, check_finite, require_samples, reset_on
from graphmerge.repair.sites import Site, norms, sites
from graphmerge.repair.statistics import Moments, goal
from graphmerge.symmetry import ModelGraph
from graphmerge.trace import Program
from graphmerge.trace.run import (
    Inputs,
    State,
    Visit,
    device_of,
    fitting,
    program_for,
    run_together,
    state_of,
    tied,
)

DEAD = 1e-8
"""A unit whose spread is below this part of the largest is dead: it is left alone."""


@dataclass(frozen=True)
class RepairReport:
    """What was corrected: sites, units left alone because they never vary, and what is no site."""

    corrected: tuple[str, ...]
    scale_only: tuple[str, ...]
    dead_units: Mapping[str, int]
    skipped: Mapping[str, str]


def available(graph: ModelGraph) -> tuple[str, ...]:
    """Which of "bn-reset" and "repair" apply to this network."""
    names = []
    if norms(graph.program):
        names.append("bn-reset")
    if sites(graph.program)[0]:
        names.append("repair")
    return tuple(names)


def repair(
    graph: ModelGraph,
    merged: State,
    endpoints: Sequence[nn.Module | State],
    data: Iterable[Any],
    weights: Sequence[float] | None = None,
) -> dict[str, torch.Tensor]:
    """``merged`` with its activations repaired; see ``repair_with_report``."""
    return repair_with_report(graph, merged, endpoints, data, weights)[0]


def repair_with_report(
    graph: ModelGraph,
    merged: State,
    endpoints: Sequence[nn.Module | State],
    data: Iterable[Any],
    weights: Sequence[float] | None = None,
) -> tuple[dict[str, torch.Tensor], RepairReport]:
    """Correct every site of ``merged`` to the statistics interpolated between ``endpoints``.

    ``endpoints`` are state dicts in one frame (the others already aligned), ``weights`` their
    shares [model], equal by default. Statistics are per unit over batch, space and time, in float64.
    All batches go through the merged network site by site together, so that later sites see inputs
    corrected by the statistics of all the data. BatchNorms, if there are any, are reset first. At an
    endpoint (all weight on one model) nothing changes but for rounding.

    Raises InputError where the data holds fewer than 32 samples, or gives NaN.
    """
    weights = [1 / len(endpoints)] * len(endpoints) if weights is None else weights
    program = program_for(graph.model, data, graph.program)
    found, skipped = sites(program)
    with torch.no_grad():
        if norms(program):
            merged = reset_on(program, merged, data)
        batches = [x for x in fitting(program, data, device_of(merged)) if x is not None]
        require_samples(sum(batch_size(x) for x in batches))
        targets = [_measure(program, state_of(s), batches, found) for s in endpoints]
        goals = {s.node: goal([t[s.node] for t in targets], weights) for s in found}
        own = _measure_corrected(program, merged, batches, found, goals)
        state, dead = _fuse(merged, found, goals, own)
        state = tied(program, state)
    report = RepairReport(
        tuple(s.weight for s in found), tuple(s.weight for s in found if s.bias is None), dead, skipped
    )
    return state, report


Goals = Mapping[str, tuple[torch.Tensor, torch.Tensor]]


def _measure(
    program: Program, state: State, batches: Sequence[Inputs], found: Sequence[Site]
) -> dict[str, Moments]:
    """Statistics of every site as it is, batch by batch."""
    moments = {s.node: Moments() for s in found}
    units = {s.node: s.unit_dim for s in found}

    def look(visits: list[Visit]) -> None:
        for v in visits:
            moments[v.node.name].update(v.value, units[v.node.name])

    for inputs in batches:
        run_together(program, state, [inputs], units, look)
    return moments


def _measure_corrected(
    program: Program, state: State, batches: Sequence[Inputs], found: Sequence[Site], goals: Goals
) -> dict[str, Moments]:
    """Statistics of every site under the corrections of those before it."""
    moments = {s.node: Moments() for s in found}
    by_node = {s.node: s for s in found}

    def correct(visits: list[Visit]) -> list[torch.Tensor]:
        site = by_node[visits[0].node.name]
        for v in visits:
            moments[site.node].update(v.value, site.unit_dim)
        scale, shift, _ = correction(moments[site.node], goals[site.node], site.bias is not None)
        return [v.value * _along(scale, v.value, site) + _along(shift, v.value, site) for v in visits]

    run_together(program, state, batches, by_node, correct)
    return moments


def correction(
    own: Moments, target: tuple[torch.Tensor, torch.Tensor], shift: bool
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Scale and shift [unit] from one set of statistics to another, and which units are dead."""
    mean, std = target
    spread, own_mean = own.std(), torch.as_tensor(own.mean)
    dead = (spread <= DEAD * spread.max()) | (std <= DEAD * std.max())
    scale = torch.where(dead, 1.0, std / spread.clamp_min(1e-300))
    offset = torch.where(dead, 0.0, mean - scale * own_mean) if shift else torch.zeros_like(scale)
    return scale, offset, dead


def _along(x: torch.Tensor, value: torch.Tensor, site: Site) -> torch.Tensor:
    shape = [1] * value.ndim
    shape[site.unit_dim] = -1
    return x.to(value).reshape(shape)


def _fuse(
    state: State, found: Sequence[Site], goals: Goals, own: Mapping[str, Moments]
) -> tuple[dict[str, torch.Tensor], dict[str, int]]:
    """Put the corrections into the weights and biases."""
    result = dict(state)
    dead: dict[str, int] = {}
    for site in found:
        scale, shift, still = correction(own[site.node], goals[site.node], site.bias is not None)
        check_finite(scale, site.weight)
        if bool(still.any()):
            dead[site.weight] = int(still.sum())
        weight = result[site.weight]
        shape = [1] * weight.ndim
        shape[site.weight_dim] = -1
        result[site.weight] = (weight.double() * scale.reshape(shape)).to(weight.dtype)
        if site.bias is not None:
            bias = result[site.bias]
            result[site.bias] = (bias.double() * scale + shift).to(bias.dtype)
    return result, dead
