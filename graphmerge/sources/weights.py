"""The weights that a user names, checked against their model."""

from __future__ import annotations

from collections import Counter, OrderedDict
from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import nn

from graphmerge.files import check_against_model, check_finite, load_weights_of
from graphmerge.progress import Progress, silent
from graphmerge.sources.converted import as_in_module, reference


@dataclass(frozen=True)
class Weights:
    """A state dict in the dtypes and on the device of its model; names and dtypes as its file has them.

    Names that the model ties may be fewer in the file than in the state. Where the file has other names
    than the module (see ``as_in_module``) they are the module's.
    """

    state: dict[str, torch.Tensor]
    stored: Mapping[str, torch.dtype]


def load_weights(
    model: nn.Module, path: str, say: Progress = silent, allow_nonfinite: bool = False
) -> Weights:
    """A checkpoint checked against the model; ``say`` is told of ties filled in and of dtypes changed."""
    own = model.state_dict()
    stored_as = load_weights_of(path)
    found = as_in_module(model, stored_as)
    if found is stored_as:
        check_against_model(found, reference(model, found), path)  # refused by the names of the file
    checked = check_against_model(found, own, path)
    if not allow_nonfinite:
        check_finite(checked.state, path)
    stored = {name: t.dtype for name, t in checked.state.items() if name in found}
    for note in checked.notes:
        say(f"{path}: {note}")
    if changed := Counter(f"{d} as {own[n].dtype}" for n, d in stored.items() if d != own[n].dtype):
        say(f"{path}: computed " + ", ".join(f"{n} tensors of {x}" for x, n in changed.items()))
    return Weights({n: t.to(own[n]) for n, t in checked.state.items()}, stored)


def put_weights(module: nn.Module, state: Mapping[str, torch.Tensor]) -> None:
    """Load a plain state dict, which has lost the versions of layers that torch keeps beside one.

    Some layers (MNASNet's) do not load without: they are told the versions that they have.
    """
    whole = OrderedDict(state)
    whole._metadata = module.state_dict()._metadata  # type: ignore[attr-defined]
    module.load_state_dict(whole)
