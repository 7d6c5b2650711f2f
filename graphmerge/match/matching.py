"""Align one model to another: the entry point for every method."""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping
from typing import Any

import torch
from torch import nn

from graphmerge.errors import InputError, UsageError
from graphmerge.match.activations import (
    ActivationSimilarity,
    correlate,
    feature_graph,
    feature_labels,
    same_frame,
)
from graphmerge.match.alignment import Alignment
from graphmerge.match.descent import ambiguous, descend
from graphmerge.match.layout import Plan, plan
from graphmerge.match.refine import refine
from graphmerge.match.start import place
from graphmerge.match.weights import WeightSimilarity
from graphmerge.progress import Progress, silent
from graphmerge.symmetry import ModelGraph
from graphmerge.symmetry.structure import Structure
from graphmerge.trace.run import State, state_of

PERFECT = 1e-6
"""Relative distance to the Cauchy-Schwarz bound at which no restart can gain anything."""


def match(
    graph: ModelGraph,
    a: nn.Module | State,
    b: nn.Module | State,
    method: str = "weight",
    data: Iterable[Any] | None = None,
    seed: int = 0,
    *,
    restarts: int = 2,
    progress: Progress = silent,
) -> Alignment:
    """Find the symmetry that brings model ``b`` closest to model ``a``.

    ``method`` is "weight" (coordinate descent on the inner product of parameters, then
    ``restarts - 1`` rounds in which every pair of neighbouring groups is placed anew) or
    "activation" (correlation of activations on ``data``, batches of ``(inputs, targets)``). Both run
    on the device of the weights. The same seed gives the same result.

    Raises UsageError for an unknown method or missing data, InputError where the state dicts do
    not fit the traced model or hold NaN or infinity, TraceError where a module has another graph.
    """
    if method not in ("weight", "activation"):
        raise UsageError(f"unknown matching method {method!r}; there are: weight, activation")
    start = time.perf_counter()
    states = [_parameters(graph, x, which) for x, which in ((a, "first"), (b, "second"))]
    common = {n: torch.promote_types(t.dtype, states[1][n].dtype) for n, t in states[0].items()}
    states = [{n: t.to(common[n]) for n, t in s.items()} for s in states]
    for model in (a, b):
        if isinstance(model, nn.Module):
            graph.require_same(model)
    if method == "weight":
        result = _match_weights(graph, states[0], states[1], seed, restarts, progress)
    else:
        result = _match_activations(graph, a, b, data, seed, progress)
    return Alignment(seconds=time.perf_counter() - start, seed=seed, method=method, **result)


def plans(graph: ModelGraph, structure: Structure, labels: Mapping[str, Any]) -> dict[str, Plan]:
    """The plan of every group that shows among ``labels``."""
    made = {name: plan(structure, k, labels) for name, k in graph.atom_of.items()}
    return {name: p for name, p in made.items() if p.sites}


def _parameters(graph: ModelGraph, model: nn.Module | State, which: str) -> dict[str, torch.Tensor]:
    """The tensors that the groups move, checked against the traced model."""
    state = state_of(model)
    found = {}
    for t in graph.program.tensors.values():
        if t.name not in graph.structure.tensors:
            continue
        present = [n for n in t.names if n in state]
        if not present:
            raise InputError(f"the {which} model lacks tensor {t.name} of the traced architecture")
        value = state[present[0]].detach()
        if tuple(value.shape) != t.shape:
            raise InputError(
                f"tensor {t.name} of the {which} model is {tuple(value.shape)}, traced was {t.shape}"
            )
        if not bool(torch.isfinite(value).all()):
            raise InputError(
                f"tensor {t.name} of the {which} model holds NaN or infinity: it cannot be matched"
            )
        if value.is_complex():
            raise InputError(f"tensor {t.name} of the {which} model is complex: it cannot be matched yet")
        if not t.is_buffer:
            found[t.name] = value.to(torch.promote_types(value.dtype, torch.float32))
    return graph.structure.gather(found)


def _match_weights(
    graph: ModelGraph, a: State, b: State, seed: int, restarts: int, progress: Progress
) -> dict[str, Any]:
    work = plans(graph, graph.structure, {n: x for n, x in graph.structure.labels.items() if n in a})
    bound = sum(float(a[n].double().norm() * b[n].double().norm()) for n in a)
    similarity = WeightSimilarity(a, b, graph.identity())
    start = similarity.objective
    placed = place(similarity, work)
    if placed.objective <= start:  # models that share their training are already in place
        similarity = WeightSimilarity(a, b, graph.identity())
    steps, converged = descend(similarity, work, seed, progress=progress)
    steps = [placed, *steps] if placed.objective > start else steps
    reached = [similarity.objective]
    for _ in range(restarts - 1):
        if reached[-1] >= bound * (1 - PERFECT):
            break
        sweep = steps[-1].sweep + 1 if steps else 0
        similarity, found = refine(similarity, work, sweep, progress)
        if not found:
            break
        more, converged = descend(similarity, work, seed, first_sweep=sweep + 1, progress=progress)
        steps += [*found, *more]
        reached.append(similarity.objective)
    similarity.objective = similarity.measure()  # without the rounding of a sum of gains
    return {
        "transform": similarity.transform, "objective": similarity.objective, "start": start,
        "history": tuple(steps),
        "converged": converged, "restarts": tuple(reached),
        "notes": {"bound": bound, "ambiguous": ambiguous(similarity, work)},
    }  # fmt: skip


def _match_activations(
    graph: ModelGraph,
    a: nn.Module | State,
    b: nn.Module | State,
    data: Iterable[Any] | None,
    seed: int,
    progress: Progress,
) -> dict[str, Any]:
    if data is None:
        raise UsageError("activation matching needs data: an iterable of batches (inputs, targets)")
    states = [state_of(m) for m in (a, b)]
    features = feature_graph(graph, data)
    structure = feature_labels(features)
    work = plans(features, structure, structure.labels)
    sites = [s for p in work.values() for s in (*p.sites, *(s for x in p.inner.values() for s in x))]
    correlations, read, skipped = correlate(features, structure, states[0], states[1], data, sites, progress)
    similarity = ActivationSimilarity(structure, correlations, features.identity())
    start = similarity.objective
    steps, converged = descend(similarity, work, seed, progress=progress)
    return {
        "transform": same_frame(graph, similarity.transform), "objective": similarity.objective,
        "start": start, "history": tuple(steps), "converged": converged,
        "restarts": (similarity.objective,),
        "notes": {"batches": read, "skipped": skipped, "unseen groups": len(graph.groups) - len(work)},
    }  # fmt: skip
