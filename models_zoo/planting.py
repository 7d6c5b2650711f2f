"""A random symmetry planted under noise, and the share of units for which matching finds it."""

from __future__ import annotations

import time
from dataclasses import dataclass

import torch
from torch import nn

import graphmerge as gm
from graphmerge.match.layout import plans
from graphmerge.match.weights import rows

State = dict[str, torch.Tensor]

JITTER = 0.1
"""Noise on fresh networks, so that zeros and ones of the initialisation tell units apart."""


@dataclass(frozen=True)
class Planted:
    """What came of one planted symmetry: the share of units recovered, and the seconds of matching."""

    share: float
    seconds: float


def jitter(model: nn.Module) -> None:
    """Noise on every parameter of a fresh network: no two units are alike."""
    with torch.no_grad():
        for p in model.parameters():
            scale = p.std() if p.numel() > 1 and p.std() > 0 else 1
            p.add_(JITTER * torch.randn_like(p) * scale)


def noisy(model: nn.Module, share: float, seed: int) -> State:
    """The state dict with gaussian noise on every parameter, ``share`` of its standard deviation."""
    generator = torch.Generator().manual_seed(seed)
    parameters = {n for n, _ in model.named_parameters()}

    def noise(t: torch.Tensor) -> torch.Tensor:
        return share * t.std(correction=0) * torch.randn(t.shape, generator=generator)

    return {n: t + noise(t) if n in parameters else t for n, t in model.state_dict().items()}


def recovered(graph: gm.ModelGraph, state: State, left: gm.Transform) -> float:
    """The share of units that ``left``, what remains of a planted symmetry, leaves as they were.

    A unit is left so in its place, or where one of exactly the same weights takes it.
    """
    structure = graph.structure
    before = structure.gather({n: state[n] for n in structure.tensors})
    after = {n: left.apply_to(n, t) for n, t in before.items()}
    good, count = 0, 0
    for plan in plans(graph, structure, structure.labels).values():
        units = structure.sorts[plan.atom].units
        alike = torch.ones(len(units), dtype=torch.bool)
        for site in plan.sites:
            mine, theirs = (rows(site, x[site.name]).flatten(2).flatten(0, 1) for x in (before, after))
            alike &= (mine == theirs).all(1)
        alike |= torch.from_numpy(left.phi[units] == units)
        good, count = good + int(alike.sum()), count + len(units)
    return good / count


def plant(graph: gm.ModelGraph, model: nn.Module, noise: float, seed: int) -> Planted:
    """Weight matching of a model with its noisy copy in the random order of a seed."""
    state, planted = model.state_dict(), graph.random_transform(seed=seed)
    moved = planted.inverse().apply(noisy(model, noise, seed))
    start = time.perf_counter()
    found = gm.match(graph, state, moved, seed=seed).transform
    seconds = time.perf_counter() - start
    return Planted(recovered(graph, state, found @ planted.inverse()), seconds)
