"""Biases of zeros for affine operators that have none, so that repair can shift what they return."""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import nn

from graphmerge.errors import TraceError, listing
from graphmerge.repair.sites import sites
from graphmerge.trace.export import export_program
from graphmerge.trace.run import State

_CARRIERS = (
    nn.Linear,
    nn.Conv1d,
    nn.Conv2d,
    nn.Conv3d,
    nn.ConvTranspose1d,
    nn.ConvTranspose2d,
    nn.ConvTranspose3d,
)


def add_biases(
    model: nn.Module, states: Sequence[State], args: Sequence[Any], kwargs: Mapping[str, Any] | None = None
) -> tuple[nn.Module, list[dict[str, torch.Tensor]]]:
    """A copy of ``model``, and state dicts for it, in which every affine site has a bias, at first zero.

    The function stays the same, and the class: torch's linear and convolution modules carry a bias or
    none. But the new state dicts load only into such a copy, no longer into the model as it was built.
    ``args`` and ``kwargs`` are example inputs for tracing. Raises TraceError where the weight is no
    parameter of such a module, or its forward pass would not read a bias.
    """
    found, _ = sites(export_program(model, args, kwargs))
    lacking = [s.weight for s in found if s.bias is None]
    larger = copy.deepcopy(model)
    added = {}
    for weight in lacking:
        path, _, name = weight.rpartition(".")
        module = larger.get_submodule(path)
        if not isinstance(module, _CARRIERS) or name != "weight" or "bias" not in module._parameters:
            raise TraceError(f"{weight} of {type(module).__name__}: its module has no place for a bias")
        units = module.weight.shape[1 if "Transpose" in type(module).__name__ else 0]
        module.bias = nn.Parameter(torch.zeros(units, dtype=module.weight.dtype, device=module.weight.device))
        added[f"{path}.bias" if path else "bias"] = module.bias.detach()
    after, _ = sites(export_program(larger, args, kwargs))
    unread = sorted(set(lacking) & {s.weight for s in after if s.bias is None})
    if unread:
        raise TraceError(f"a bias beside {listing(unread)} would not be read by the forward pass")
    return larger, [{**s, **{n: t.clone() for n, t in added.items()}} for s in states]
