"""Weighted average of state dicts that already share one frame."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch

from graphmerge.errors import InputError, UsageError


def average(
    states: Sequence[Mapping[str, torch.Tensor]], weights: Sequence[float] | None = None
) -> dict[str, torch.Tensor]:
    """The weighted sum of state dicts, ``weights`` [model] being used as they are (1/n each by default).

    Floating tensors are summed in float32 (float64 where they are stored so) and returned in the
    dtype of the first. Integer and boolean tensors must be equal in all, counters
    (``num_batches_tracked``) take the maximum. Raises InputError where keys or shapes differ, or
    where another integer tensor does; UsageError where the number of weights is wrong.
    """
    weights = [1 / len(states)] * len(states) if weights is None else list(weights)
    if len(weights) != len(states):
        raise UsageError(f"{len(states)} models but {len(weights)} weights: give one weight per model")
    _check_same_keys(states)
    return {name: _average_one(name, [s[name] for s in states], weights) for name in states[0]}


def _check_same_keys(states: Sequence[Mapping[str, torch.Tensor]]) -> None:
    for k, s in enumerate(states[1:], 2):
        odd = sorted(states[0].keys() ^ s.keys())
        if odd:
            raise InputError(
                f"model {k} and model 1 do not have the same tensors; only one has: {', '.join(odd[:5])}"
            )


def _average_one(name: str, tensors: Sequence[torch.Tensor], weights: Sequence[float]) -> torch.Tensor:
    first = tensors[0]
    if any(t.shape != first.shape for t in tensors):
        raise InputError(f"tensor {name} has shapes {', '.join(str(tuple(t.shape)) for t in tensors)}")
    if first.is_complex() or first.is_floating_point():
        wide = torch.promote_types(first.dtype, torch.float32)
        total = torch.zeros_like(first, dtype=wide)
        for t, w in zip(tensors, weights, strict=True):
            if w:
                total += t.to(wide) * w
        return total.to(first.dtype)
    if name.rpartition(".")[2] == "num_batches_tracked":
        return torch.stack(list(tensors)).max(0).values
    if any(not torch.equal(first, t.to(first.device)) for t in tensors):
        raise InputError(
            f"tensor {name} ({first.dtype}) differs between the models and integers have no average;"
            " expected equal values: were the models built with the same configuration?"
        )
    return first.clone()
