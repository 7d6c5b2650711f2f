"""Align many models: the entry point for every way."""

from __future__ import annotations

import time
from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import nn

from graphmerge.errors import UsageError
from graphmerge.losses import Function, Loss, loss_of
from graphmerge.match.alignment import Alignment
from graphmerge.match.data import check_data
from graphmerge.match.many.alignment import ManyAlignment
from graphmerge.match.many.job import Job, Placed
from graphmerge.match.many.ways import way_of, way_settings
from graphmerge.match.matching import parameters
from graphmerge.match.methods import METHODS
from graphmerge.match.tables import on, shared_tables
from graphmerge.progress import Progress, silent
from graphmerge.symmetry import ModelGraph, Transform
from graphmerge.trace.run import State, state_of


def match_many(
    graph: ModelGraph,
    models: Sequence[nn.Module | State],
    method: str = "cycle",
    data: Iterable[Any] | None = None,
    seed: int = 0,
    *,
    loss: str | Function | Loss = "cross-entropy",
    progress: Progress = silent,
    **options: Any,
) -> ManyAlignment:
    """Find the symmetries that bring ``models`` into the frame of the first.

    ``method`` names an entry of ``graphmerge.match.many.WAYS``: "reference" (each to one of them),
    "merge-many" (each in turn to the mean of the others), "cycle" (all at once) or "hierarchical" (up a
    tree). All but "cycle", which compares weights, take ``pairwise``, a method of ``match``, and its
    ``options``. ``data`` and ``loss`` are for pairwise methods that need them, as in ``match``.

    Raises what ``match`` raises, and UsageError for fewer than two models or an unknown way.
    """
    way, (pairwise, own, pair_options) = way_of(method), way_settings(method, options)
    if len(models) < 2:
        raise UsageError(f"matching takes at least two models, got {len(models)}")
    if METHODS[pairwise].lacks(data, pair_options):
        raise UsageError(f"{pairwise} matching needs data: an iterable of batches (inputs, targets)")
    since = time.perf_counter()
    own_parameters = [parameters(graph, m, f"model {i}") for i, m in enumerate(models)]
    for model in models:
        if isinstance(model, nn.Module):
            graph.require_same(model)
    states = tuple(state_of(m) for m in models)
    if METHODS[pairwise].needs_data and data is not None:
        check_data(graph, states[0], data)
    kept = {"tables": found} if (found := shared_tables(graph, states)) else {}
    job = Job(
        graph.freeze(list(found)), states, _one_dtype(own_parameters), own, pairwise, pair_options, data,
        seed, loss_of(loss), progress,
    )  # fmt: skip
    placed = way.run(job)
    back = placed.transforms[0].inverse()
    transforms = [back @ t for t in placed.transforms]
    seconds = time.perf_counter() - since
    aligned = placed.direct or _alignments(job, placed, transforms, method, seconds)
    return ManyAlignment(
        tuple(replace(a, transform=on(graph, a.transform), notes={**a.notes, **kept}) for a in aligned),
        method, job.all_pairs(transforms), job.all_pairs([graph.identity()] * len(states)),
        placed.history, seconds, seed, placed.converged, {**own, "pairwise": pairwise, **pair_options},
        {**placed.notes, **kept},
    )  # fmt: skip


def _one_dtype(found: Sequence[State]) -> tuple[State, ...]:
    """The parameters of all models, each in a dtype that holds it in all of them."""
    wide = {n: t.dtype for n, t in found[0].items()}
    for own in found[1:]:
        wide = {n: torch.promote_types(dtype, own[n].dtype) for n, dtype in wide.items()}
    return tuple({n: t.to(wide[n]) for n, t in own.items()} for own in found)


def _alignments(
    job: Job, placed: Placed, transforms: Sequence[Transform], method: str, seconds: float
) -> tuple[Alignment, ...]:
    """The alignment of every model after the first to it, judged by the inner product of parameters."""
    identity, first = job.graph.identity(), job.parameters[0]

    def inner(t: Transform, own: State) -> float:
        return sum(float((a * t.apply_to(n, own[n])).sum(dtype=torch.float64)) for n, a in first.items())

    options = {**job.options, "pairwise": job.pairwise, **job.pair_options}
    found = []
    for t, own in zip(transforms[1:], job.parameters[1:], strict=True):
        reached, start = inner(t, own), inner(identity, own)
        one = Alignment(t, method, reached, start, (), seconds, job.seed, placed.converged, options=options)
        found.append(one)
    return tuple(found)
