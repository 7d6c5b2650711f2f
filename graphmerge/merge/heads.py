"""Heads for different classes: which rows the merged model's head has."""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Literal

import torch

from graphmerge.errors import InputError, UsageError, refusal
from graphmerge.merge.tensors import State
from graphmerge.precision import weighted_sum

Keep = Literal["a", "b", "both", "union"]
Labels = Sequence[Hashable]


@dataclass(frozen=True)
class Head:
    """The tensors of a head, and the label of each of their rows."""

    tensors: dict[str, torch.Tensor]
    labels: tuple[Hashable, ...]


def merge_heads(
    a: State,
    b: State,
    head: str,
    keep: Keep,
    labels: tuple[Labels, Labels],
    weights: tuple[float, float] = (0.5, 0.5),
) -> Head:
    """The head of two models that tell different classes, from state dicts in one frame.

    ``head`` is a pattern of the names of its tensors, such as ``fc.*``, all with a row per class
    (dimension 0); ``labels`` are the classes that the rows of a and of b stand for. ``keep`` is "a" or
    "b" (that head as it is), "both" (the rows of a, then all of b, as two heads side by side) or
    "union" (the rows of a, those that b has too being averaged by ``weights``, then those that only b
    has). All other tensors are merged by ``merge``, b being given the head of a:

    ``{**merge(graph, [a, {**b, **head_of_a}]), **merge_heads(a, b, ...).tensors}`` fits a model that
    has ``len(labels)`` classes.

    Raises UsageError for a pattern that fits nothing or another ``keep``, InputError where the labels do
    not number the rows or repeat, or where the heads differ in more than their rows.
    """
    if keep not in ("a", "b", "both", "union"):
        raise UsageError(f"keep={keep!r}: expected a, b, both or union")
    names = [n for n in a if fnmatchcase(n, head)]
    if not names or names != [n for n in b if fnmatchcase(n, head)]:
        raise UsageError(f"head {head!r}: expected a pattern of tensors that both models have, such as fc.*")
    for name in names:
        _require_rows(name, a[name], b[name], labels)
    first, last = (tuple(x) for x in labels)
    shared = [c for c in first if c in set(last)] if keep == "union" else []
    rows_b = [k for k, c in enumerate(last) if c not in set(shared)]
    if keep in ("a", "b"):
        state, found = (a, first) if keep == "a" else (b, last)
        return Head({n: state[n].clone() for n in names}, found)
    at = [first.index(c) for c in shared], [last.index(c) for c in shared]
    tensors = {}
    for name in names:
        mine = a[name].clone()
        if shared:
            mine[at[0]] = weighted_sum([a[name][at[0]], b[name][at[1]]], weights).to(mine.dtype)
        tensors[name] = torch.cat([mine, b[name][rows_b].to(mine.dtype)])
    return Head(tensors, (*first, *(last[k] for k in rows_b)))


def _require_rows(name: str, a: torch.Tensor, b: torch.Tensor, labels: tuple[Labels, Labels]) -> None:
    """Refuse tensors that are no heads with these labels on one trunk."""
    for t, own, which in ((a, labels[0], "first"), (b, labels[1], "second")):
        if t.ndim == 0 or len(t) != len(own) or len(set(own)) != len(own):
            raise InputError(
                refusal(
                    f"tensor {name} of the {which} model is no head for its labels.",
                    expected=f"a row for each of {len(own)} different labels",
                    seen=f"shape {tuple(t.shape)}, {len(set(own))} different labels",
                    means="which row stands for which class cannot be told",
                    fix="name the tensors of the last layer only, and give a label for each of its rows",
                )
            )
    if a.shape[1:] != b.shape[1:] or not a.is_floating_point():
        raise InputError(
            refusal(
                f"the heads of the two models differ in more than their rows at {name}.",
                expected="floating tensors of equal shapes but for dimension 0",
                seen=f"{tuple(a.shape)} {a.dtype} and {tuple(b.shape)} {b.dtype}",
                means="they read features of different networks, which have no merged trunk",
                fix="merge models that differ only in the number of their classes",
            )
        )
