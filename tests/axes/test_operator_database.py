"""Rules against PyTorch's own database of operators and sample inputs; runs when GRAPHMERGE_SLOW=1.

Each sample is run and the aten calls that it makes are caught; every distinct call of an operator with
a rule is put to the same check as the table of cases. A false claim fails. A missed one fails unless
its operator is listed with a reason.
"""

from __future__ import annotations

import importlib
import itertools
import os
from collections.abc import Iterator
from functools import cache
from typing import Any

import pytest
import torch
from case import PLACES, SPACE
from cases import WITHOUT_CASE
from torch._ops import OpOverload
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves, tree_map

import graphmerge as gm
from graphmerge.axes import RULES

SLOW = os.environ.get("GRAPHMERGE_SLOW") == "1"
DATABASE = "torch.testing._internal.common_methods_invocations"
SAMPLES = 12
"""Samples of one operator, the first ones."""
LARGEST = 400
"""Elements of a tensor, above which a call is passed over."""

pytestmark = pytest.mark.skipif(not SLOW, reason="runs when GRAPHMERGE_SLOW=1")


Call = tuple[OpOverload, tuple[Any, ...], dict[str, Any]]


class Caught(TorchDispatchMode):
    """The calls that run under it."""

    def __init__(self) -> None:
        super().__init__()
        self.calls: list[Call] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        copies = tree_map(
            lambda x: x.detach().clone() if isinstance(x, torch.Tensor) else x, (args, kwargs or {})
        )
        self.calls.append((func, *copies))
        return func(*args, **(kwargs or {}))


@cache
def database() -> list[Any]:
    try:
        return list(importlib.import_module(DATABASE).op_db)
    except ImportError as error:
        pytest.skip(f"the database cannot be imported: {error}", allow_module_level=True)


def calls(info: Any) -> Iterator[Call]:
    """Distinct calls of operators with rules that the first samples of an operator make."""
    if torch.float64 not in info.dtypes:
        return
    seen = set()
    for sample in itertools.islice(info.sample_inputs("cpu", torch.float64), SAMPLES):
        with Caught() as caught, torch.no_grad():
            info.op(sample.input, *sample.args, **sample.kwargs)
        for op, args, kwargs in caught.calls:
            leaves = tree_leaves((args, kwargs))
            key = str([op, *((x.shape, x.dtype) if isinstance(x, torch.Tensor) else x for x in leaves)])
            if key not in seen and _fitting(op, leaves):
                seen.add(key)
                yield op, args, kwargs


def name_of(op: OpOverload) -> str:
    return f"{op.namespace}.{op._schema.name.split('::')[1]}"


def _fitting(op: OpOverload, leaves: list[Any]) -> bool:
    """Whether the call has a rule, returns tensors, and is neither random nor large."""
    tensors = [x for x in leaves if isinstance(x, torch.Tensor)]
    returns = [str(r.type) for r in op._schema.returns]
    return (
        bool(tensors)
        and all(t.numel() <= LARGEST for t in tensors)
        and not op._schema.is_mutable
        and name_of(op) not in WITHOUT_CASE
        and any("Tensor" in r for r in returns)
        and RULES.find(name_of(op), torch.Tag.pointwise in op.tags) is not None
    )


def generic(x: Any) -> Any:
    """Floats drawn anew: in samples with equal values everything may change places."""
    if isinstance(x, torch.Tensor) and x.is_floating_point():
        return 0.1 + 0.8 * torch.rand(x.shape, generator=torch.Generator().manual_seed(0), dtype=x.dtype)
    return x


MASK = "a mask of these values is not uniform: which positions it tells apart is not looked at in it"
TRIANGLE = "positions on one side of a diagonal, and some of them are alike"
FREQUENCIES = "frequencies: a few of them are alike on real values"
DIAGONAL = "rows and columns of a square matrix could move together; they are kept"
PARTS = "real and imaginary parts"
STACKED = "a part of size 1 is told apart from the others in every row of a stack"

ACCEPTED: dict[str, str] = {
    **dict.fromkeys(
        (
            "_adaptive_avg_pool2d", "_adaptive_avg_pool3d", "_upsample_bicubic2d_aa",
            "_upsample_bilinear2d_aa",
            "_upsample_nearest_exact2d", "adaptive_max_pool2d", "avg_pool2d", "avg_pool3d", "grid_sampler_2d",
            "im2col", "max_pool2d_with_indices", "max_pool3d_with_indices", "pixel_shuffle",
            "pixel_unshuffle",
            "reflection_pad1d", "reflection_pad2d", "replication_pad1d", "replication_pad2d",
            "replication_pad3d",
            "upsample_bicubic2d", "upsample_bilinear2d", "upsample_linear1d", "upsample_nearest1d",
            "upsample_nearest2d", "upsample_nearest3d", "upsample_trilinear3d",
        ),
        SPACE,
    ),
    **dict.fromkeys(
        (
            "argmax", "argmin", "embedding", "gather", "index", "index_add", "index_copy", "index_put",
            "index_select",
            "nonzero", "scatter", "scatter_add", "scatter_reduce",
        ),
        PLACES,
    ),
    **dict.fromkeys(
        ("masked_fill", "masked_scatter", "masked_select", "native_dropout_backward", "where"), MASK
    ),
    **dict.fromkeys(("tril", "triu"), TRIANGLE),
    **dict.fromkeys(("_fft_c2c", "_fft_c2r", "_fft_r2c"), FREQUENCIES),
    "cat": STACKED,
    "diagonal": DIAGONAL,
    "view_as_complex": PARTS,
}  # fmt: skip
"""Operators of which a claim may be missed, and why."""


def empty(op: OpOverload, args: Any, kwargs: Any) -> bool:
    """Whether a tensor of the call has no elements: then anything may change places."""
    return any(
        isinstance(x, torch.Tensor) and not x.numel()
        for x in tree_leaves((args, kwargs, op(*args, **kwargs)))
    )


@pytest.mark.parametrize(
    "name", sorted({info.name for info in database() if "jiterator" not in info.name}) if SLOW else ()
)
def test_the_rules_hold_on_the_samples(name: str) -> None:
    for info in (x for x in database() if x.name == name):
        for op, args, kwargs in calls(info):
            fresh = tree_map(generic, (args, kwargs))
            complaints = gm.check_rule(op, *fresh)
            if op._schema.name.removeprefix("aten::") in ACCEPTED or empty(op, *fresh):
                complaints = [c for c in complaints if not c.startswith("missed")]
            assert complaints == [], f"{op}{fresh}"
