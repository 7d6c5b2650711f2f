"""Weights from files into modules."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from graphmerge.sources.weights import put_weights


class Versioned(nn.Linear):
    """A layer that asks for the version that its weights were saved by, as MNASNet does."""

    _version = 2

    def _load_from_state_dict(self, state: Any, prefix: str, metadata: Any, *more: Any) -> None:
        if metadata.get("version") not in (1, 2):
            raise ValueError(f"version should be set to 1 or 2 instead of {metadata.get('version')}")
        super()._load_from_state_dict(state, prefix, metadata, *more)


def test_layers_that_ask_for_their_version_take_plain_weights() -> None:
    model = nn.Sequential(Versioned(2, 3), nn.ReLU())
    state = {"0.weight": torch.ones(3, 2), "0.bias": torch.zeros(3)}
    put_weights(model, state)
    assert all(torch.equal(model.state_dict()[n], t) for n, t in state.items())
