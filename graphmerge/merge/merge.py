"""Merge models by any method of the table."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import nn

from graphmerge.errors import InputError, UsageError, meant
from graphmerge.losses import CROSS_ENTROPY, Function, Loss, loss_of
from graphmerge.merge.job import Job, Weights, resolve_weights
from graphmerge.merge.methods import METHODS
from graphmerge.merge.tensors import require_same_tensors
from graphmerge.options import Value, read_options
from graphmerge.progress import Progress, silent
from graphmerge.symmetry import ModelGraph
from graphmerge.trace.memory import ties as tied_names
from graphmerge.trace.run import State, state_of

Data = Iterable[Any]

NEEDED = {
    "inputs": "batches of inputs",
    "targets": "batches (inputs, targets)",
    "held-out": "held-out batches (inputs, targets)",
}
"""What a method's ``data`` are."""


class Alignment(Protocol):
    """What moves a model into the frame of the first."""

    def apply(self, state: State) -> dict[str, torch.Tensor]: ...


@dataclass(frozen=True)
class MergeReport:
    """How a merge was made: the method, all its options, and what the method has to tell.

    ``notes`` are for RegMean which tensors were "solved" and which "averaged" (with the reason), for a
    greedy soup its "ingredients" (model numbers from 0) and "accuracy", for Model Stock the ratio "t"
    of every parameter.
    """

    method: str
    options: Mapping[str, Value]
    notes: Mapping[str, Any]


def merge(
    graph: ModelGraph,
    models: Sequence[nn.Module | State],
    method: str = "average",
    alignment: Alignment | Sequence[Alignment] | None = None,
    weights: Weights | None = None,
    *,
    base: nn.Module | State | None = None,
    data: Data | None = None,
    own_data: Sequence[Data] | None = None,
    out_dtype: torch.dtype | None = None,
    loss: str | Function | Loss = "cross-entropy",
    progress: Progress = silent,
    **options: Value,
) -> dict[str, torch.Tensor]:
    """Merge models of one architecture into a state dict, in the frame of the first.

    ``method`` is a key of ``METHODS``, ``options`` are those that it has there. ``alignment`` moves
    every model after the first (one alignment for two models, else one for each of the others); None
    takes the models as they are. ``base`` is the model that all were fine-tuned from, for the methods
    that merge task vectors; it is not moved, for it is in the frame of the first model that came from it.

    ``weights`` [model] hold for all tensors; or they are patterns of parameter or group names with
    the weights for what fits, of which the first counts. By default they are equal parts of 1, or 1
    each where task vectors are added up. ``data`` are batches for the methods that measure, ``own_data``
    [model] those of each model where they differ; ``loss`` is what they are judged by: a name of
    ``graphmerge.losses.LOSSES``, or a function of outputs and targets.

    Arithmetic is float32 or better; floating tensors are returned in ``out_dtype`` (default: the dtype
    of the first model). Tied weights are one tensor. Buffers are no weights: floating ones are averaged,
    counters take the maximum, other integers must be equal.

    Raises UsageError for a wrong call (an unknown method or option, a missing base or data), InputError
    for models that do not fit, TraceError where a module has another graph.
    """
    return merge_with_report(
        graph, models, method, alignment, weights, base=base, data=data, own_data=own_data,
        out_dtype=out_dtype, loss=loss, progress=progress, **options,
    )[0]  # fmt: skip


def merge_with_report(
    graph: ModelGraph,
    models: Sequence[nn.Module | State],
    method: str = "average",
    alignment: Alignment | Sequence[Alignment] | None = None,
    weights: Weights | None = None,
    *,
    base: nn.Module | State | None = None,
    data: Data | None = None,
    own_data: Sequence[Data] | None = None,
    out_dtype: torch.dtype | None = None,
    loss: str | Function | Loss = "cross-entropy",
    progress: Progress = silent,
    **options: Value,
) -> tuple[dict[str, torch.Tensor], MergeReport]:
    """As ``merge``, and say how it was made."""
    values = require_call(method, len(models), options, weights, base, data, own_data, loss_of(loss).name)
    chosen = METHODS[method]
    for model in (*models, base):
        if isinstance(model, nn.Module):
            graph.require_same(model)
    names = _names(graph)
    states = [_reduced(graph, state_of(m), names, f"model {k}") for k, m in enumerate(models, 1)]
    order = list(state_of(models[0]))
    states = _aligned(states, alignment)
    start = {} if base is None else _reduced(graph, state_of(base), names, "the base")
    require_same_tensors([*states, *([start] if start else [])])
    job = Job(
        graph, tuple(states),
        resolve_weights(graph, names, weights, len(states), chosen.weights),
        _parameters(graph, states[0]), names, start, _data_of(len(states), data, own_data), out_dtype,
        progress, loss_of(loss),
    )  # fmt: skip
    with torch.no_grad():
        merged = chosen.run(job, **values)
    return {n: merged.state[names[n]] for n in order}, MergeReport(method, values, merged.notes)


