"""Weights of transformers whose names in files are not those of its modules.

Since version 5 transformers renames, fuses and splits tensors as it reads and writes: the experts of a
Mixtral are one tensor in the module, and three for each expert in its file.
"""

from __future__ import annotations

import importlib
import importlib.util
import sys
from collections.abc import Mapping
from functools import reduce
from typing import Any

import torch
from torch import Tensor, nn

from graphmerge.trace.memory import ties

State = Mapping[str, Tensor]

CONVERSIONS = "transformers.core_model_loading"
"""Where transformers converts names, since version 5."""

CANNOT = (RuntimeError, ValueError, TypeError, LookupError, AttributeError, OSError)
"""What transformers raises where names or shapes are not what it expects."""


def as_in_module(model: nn.Module, found: State) -> State:
    """``found``, as a file of transformers has it, by the names of ``model``.

    It is given back as it is where the names fit already, the module is not of transformers, or anything
    would be missing, left over or lost. ``model`` remembers how, for ``as_in_file``. Tensors are of the
    widest dtype in the file.
    """
    if not _of_transformers(model) or found.keys() <= model.state_dict().keys():
        return found
    kind: Any = type(model)
    try:
        loaded, left = kind.from_pretrained(
            None, config=model.config, state_dict=dict(found), dtype=_widest(found), output_loading_info=True
        )
    except CANNOT:
        return found
    if any(left.values()):
        return found
    model._weight_conversions = loaded._weight_conversions
    state: State = loaded.state_dict()
    return {name: state[name] for name, twins in ties(state).items() if name == twins[0]}


def as_in_file(model: nn.Module, state: State) -> State:
    """``state`` of ``model`` by the names that its files have; as it is where those were the module's."""
    if getattr(model, "_weight_conversions", None) is None:
        return state
    return {n: t.contiguous() for n, t in _reverted(model, state).items()}


def reference(model: nn.Module, names: State) -> State:
    """The state dict of ``model`` (on any device), by the names in a file of it that has ``names``."""
    own: State = model.state_dict()
    if not _of_transformers(model) or names.keys() <= own.keys():
        return own
    stored = _reverted(model, own)
    return stored if names.keys() <= stored.keys() else own


def _of_transformers(model: nn.Module) -> bool:
    library = sys.modules.get("transformers")
    return (
        library is not None
        and isinstance(model, library.PreTrainedModel)
        and importlib.util.find_spec(CONVERSIONS) is not None
    )


def _reverted(model: nn.Module, state: State) -> State:
    reverted: State = importlib.import_module(CONVERSIONS).revert_weight_conversion(model, dict(state))
    return reverted


def _widest(state: State) -> torch.dtype:
    """The float dtype that holds all values of the others."""
    return reduce(torch.promote_types, {t.dtype for t in state.values() if t.is_floating_point()})
