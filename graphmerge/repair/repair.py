"""Repair by any method of the table, or by several in a row."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from graphmerge.errors import UsageError, meant
from graphmerge.losses import CROSS_ENTROPY, Function, Loss, loss_of
from graphmerge.options import Value, read_options
from graphmerge.progress import Progress, silent
from graphmerge.repair.methods import METHODS
from graphmerge.repair.task import Task
from graphmerge.symmetry import ModelGraph
from graphmerge.trace.run import State, state_of


@dataclass(frozen=True)
class RepairReport:
    """The methods in their order, with all options of each, and what each has to tell."""

    method: str
    options: Mapping[str, Mapping[str, Value]]
    notes: Mapping[str, Any]


def available(
    graph: ModelGraph, which: str = "all", loss: str = CROSS_ENTROPY.name, **options: object
) -> tuple[str, ...]:
    """Which repairs apply to this network, and where ``loss`` is what counts, in the order of the table.

    ``which`` is "all" for every repair of statistics and temperature, "auto" for those worth trying
    unasked, "none", or the methods themselves, such as ``repair+temperature``. ``options`` are taken by
    each method that has them. Raises UsageError for a method that there is not or that does not apply.
    """
    if which not in CHOICES:
        settings(graph, which, options)
        return (which,)
    wanted = [n for n, m in METHODS.items() if m.tried in CHOICES[which]]
    return tuple(n for n in wanted if fits(n, loss) and not _lacks(graph, n, options))


def fits(name: str, loss: str) -> bool:
    """Whether a method is of use where a loss of that name is what counts."""
    return loss == CROSS_ENTROPY.name or not METHODS[name].classes


CHOICES: Mapping[str, tuple[str, ...]] = {"auto": ("auto",), "all": ("auto", "all"), "none": ()}
"""Words for several methods: by when each of the table is tried."""


def repair(
    graph: ModelGraph,
    merged: State,
    endpoints: Sequence[nn.Module | State],
    data: Iterable[Any],
    weights: Sequence[float] | None = None,
    method: str = "repair",
    *,
    loss: str | Function | Loss = "cross-entropy",
    progress: Progress = silent,
    **options: object,
) -> dict[str, torch.Tensor]:
    """``merged`` repaired by a method of the table, or by several in a row, such as ``repair+temperature``.

    ``endpoints`` are state dicts in one frame (the others already aligned), ``weights`` their shares
    [model], equal by default. Statistics are per unit over batch, space and time, summed up in float64.
    At an endpoint (all weight on one model) nothing changes but for rounding, unless the BatchNorm
    statistics of that model are not those of the data, and in fine-tuning. Units that never vary are
    left alone. ``loss`` is what fine-tuning lowers, a name or a function of outputs and targets.

    Raises UsageError for an unknown method or option, or a method that does not apply, InputError where
    the data holds fewer than 32 samples, or gives NaN, or lacks the targets that a method needs.
    """
    task = Task(graph, tuple(state_of(e) for e in endpoints), data, progress, loss_of(loss))
    return repair_with_report(task, merged, weights, method, **options)[0]


def repair_with_report(
    task: Task,
    merged: State,
    weights: Sequence[float] | None = None,
    method: str = "repair",
    **options: object,
) -> tuple[dict[str, torch.Tensor], RepairReport]:
    """``repair`` with what there is to tell about it; a task keeps what was measured on its endpoints."""
    models = len(task.endpoints)
    shares = [1 / models] * models if weights is None else list(weights)
    if len(shares) != models:
        raise UsageError(f"{models} endpoints but {len(shares)} weights: give one for each endpoint")
    values = settings(task.graph, method, options)
    require_fitting(method, task.loss.name)
    state, notes = dict(merged), {}
    with torch.no_grad():
        for name, chosen in values.items():
            done = METHODS[name].run(task, state, shares, **chosen)
            state, notes[name] = done.state, dict(done.notes)
    return state, RepairReport(method, values, notes)


def settings(graph: ModelGraph, method: str, given: Mapping[str, object]) -> dict[str, dict[str, Value]]:
    """The methods of ``a+b`` with all options of each; an option counts for every method that has it.

    UsageError for a method that there is not or that does not apply, or an option that none of them has.
    """
    names = _known(method)
    require_options(names, given)
    for name in names:
        if lacks := _lacks(graph, name, given):
            raise UsageError(f"{name} does not apply to {type(graph.model).__name__}: {lacks}")
    return {name: _values(name, given) for name in names}


def _lacks(graph: ModelGraph, name: str, given: Mapping[str, object]) -> str:
    """What the network lacks for a method; nothing where it applies."""
    return METHODS[name].lacks(graph.program, _values(name, given))


def _values(name: str, given: Mapping[str, object]) -> dict[str, Value]:
    """All options of a method; of those given the ones that it has."""
    own = METHODS[name].options
    return read_options(name, own, {n: v for n, v in given.items() if n in own})


def require_applies(graph: ModelGraph, method: str) -> None:
    """UsageError for a method that there is not or that does not apply to this network."""
    settings(graph, method, {})


def require_options(names: Iterable[str], given: Mapping[str, object]) -> None:
    """UsageError for an option that none of the methods has, or a value out of bounds."""
    known = {n: o for name in names for n, o in METHODS[name].options.items()}
    read_options(" and ".join(names), known, given)


def require_fitting(which: str, loss: str) -> None:
    """UsageError for a method, named in ``which``, that is of no use for a loss of that name."""
    for name in () if which in CHOICES else _known(which):
        if not fits(name, loss):
            raise UsageError(
                f"repair by {name} takes logits and class numbers: {CROSS_ENTROPY.name}, not {loss}"
            )


def require_repair(which: str, given: Mapping[str, object], finetune: bool = False) -> None:
    """UsageError for a call that is wrong for any network."""
    names = [n for n, m in METHODS.items() if m.tried in CHOICES.get(which, ())]
    names = names if which in CHOICES else _known(which)
    require_options([*names, *(["finetune"] if finetune else [])], given)


def has_option(method: str, option: str) -> bool:
    """One of the methods of ``a+b`` has that option."""
    return any(option in METHODS[n].options for n in _known(method))


def _known(method: str) -> list[str]:
    """The methods of ``a+b``; UsageError for one that there is not."""
    names = method.split("+")
    unknown = [n for n in names if n not in METHODS]
    if unknown:
        there = f"{', '.join(METHODS)}, joined by +; or {', '.join(CHOICES)}"
        raise UsageError(f"unknown repair {unknown[0]!r}; there are: {there}{meant(unknown[0], METHODS)}")
    return names
