"""Every symmetry of small networks that a search by running them can find, the engine has too.

The search has power: where one group of the engine is kept in place, or one rule is made too strict,
it finds what is then missing.
"""

from __future__ import annotations

import os
from dataclasses import replace

import pytest
import torch
from missed import missed
from network import Network
from small import NETWORKS
from torch import nn

import graphmerge as gm
from graphmerge.axes import RULES, Registry
from graphmerge.symmetry.unread import unread

SLOW = os.environ.get("GRAPHMERGE_SLOW") == "1"

MISSED = {
    "split and joined": "units of a block project onto it even where nothing looks at the blocks",
}
"""What the engine is known not to find."""

COSTLY = ("attention", "film", "grouped queries", "gru", "lstm", "transformer layer")
"""Fewer exchanges are started from here, except when GRAPHMERGE_SLOW=1."""


def breadth(name: str) -> int:
    return 3 if SLOW else 1 if name in COSTLY else 2


def network(name: str) -> Network:
    torch.manual_seed(0)
    make, inputs = NETWORKS[name]
    return Network.of(make(), inputs())


def marked(name: str) -> object:
    if name in MISSED:
        return pytest.param(name, marks=pytest.mark.xfail(reason=MISSED[name]))
    return name


@pytest.mark.parametrize("name", map(marked, NETWORKS))
def test_the_engine_misses_nothing_that_the_search_finds(name: str) -> None:
    net = network(name)
    if name not in MISSED:
        assert net.graph.groups
    known = Network(net.model, with_unread(net.graph), net.state, net.args)
    assert missed(known, breadth(name), enough=1 if name in MISSED else 5) == []


def with_unread(graph: gm.ModelGraph) -> gm.ModelGraph:
    """The graph with the groups that it keeps in place for nobody reads their units: they are no miss."""
    kept = unread(graph.structure, graph.program, graph.facts)
    return replace(graph, structure=replace(graph.structure, frozen=graph.structure.frozen - kept))


QUICK = (
    "mlp", "batch norm and flatten", "residual", "depthwise", "squeeze-excite", "attention by hand", "maxout",
    "skip by concatenation", "glu", "einsum", "bilinear", "gram", "tied embedding",
)  # fmt: skip
UNSEEN = {
    ("gru", "layer"): "gates and hidden units at once",
    ("state space", "rate"): "four parameters at once",
}
"""Groups that the search does not find again."""


@pytest.mark.parametrize("name", [n for n in NETWORKS if n in QUICK or SLOW])
def test_the_search_finds_every_group_that_is_kept_from_the_engine(name: str) -> None:
    net = network(name)
    for group in net.graph.groups:
        less = Network(net.model, net.graph.freeze([group.name]), net.state, net.args)
        if (name, group.name) not in UNSEEN:
            assert missed(less, enough=1), group.name


def strict(name: str, text: str) -> Registry:
    """The registry with one rule too strict."""
    registry = Registry()
    registry.add(name, text)
    for known in RULES.names():
        rule, integers = RULES.find(known) or ("", "number")
        if known != name:
            registry.add(known, rule, integers)
    return registry


STRICT = {
    "a linear map fixes its output": ("mlp", "aten.linear", "... i, o i, o? -> ... o | o"),
    "a linear map fixes its input": ("residual", "aten.linear", "... i, o i, o? -> ... o | i"),
    "softmax ties heads to places": ("attention by hand", "aten.softmax", "a b c d -> a b c d | b"),
    "a bilinear map fixes one side": ("bilinear", "aten.bilinear", "... i, ... j, o i j, o? -> ... o | j"),
    "a ReLU fixes its columns": ("low-rank adapter", "aten.relu", "a b -> a b | b"),
}


@pytest.mark.parametrize("case", STRICT)
def test_the_search_finds_out_a_rule_that_is_too_strict(case: str) -> None:
    name, op, text = STRICT[case]
    torch.manual_seed(0)
    make, inputs = NETWORKS[name]
    net = Network.of(make(), inputs(), registry=strict(op, text))
    assert missed(net, enough=1)


def test_the_search_takes_no_chance_agreement_for_a_symmetry() -> None:
    """Units that are dead under these weights change places without a trace, but only under these."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(3, 4), nn.ReLU(), nn.Linear(4, 4), nn.Flatten(0), nn.Linear(36, 2))
    net = Network.of(model, (torch.randn(9, 3),))
    net.state["0.bias"] = torch.tensor([-99.0, -99.0, 0.0, 0.0], dtype=torch.float64)
    frozen = Network(net.model, net.graph.freeze(["0"]), net.state, net.args)
    assert all("2.weight:1" in found for found in missed(frozen))
