"""The gate that every comparison of aligned models stands on: alignment changes no output."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any

import torch
from torch import nn
from torch.utils import _pytree as pytree

from graphmerge.errors import GateError, InputError, refusal
from graphmerge.symmetry import ModelGraph
from graphmerge.trace.run import State, call, device_of, inputs_of, state_of, to_device


def require_unmoved(
    graph: ModelGraph, before: nn.Module | State, after: nn.Module | State, data: Iterable[Any]
) -> float:
    """The largest change of an output on ``data`` that alignment made, relative to the largest output.

    Raises GateError where it is more than rounding: 3 times the square root of the dtype's epsilon, which is
    1e-3 for float32, and InputError where there is no output to compare.
    """
    first, last = state_of(before), state_of(after)
    largest, tolerance = torch.zeros(2, dtype=torch.float64), 0.0  # change, size; NaN stays NaN
    seen = False
    for inputs in inputs_of(data):
        args, kwargs = to_device(inputs, device_of(first))
        outputs = [pytree.tree_leaves(call(graph.model, s, args, kwargs)) for s in (first, last)]
        for x, y in zip(*outputs, strict=True):
            if isinstance(x, torch.Tensor) and x.is_floating_point():
                seen = True
                found = torch.stack([(x.double() - y.double()).abs().max(), x.double().abs().max()])
                largest = torch.maximum(largest.to(found), found)
                tolerance = max(tolerance, 3 * torch.finfo(x.dtype).eps ** 0.5)
    if not seen:
        raise InputError(
            "the data holds no batch, or the model returns no floating tensor: nothing to compare"
        )
    change, size = largest.tolist()
    relative = change / size if size else change
    if math.isnan(relative) or relative > tolerance:
        raise GateError(
            refusal(
                "An aligned model is not the model that it was.",
                expected=f"outputs that change by rounding only, at most {tolerance:.0e} of the largest",
                seen=f"a change of {relative:.1e}",
                means="what moved is no symmetry of the network: no merge of these models can be trusted",
                fix="align with the graph of this very network, and verify the graph (graphmerge.verify)",
            )
        )
    return float(relative)
