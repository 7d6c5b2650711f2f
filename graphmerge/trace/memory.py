"""Which tensors of a model lie in one memory: storages tell, on the meta device as well."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping
from typing import Any

import torch
from torch import nn


def ties(state: Mapping[str, Any]) -> dict[str, tuple[str, ...]]:
    """For each name all names of the same memory in the same layout; what is no tensor is left out."""
    groups: dict[object, list[str]] = {}
    for name, t in _tensors(state):
        groups.setdefault(_layout(t), []).append(name)
    return {n: tuple(names) for names in groups.values() for n in names}


def unsaved(model: nn.Module, state: Mapping[str, Any]) -> set[str]:
    """Parameters and buffers that the state dict of their model does not hold as they are.

    A hook renames or rearranges them, or leaves them out: what is done to the state dict misses them.
    """
    own = (*model.named_parameters(remove_duplicate=False), *model.named_buffers(remove_duplicate=False))
    saved = {n: _layout(t) for n, t in _tensors(state)}
    return {n for n, t in own if saved.get(n) != _layout(t)}


def overlaps(state: Mapping[str, Any], constants: Mapping[str, torch.Tensor]) -> dict[str, str]:
    """For each name in ``state`` another tensor of which the memory meets its own in another layout.

    To move the units of either would rearrange the other. A constant of the model (a tensor in a list,
    a view kept as an attribute, a buffer that is not saved) is never moved, in whatever layout.
    """
    tied = ties(state)
    found: dict[str, str] = {}
    places = defaultdict(list)
    for name, t in (*_tensors(state), *_tensors(constants)):
        start = t.storage_offset() * t.itemsize
        extent = (1 + sum((n - 1) * s for n, s in zip(t.shape, t.stride(), strict=True))) * t.itemsize
        if t.numel():
            places[t.untyped_storage()._cdata].append((start, start + extent, name))
    for same in map(sorted, places.values()):
        for k, (_, end, a) in enumerate(same):
            for first, _, b in same[k + 1 :]:
                if first >= end:
                    break
                if b not in tied.get(a, ()):
                    found |= {n: other for n, other in ((a, b), (b, a)) if n in tied}
    return found


def _layout(t: torch.Tensor) -> object:
    return t.untyped_storage()._cdata, t.storage_offset(), t.shape, t.stride(), t.dtype


def _tensors(named: Mapping[str, Any]) -> Iterator[tuple[str, torch.Tensor]]:
    return ((n, t) for n, t in named.items() if isinstance(t, torch.Tensor))
