"""Whether the data fit the model, found out before anything long begins."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
from torch import nn
from torch.utils import _pytree as pytree

from graphmerge.errors import InputError, out_of_memory, refusal
from graphmerge.symmetry import ModelGraph
from graphmerge.trace.run import State, call, device_of, inputs_of, to_device


def check_data(graph: ModelGraph, state: State, data: Iterable[Any]) -> None:
    """``dry_run`` on the model of a graph."""
    dry_run(graph.model, state, data, graph.program.example)


def dry_run(model: nn.Module, state: State, data: Iterable[Any], example: Any = None) -> Any:
    """What the model gives for the first batch.

    ``example`` are inputs that it takes, to be told where it does not run. Raises InputError where there is
    no batch, the model does not run on it, or gives NaN.
    """
    first = next(inputs_of(data), None)
    if first is None:
        raise InputError("the data holds no batch: give a list or a DataLoader of batches (inputs, targets)")
    args, kwargs = to_device(first, device_of(state))
    try:
        outputs = call(model, state, args, kwargs)
    except (RuntimeError, TypeError, ValueError, IndexError, KeyError, AttributeError) as error:
        if out_of_memory(error):
            raise
        raise InputError(
            refusal(
                "the model does not run on the data.",
                expected=f"inputs like those it was traced with: {_shapes(example)}"
                if example
                else "its inputs",
                seen=f"in the first batch {_shapes(first)}",
                means=str(error).split("\n")[0],
                fix=_advice(first, example),
            )
        ) from error
    if any(bool(t.isnan().any()) for t in pytree.tree_leaves(outputs) if _floating(t)):
        raise InputError(
            "the model gives NaN on the first batch of the data: do the inputs hold NaN or infinity?"
        )
    return outputs


def _advice(inputs: Any, example: Any) -> str:
    """What to change in inputs on which the model does not run."""
    seen, wanted = ([t.dtype for t in pytree.tree_leaves(x) if _tensor(t)] for x in (inputs, example))
    if len(seen) == len(wanted) and seen != wanted:
        names = ", ".join(str(dtype).removeprefix("torch.") for dtype in wanted)
        return f"convert the inputs of the data to {names}, as the model takes them"
    return "batches (inputs, targets); for several inputs, inputs is a tuple of them, or a dict"


def _shapes(inputs: Any) -> str:
    return ", ".join(
        f"{tuple(t.shape)} {str(t.dtype).removeprefix('torch.')}" if isinstance(t, torch.Tensor) else repr(t)
        for t in pytree.tree_leaves(inputs)
    )


def _tensor(t: object) -> bool:
    return isinstance(t, torch.Tensor)


def _floating(t: object) -> bool:
    return isinstance(t, torch.Tensor) and t.is_floating_point() and not t.is_meta