def require_call(
    name: str,
    models: int,
    options: Mapping[str, object],
    weights: object = None,
    base: object = None,
    data: object = None,
    own_data: Sequence[Data] | None = None,
    loss: str = CROSS_ENTROPY.name,
) -> dict[str, Value]:
    """All options of a method; UsageError where the call is wrong or lacks what the method needs."""
    if name not in METHODS:
        known = ", ".join(METHODS)
        raise UsageError(f"unknown merge method {name!r}; there are: {known}{meant(name, METHODS)}")
    method = METHODS[name]
    values = read_options(name, method.options, options)
    if why := method.refuses(loss, values):
        raise UsageError(why)
    least, most = method.models
    if not least <= models <= most:
        wanted = f"{least}" if least == most else f"at least {least}"
        raise UsageError(f"{name} merges {wanted} models, got {models}")
    if weights is not None and method.weights == "none":
        raise UsageError(f"{name} takes no weights: it finds the shares itself")
    if method.base and base is None:
        raise UsageError(f"{name} needs base=... (--base): the model that all were fine-tuned from")
    if method.data == "own" and own_data is None:
        raise UsageError(
            f"{name} needs own_data=[...]: batches for each model; on the same data it is the plain average"
        )
    if method.data and data is None and own_data is None:
        raise UsageError(f"{name} needs data=... (--data): {NEEDED[method.data]}")
    if method.data == "held-out" and data is None:
        raise UsageError(f"{name} chooses on one set of held-out batches: give data=...")
    if own_data is not None and len(own_data) != models:
        raise UsageError(
            f"own_data (--own-data, once for each model): {models} models, {len(own_data)} given"
        )
    return values


def _names(graph: ModelGraph) -> dict[str, str]:
    """Every state dict name, and the one that stands for all names of the same tensor."""
    own = graph.model.state_dict()
    first = tied_names(own)
    return {n: graph.names.get(n, first[n][0]) for n in own}


def _reduced(graph: ModelGraph, state: State, names: Mapping[str, str], which: str) -> State:
    """A state dict with one name for each tensor; refused unless it is one of the traced model."""
    strange = [n for n in state if n not in names]
    if strange:
        raise UsageError(f"the traced model has no tensor {strange[0]!r}: was another architecture traced?")
    found: dict[str, torch.Tensor] = {}
    for alias, name in names.items():
        if name in state or alias in state:
            found.setdefault(name, state[name] if name in state else state[alias])
    missing = set(names.values()) - found.keys()
    if missing:
        raise InputError(f"{which} lacks tensor {min(missing)} of the traced {type(graph.model).__name__}")
    return found


def _aligned(states: list[State], alignment: Alignment | Sequence[Alignment] | None) -> list[State]:
    moves = [] if alignment is None else list(alignment) if isinstance(alignment, Sequence) else [alignment]
    if moves and len(moves) != len(states) - 1:
        raise UsageError(f"{len(states)} models need {len(states) - 1} alignments, got {len(moves)}")
    return [states[0], *(a.apply(s) for a, s in zip(moves, states[1:], strict=True))] if moves else states


def _parameters(graph: ModelGraph, state: State) -> frozenset[str]:
    """The tensors that are weights: floating, and no buffers."""
    buffers = {n for n, _ in graph.model.named_buffers(remove_duplicate=False)}
    return frozenset(n for n, t in state.items() if n not in buffers and t.is_floating_point())


def _data_of(models: int, data: Data | None, own_data: Sequence[Data] | None) -> tuple[Data, ...]:
    """For each model the batches that it is measured on."""
    if own_data is not None:
        return tuple(own_data)
    return () if data is None else (data,) * models
