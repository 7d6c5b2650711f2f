"""Align one model to another: the entry point for every method."""

from __future__ import annotations

import time
from collections.abc import Iterable
from typing import Any

import torch
from torch import nn

from graphmerge.errors import InputError, UsageError
from graphmerge.losses import Function, Loss, loss_of
from graphmerge.match.activations import same_frame
from graphmerge.match.alignment import Alignment, MatchingInterrupted
from graphmerge.match.data import check_data
from graphmerge.match.methods import method_of, settings
from graphmerge.match.tables import on, shared_tables
from graphmerge.match.task import Task
from graphmerge.precision import wide
from graphmerge.progress import Progress, silent
from graphmerge.symmetry import ModelGraph, Transform
from graphmerge.trace.run import State, state_of


def match(
    graph: ModelGraph,
    a: nn.Module | State,
    b: nn.Module | State,
    method: str = "weight",
    data: Iterable[Any] | None = None,
    seed: int = 0,
    *,
    start: Alignment | Transform | None = None,
    loss: str | Function | Loss = "cross-entropy",
    progress: Progress = silent,
    **options: Any,
) -> Alignment:
    """Find the symmetry that brings model ``b`` closest to model ``a``.

    ``method`` names an entry of ``graphmerge.match.METHODS``, which says what it does and which
    ``options`` it takes: "weight" (coordinate descent on the inner product of parameters),
    "activation" (correlation of activations on ``data``, batches of ``(inputs, targets)``) and others.
    All run on the device of the weights. The same seed gives the same result. Units of a table that both
    models share (a buffer with the same values) stay: ``notes["tables"]``. ``start`` is an alignment
    to go on from, which the result is never worse than; ``loss`` is what methods with a task loss lower:
    a name of ``graphmerge.losses.LOSSES``, or a function of the outputs of a batch and its targets.

    Raises UsageError for an unknown method or option, or missing data, InputError where the state
    dicts do not fit the traced model or hold NaN or infinity, TraceError where a module has another graph,
    MatchingInterrupted (a KeyboardInterrupt) with what had been reached when it is interrupted.
    """
    chosen, given = method_of(method), settings(method, options)
    if chosen.lacks(data, given):
        raise UsageError(f"{method} matching needs data: an iterable of batches (inputs, targets)")
    since = time.perf_counter()
    whole = (state_of(a), state_of(b))
    states = [parameters(graph, x, which) for x, which in ((a, "the first model"), (b, "the second model"))]
    common = {n: torch.promote_types(t.dtype, states[1][n].dtype) for n, t in states[0].items()}
    first, second = ({n: t.to(common[n]) for n, t in s.items()} for s in states)
    for model in (a, b):
        if isinstance(model, nn.Module):
            graph.require_same(model)
    if chosen.needs_data and data is not None:
        check_data(graph, whole[0], data)
    begin = start.transform if isinstance(start, Alignment) else start
    if begin is not None and begin.groups.keys() != graph.atom_of.keys():
        odd = sorted(begin.groups.keys() ^ graph.atom_of.keys())[0]
        raise InputError(f"the start was made for another graph: only one of the two has a group {odd!r}")
    kept = {"tables": tables} if (tables := shared_tables(graph, whole)) else {}
    held = graph.freeze(list(tables))
    task = Task(
        held, first, second, whole, given, data, seed, begin and on(held, begin), loss_of(loss), progress
    )
    try:
        found = chosen.run(task)
    except KeyboardInterrupt as stop:
        if not task.reached:
            raise
        raise MatchingInterrupted(_unfinished(graph, task, method, time.perf_counter() - since)) from stop
    return Alignment(
        on(graph, found.transform), method, found.objective, found.start, found.history,
        time.perf_counter() - since, seed, found.converged, found.restarts,
        {**found.notes, **kept}, task.seconds, given, found.gaps,
    )  # fmt: skip


def _unfinished(graph: ModelGraph, task: Task, method: str, seconds: float) -> Alignment:
    """What a method had reached when it was interrupted."""
    transform, objective = task.reached[-1]
    return Alignment(
        on(graph, same_frame(task.graph, transform)), method, objective, objective, (), seconds, task.seed,
        False, stages=task.seconds, options=task.options,
    )  # fmt: skip


def parameters(graph: ModelGraph, model: nn.Module | State, which: str) -> dict[str, torch.Tensor]:
    """The tensors that the groups move, checked against the traced model."""
    state = state_of(model)
    found = {}
    for t in graph.program.tensors.values():
        if t.name not in graph.structure.tensors:
            continue
        present = [n for n in t.names if n in state]
        if not present:
            raise InputError(f"{which} lacks tensor {t.name} of the traced architecture")
        value = state[present[0]].detach()
        if tuple(value.shape) != t.shape:
            raise InputError(f"tensor {t.name} of {which} is {tuple(value.shape)}, traced was {t.shape}")
        if value.is_complex():
            raise InputError(f"tensor {t.name} of {which} is complex: it cannot be matched yet")
        if value.numel() and not torch.stack(value.aminmax()).isfinite().all():  # no copy of its size
            raise InputError(f"tensor {t.name} of {which} holds NaN or infinity: it cannot be matched")
        if not t.is_buffer:
            found[t.name] = wide(value)
    return graph.structure.gather(found)
