"""What the tests of matching share."""

from __future__ import annotations

import pytest
import torch
from tiny import mlp

import graphmerge as gm


@pytest.fixture(scope="module")
def graph() -> gm.ModelGraph:
    """The small network, traced."""
    return gm.trace(mlp(0), (torch.randn(2, 4),))
