"""Data that do not fit are refused before anything long begins, with what was seen."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from tiny import mlp

import graphmerge as gm
from graphmerge.errors import InputError
from graphmerge.match import METHODS

NEEDY = [name for name, method in METHODS.items() if method.needs_data]
CLASSES = torch.arange(8) % 3


BAD: dict[str, tuple[list[Any], str]] = {
    "no batch": ([], "no batch"),
    "another width": ([(torch.randn(8, 5), CLASSES)] * 2, r"\(2, 4\) float32[^$]*\(8, 5\) float32"),
    "another dtype": ([(torch.randn(8, 4).double(), CLASSES)] * 2, "float64"),
    "too many inputs": ([((torch.randn(8, 4), torch.randn(8, 4)), CLASSES)] * 2, "does not run"),
    "no tensor": ([(5, CLASSES)] * 2, "does not run"),
    "NaN": ([(torch.full((8, 4), float("nan")), CLASSES)] * 2, "gives NaN"),
}


@pytest.mark.parametrize("method", NEEDY)
@pytest.mark.parametrize("name", BAD)
def test_inputs_that_do_not_fit(name: str, method: str, graph: gm.ModelGraph) -> None:
    data, message = BAD[name]
    with pytest.raises(InputError, match=message):
        gm.match(graph, graph.model, mlp(1).state_dict(), method, data)


@pytest.mark.parametrize("method", ["straight-through", "sinkhorn", "learned", "annealing", "dual"])
@pytest.mark.parametrize(
    ("targets", "message"),
    [
        (torch.full((8,), 7), "numbers from 0 to 2"),
        (CLASSES[:5], "8 predictions for 5 targets"),
        (["a"] * 8, "targets a tensor"),
    ],
)
def test_targets_that_do_not_fit(targets: Any, message: str, method: str, graph: gm.ModelGraph) -> None:
    with pytest.raises(InputError, match=message):
        gm.match(graph, graph.model, mlp(1).state_dict(), method, [(torch.randn(8, 4), targets)] * 2)


def test_nan_in_a_later_batch_is_found(graph: gm.ModelGraph) -> None:
    later = [(torch.randn(8, 4), CLASSES), (torch.full((8, 4), float("nan")), CLASSES)]
    with pytest.raises(InputError, match="not finite"):
        gm.match(graph, graph.model, mlp(1).state_dict(), "activation", later)


@pytest.mark.parametrize("method", METHODS)
def test_an_interrupted_match_changes_nothing_and_may_begin_again(method: str, graph: gm.ModelGraph) -> None:
    a, b = graph.model, mlp(1)
    before = [{n: t.clone() for n, t in m.state_dict().items()} for m in (a, b)]
    data = [(torch.randn(8, 4, generator=torch.Generator().manual_seed(k)), CLASSES) for k in range(2)]

    def stop(_: str) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        gm.match(graph, a, b.state_dict(), method, data, progress=stop)
    for model, state in zip((a, b), before, strict=True):
        assert all(torch.equal(t, state[n]) for n, t in model.state_dict().items())
        assert not any(
            t.requires_grad != p.requires_grad
            for t, p in zip(model.parameters(), mlp(0).parameters(), strict=True)
        )
    options = {"steps": 3} if "steps" in METHODS[method].options else {}
    assert gm.match(graph, a, b.state_dict(), method, data, **options).objective is not None
