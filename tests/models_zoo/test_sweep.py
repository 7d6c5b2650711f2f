"""The part of the coverage sweep that every run of the tests repeats; ``tools/coverage.py`` does the rest.

Beside the reference architectures (``tests/symmetry/test_architectures.py``) it has every layer, every
kind of block, and networks of the libraries that use operators of their own.
"""

from __future__ import annotations

import importlib.util
import json
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest
import torch

import graphmerge as gm
from models_zoo.sweep import FAMILIES, Architecture, fast
from models_zoo.sweep.layers import REFUSED

TABLE = Path(__file__).parents[2] / "COVERAGE.json"


@cache
def _family(name: str) -> dict[str, Architecture]:
    return {a.name: a for a in FAMILIES[name]()}


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    """Tiny tensors: more than one thread only costs time."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.mark.parametrize("name", fast())
def test_every_group_holds_and_is_observed(name: str) -> None:
    library = name.partition("/")[0]
    if library in ("timm", "transformers") and importlib.util.find_spec(library) is None:
        pytest.skip(f"{library} is not installed")
    architecture = _family(library)[name]
    torch.manual_seed(0)
    model = architecture.build().eval()
    args, kwargs = architecture.inputs()
    if architecture.notes == REFUSED:
        with pytest.raises(gm.TraceError, match="parameters that are real"):
            gm.trace(model, args, kwargs)
        return
    graph = gm.trace(model, args, kwargs)
    result = gm.verify(graph, model)
    assert result.passed, f"{result.failed}: {result.max_error:.1e}, tolerance {result.tolerance:.1e}"
    assert result.unobservable == ()
    assert all(f.reason for f in graph.fixed)


def test_nothing_in_the_table_of_the_whole_sweep_has_failed() -> None:
    rows = json.loads(TABLE.read_text())
    assert len(rows) > 600
    assert [r["name"] for r in rows if r["outcome"] == "failed"] == []
