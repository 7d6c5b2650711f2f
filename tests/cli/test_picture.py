"""The picture of the constraint graph: well formed, complete, coloured by group, and not on top of itself."""

from __future__ import annotations

import re
from itertools import pairwise
from pathlib import Path
from xml.etree import ElementTree

import pytest
import torch
from torch import nn
from typed import MODEL, Run, text

import graphmerge as gm
from graphmerge.cli.picture import draw
from graphmerge.cli.picture.layers import GAP, layered

SVG = "{http://www.w3.org/2000/svg}"


@pytest.fixture(scope="module")
def graph() -> gm.ModelGraph:
    model = nn.Sequential(
        nn.Linear(5, 16),
        nn.TransformerEncoderLayer(16, 2, 24, batch_first=True),
        nn.Linear(16, 3),
    )
    return gm.trace(model.eval(), (torch.randn(3, 7, 5),))


def titled(root: ElementTree.Element) -> dict[str, set[str]]:
    """For each chip ``name dimension k``, the numbers of the groups that colour it."""
    found = {}
    for g in root.iter(f"{SVG}g"):
        title = g.findtext(f"{SVG}title") or ""
        if " dimension " in title:
            found[title.partition(",")[0]] = set(g.get("data-g", "").split())
    return found


def test_every_dimension_of_a_read_parameter_is_a_chip_in_the_colours_of_its_groups(
    graph: gm.ModelGraph,
) -> None:
    chips = titled(ElementTree.fromstring(draw(graph)))
    for name, shape in graph.structure.shapes.items():
        for dim in range(len(shape)):
            groups = {str(k) for k, g in enumerate(graph.groups) if (name, dim) in g.members}
            assert chips[f"{name} dimension {dim}"] == groups


def test_every_group_has_a_wire_and_a_line_in_the_legend(graph: gm.ModelGraph) -> None:
    root = ElementTree.fromstring(draw(graph))
    wired = {g for path in root.iter(f"{SVG}path") for g in path.get("data-g", "").split()}
    assert wired == {str(k) for k in range(len(graph.groups))}
    words = {t.text for t in root.iter(f"{SVG}text")}
    assert all(any(str(w).startswith(f"{g.name}: ") for w in words) for g in graph.groups)


def test_boxes_do_not_overlap(graph: gm.ModelGraph) -> None:
    root = ElementTree.fromstring(draw(graph))
    boxes = [r for r in root.iter(f"{SVG}rect") if str(r.get("class")).startswith("box")]
    assert len(boxes) > 20
    spans = sorted(
        (float(str(b.get("y"))), float(str(b.get("x"))), float(str(b.get("width")))) for b in boxes
    )
    for (y, x, width), (below, right, _) in pairwise(spans):
        assert y < below or x + width < right


def test_every_wire_stays_on_the_sheet(graph: gm.ModelGraph) -> None:
    root = ElementTree.fromstring(draw(graph))
    sheet = float(str(root.get("width")))
    courses = [re.findall(r"([-\d.]+) [-\d.]+", str(p.get("d"))) for p in root.iter(f"{SVG}path")]
    assert len(courses) > 50
    assert all(0 <= float(x) <= sheet for course in courses for x in course)


def test_names_of_parameters_cannot_break_the_markup() -> None:
    class Odd(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.register_parameter("a<b>&", nn.Parameter(torch.randn(4, 5)))
            self.out = nn.Linear(4, 3)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.out(x @ getattr(self, "a<b>&").T)

    root = ElementTree.fromstring(draw(gm.trace(Odd().eval(), (torch.randn(2, 5),))))
    assert "a<b>& dimension 0" in titled(root)


def test_layers_run_down_and_keep_their_distance() -> None:
    widths = dict.fromkeys("abcdfeg", 50.0)
    edges = [("a", "b"), ("b", "c"), ("a", "d"), ("c", "e"), ("d", "e"), ("f", "e"), ("a", "e"), ("e", "g")]
    found = layered(widths, edges, dict.fromkeys(widths, 1.0))
    assert all(found.layer[a] < found.layer[b] for a, b in edges)
    assert found.layer["f"] == found.layer["e"] - 1  # a source stands right above its reader
    assert sorted(found.bends["a", "e"]) == list(range(found.layer["a"] + 1, found.layer["e"]))
    for n in widths:
        for m in widths:
            if n != m and found.layer[n] == found.layer[m]:
                assert abs(found.x[n] - found.x[m]) >= 50 + GAP - 1e-9


def test_inspect_draws_into_a_file_as_a_whole(run: Run, tmp_path: Path) -> None:
    assert run("inspect", *MODEL, "--graph", "out/net.svg", "--quiet").exit_code == 0
    drawn = (tmp_path / "out" / "net.svg").read_text()
    assert "conv.weight dimension 0" in drawn
    assert [p.name for p in (tmp_path / "out").iterdir()] == ["net.svg"]
    assert "--force" in text(run("inspect", *MODEL, "--graph", "out/net.svg"))
    assert run("inspect", *MODEL, "--graph", "out/net.svg", "--force", "--json").exit_code == 0
    assert (tmp_path / "out" / "net.svg").read_text() == drawn
    assert run("inspect", *MODEL, "--graph", "net.html").exit_code == 0
    assert "<script>" in (tmp_path / "net.html").read_text()
    refused = run("inspect", *MODEL, "--graph", "net.png")
    assert refused.exit_code == 2
    assert ".svg or .html" in text(refused)
