"""The table of methods: what it says is what happens."""

from __future__ import annotations

import itertools

import pytest
import torch
from tiny import mlp

import graphmerge as gm
from graphmerge.errors import UsageError
from graphmerge.match import METHODS
from graphmerge.match.methods import described, settings

DATA = [
    (torch.randn(16, 4, generator=torch.Generator().manual_seed(k)), torch.arange(16) % 3) for k in (0, 1)
]


@pytest.mark.parametrize("name", METHODS)
def test_every_method_gives_a_symmetry_and_says_how_it_found_it(name: str, graph: gm.ModelGraph) -> None:
    b = mlp(1)
    few = {"steps": 20} if "steps" in METHODS[name].options else {}
    found = gm.match(graph, graph.model, b.state_dict(), name, DATA, **few)
    assert found.method == name
    assert found.options == settings(name, few)
    assert sum(found.stages.values()) <= found.seconds
    assert found.stages
    x = torch.randn(5, 4)
    moved = torch.func.functional_call(b, found.apply(b), (x,))
    assert torch.allclose(moved, b(x), atol=1e-6)


@pytest.mark.parametrize("name", METHODS)
def test_identical_models_stay_as_they_are(name: str, graph: gm.ModelGraph) -> None:
    assert gm.match(graph, graph.model, mlp(0).state_dict(), name, DATA).transform.is_identity


@pytest.mark.parametrize("name", [n for n, m in METHODS.items() if m.needs_data])
def test_a_method_that_needs_data_asks_for_it(name: str, graph: gm.ModelGraph) -> None:
    with pytest.raises(UsageError, match=f"{name} matching needs data"):
        gm.match(graph, graph.model, mlp(1).state_dict(), name)


@pytest.mark.parametrize("name", METHODS)
def test_an_option_that_a_method_lacks_is_refused_with_what_there_is(name: str, graph: gm.ModelGraph) -> None:
    known = ", ".join(METHODS[name].options) or "none"
    with pytest.raises(UsageError, match=f"{name} has no option 'magic'; there are: {known}"):
        gm.match(graph, graph.model, mlp(1).state_dict(), name, DATA, magic=1)


@pytest.mark.parametrize(("name", "option"), [(n, o) for n, m in METHODS.items() for o in m.options])
def test_an_option_keeps_its_bounds(name: str, option: str) -> None:
    facts = METHODS[name].options[option]
    assert facts.read(option, facts.default) == facts.default
    wrong = ["unheard of"] if facts.choices else ["x", True, facts.low - 1, facts.high + 1]
    for value in wrong:
        with pytest.raises(UsageError, match=option):
            settings(name, {option: value})


def test_the_help_text_names_every_method_and_option() -> None:
    for text, (name, method) in itertools.zip_longest(described(), METHODS.items()):
        assert text.startswith(f"{name}: {method.meaning}")
        assert all(f"{n}={o.default}" in text for n, o in method.options.items())
        assert ("needs data" in text) == method.needs_data
