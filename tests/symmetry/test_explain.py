"""Why a dimension moves, why it does not, and the line of code that says so."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import networkx as nx
import pytest
import torch
from torch import nn

import graphmerge as gm
from graphmerge.symmetry.constraints import is_reason, toward_reasons, way_to_reason


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.a, self.b, self.c = nn.Linear(5, 6), nn.Linear(6, 7), nn.Linear(7, 3)
        self.skip = nn.Linear(5, 7)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        h = self.b(torch.relu(self.a(x)))
        return self.c(h + self.skip(x))  # the tie of b and skip


@pytest.fixture(scope="module")
def graph() -> gm.ModelGraph:
    return gm.trace(Net().eval(), (torch.randn(2, 5),))


def line_of(code: str) -> str:
    """``file:line`` of the first line of this file that holds ``code``."""
    lines = Path(__file__).read_text(encoding="utf-8").splitlines()
    return f"{Path(__file__).name}:{next(k for k, x in enumerate(lines, 1) if code in x)}"


def test_a_tie_is_told_with_its_operator_its_module_and_its_line(graph: gm.ModelGraph) -> None:
    told = graph.explain("b.weight", 0, ("skip.weight", 0))
    assert "moves with skip.weight dimension 0, by group b" in told
    steps = told.splitlines()[2:]
    assert [x.partition(", by ")[2] for x in steps[::2]] == [
        "aten.linear at b",
        "aten.add at add",
        "aten.linear at skip",
    ]
    assert line_of("# the tie of b and skip") in steps[3]
    assert line_of("h = self.b(") in steps[1]


def test_every_member_is_told_with_the_line_that_ties_it(graph: gm.ModelGraph) -> None:
    told = graph.explain("a.weight", 0)
    assert "group a (6 units)" in told
    assert (
        f"b.weight dimension 1, by aten.linear at b ({Path('tests')}" in told
        or line_of("h = self.b(") in told
    )


def test_of_two_that_are_not_tied_it_is_told_where_each_ends(graph: gm.ModelGraph) -> None:
    told = graph.explain("a.weight", 0, ("c.weight", 0))
    assert "is not tied to c.weight dimension 0: no group moves both" in told
    assert "a.weight dimension 0 moves with group a" in told
    assert "c.weight dimension 0 is fixed: output" in told


def test_a_chain_runs_over_what_the_group_moves_alone(graph: gm.ModelGraph) -> None:
    for g in graph.groups:
        for a in g.members:
            for b in g.members:
                told = graph.explain(*a, b).splitlines()[2:]
                ends = [x.strip().partition(", by ")[0].split(" -> ") for x in told if " -> " in x]
                for left, right in zip(ends, ends[1:], strict=False):
                    assert left[1] == right[0]
                if a != b:
                    assert (ends[0][0], ends[-1][1]) == (f"{a[0]}:{a[1]}", f"{b[0]}:{b[1]}")


def test_a_kept_group_is_the_reason_of_its_members() -> None:
    frozen = gm.trace(Net().eval(), (torch.randn(2, 5),), freeze=["b"])
    assert "is fixed: in part: group b is kept in place" in frozen.explain("skip.bias", 0)
    assert {f.cause for f in frozen.fixed} == {"input", "output", "its group is kept in place"}


def test_one_position_cannot_move() -> None:
    graph = gm.trace(nn.Sequential(nn.Linear(3, 1), nn.ReLU(), nn.Linear(1, 4)), (torch.randn(2, 3),))
    assert "one position" in graph.explain("0.bias", 0)


class Inside(nn.Module):
    """Operators in branches, which torch.export keeps as subgraphs."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b = nn.Linear(5, 6), nn.Linear(6, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        def forward(h: torch.Tensor) -> torch.Tensor:
            return torch.tanh(h)

        return self.b(torch.cond(x.sum() > 0, forward, torch.relu, (self.a(x),)))  # runs the branches


def test_a_fact_inside_of_a_subgraph_has_its_line() -> None:
    graph = gm.trace(Inside().eval(), (torch.randn(2, 5),))
    told = graph.explain("a.weight", 0, ("b.weight", 1)).splitlines()
    (tanh,) = [k for k, x in enumerate(told) if "by aten.tanh" in x]
    assert line_of("# runs the branches") in told[tanh + 1]


class Parallel(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.experts = nn.ModuleList(
            nn.Sequential(nn.Linear(5, 6), nn.ReLU(), nn.Linear(6, 5)) for _ in range(3)
        )
        self.out = nn.Linear(5, 2)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.out(sum(e(x) for e in self.experts))


def test_parallel_branches_are_told_as_what_ties_their_tensors() -> None:
    graph = gm.trace(Parallel().eval(), (torch.randn(2, 5),))
    assert "is fixed: input" in graph.explain("experts.1.0.weight", 1)
    assert "aten.linear at out" in graph.explain("experts.1.2.bias", 0, ("out.weight", 1))
    told = graph.explain("experts.0.0.bias", 0)
    assert "experts.1.0.bias as a whole, by parallel branches" in told
    assert "parallel branches" in graph.explain("experts.0.0.bias", 0, ("experts.1.0.bias", 0))


class Joined(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.a, self.b, self.out = nn.Linear(5, 6), nn.Linear(5, 7), nn.Linear(13, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.out(torch.cat([self.a(x), self.b(x)], 1))


def test_a_chain_runs_through_a_concatenation_from_every_part() -> None:
    graph = gm.trace(Joined().eval(), (torch.randn(2, 5),))
    for part in ("a", "b"):
        steps = graph.explain(f"{part}.weight", 0, ("out.weight", 1)).splitlines()[2:]
        assert [x.partition(", by ")[2] for x in steps[::2]] == [
            f"aten.linear at {part}",
            "aten.cat at cat",
            "aten.linear at out",
        ]


def brute_force(graph: nx.Graph) -> Iterator[tuple[object, int, str]]:
    """Distance and name of the nearest reason of every node, by one search each."""
    for node in graph:
        near = nx.single_source_shortest_path_length(graph, node)
        reasons = [(n, v[1]) for v, n in near.items() if is_reason(v)]
        if reasons and not is_reason(node):
            yield node, *min(reasons)


def test_one_search_from_all_reasons_finds_what_a_search_from_each_node_finds(graph: gm.ModelGraph) -> None:
    step = toward_reasons(graph.constraints)
    expected = list(brute_force(graph.constraints))
    assert len(expected) > 10
    for node, distance, reason in expected:
        way = way_to_reason(step, node)
        assert (len(way) - 1, way[-1][1]) == (distance, reason)
        assert all(graph.constraints.has_edge(a, b) for a, b in zip(way, way[1:], strict=False))
