"""The report of a merge: the page, the card and the JSON tell the same figures."""

from __future__ import annotations

import html
import json
import re
import xml.etree.ElementTree as ET
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from typer.testing import CliRunner, Result

from graphmerge.cli.app import app

NET = """
import torch
from torch import nn

def net():
    return nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 6), nn.ReLU(), nn.Linear(6, 3))

def batches(n=4, size=40):
    torch.manual_seed(0)
    return [(torch.randn(size, 4), torch.randint(0, 3, (size,))) for _ in range(n)]
"""

Merge = Callable[..., Result]


@pytest.fixture
def merge(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Merge:
    """A folder with two networks, and the command that merges them."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    (tmp_path / "reported.py").write_text(NET)
    import reported  # type: ignore[import-not-found]

    for name, seed in (("a", 0), ("b", 1)):
        torch.manual_seed(seed)
        save_file(reported.net().state_dict(), str(tmp_path / f"{name}.safetensors"))
    words = ["--model", "reported:net", "--input", "2x4", "--quiet", "--out", "out", "--no-onnx"]
    return lambda *more, b="b.safetensors": CliRunner().invoke(
        app, ["merge", "a.safetensors", b, *words, *map(str, more)]
    )


def shown(folder: Path) -> str:
    """All texts of the page, one after the other."""
    root = ET.fromstring((folder / "report.html").read_text())
    return " | ".join(t.strip() for t in root.itertext() if t.strip())


def test_page_card_and_json_tell_the_same(merge: Merge, tmp_path: Path) -> None:
    result = merge("--data", "reported:batches", "--points", 3, "--measure", "llfc")
    assert result.exit_code == 0, result.stderr
    told: dict[str, Any] = json.loads((tmp_path / "out" / "report.json").read_text())
    card, text = (tmp_path / "out" / "README.md").read_text(), shown(tmp_path / "out")
    for row in told["rows"]:
        cells = (
            row["name"] + " (kept)" * row["kept"],
            f"{row['loss']:.4f}",
            f"{100 * row['accuracy']:.2f} %",
        )
        assert "| " + " | ".join(cells) in card
        assert " | ".join(cells) in text
    for name, curve in told["barrier"].items():
        line = f"{name} | {curve['loss barrier']['max minus mean of ends']:.4f}"
        assert line in card
        assert line in text
    assert f"Kept: {told['kept']}" in card
    (alignment,) = [a for a in told["alignments"] if a["method"] == "weight"]
    assert f"{alignment['start']:.6g} | {alignment['objective']:.6g}" in text
    assert [g["name"] for g in told["symmetry"]["groups"]] == ["0", "2"]
    for group in told["symmetry"]["groups"]:
        assert f"{group['error']:.1e} | {group['control']:.1e}" in text
    assert {f["cause"] for f in told["symmetry"]["fixed"]} == {"input", "output"}
    for row in told["measures"]["llfc"]["tables"][0]["rows"]:
        assert " | ".join(row) in text
    assert set(told["measures"]) == {"distance", "llfc"}
    for fact in (*told["files"].values(), told["hardware"]["processor"], *told["warnings"]):
        assert fact in text
    assert all(line in text for _, line in told["log"])
    assert told["log"] == sorted(told["log"], key=lambda x: x[0])


def test_the_part_of_the_barrier_that_is_gone(merge: Merge, tmp_path: Path) -> None:
    assert merge("--data", "reported:batches", "--points", 5).exit_code == 0
    told = json.loads((tmp_path / "out" / "report.json").read_text())
    naive, aligned = (
        told["barrier"][n]["loss barrier"]["max minus mean of ends"] for n in ("naive", "aligned")
    )
    expected = 1 - aligned / naive if naive > 0 else None
    assert told["barrier reduction"]["aligned"] == (expected and pytest.approx(expected))


def test_without_data_the_report_says_that_nothing_was_measured(merge: Merge, tmp_path: Path) -> None:
    assert merge().exit_code == 0
    told = json.loads((tmp_path / "out" / "report.json").read_text())
    card = (tmp_path / "out" / "README.md").read_text()
    assert told["warnings"] == [
        "No data to measure by was given: nothing was measured, nothing was repaired."
    ]
    assert told["warnings"][0] in card
    assert "There were no data to choose by" in card
    assert told["measures"]["distance"]["data"]["total"]["gain"] > 0


def test_what_repair_corrected_is_told(merge: Merge, tmp_path: Path) -> None:
    result = merge(
        "--data", "reported:batches", "--repair", "repair", "--repair-keep", "always", "--points", 0
    )
    assert result.exit_code == 0, result.stderr
    told = json.loads((tmp_path / "out" / "report.json").read_text())
    assert told["repair"] == "repair"
    assert {"0.weight", "2.weight"} <= set(told["repair_notes"]["repair"]["corrected"])
    assert "Only repaired ones counted" in (tmp_path / "out" / "README.md").read_text()
    assert "corrected | 0.weight, 2.weight" in shown(tmp_path / "out")


def test_hostile_file_names_are_only_seen(merge: Merge, tmp_path: Path) -> None:
    bad = "<img src=x onerror=alert(1)>|`$x.safetensors"
    (tmp_path / "b.safetensors").rename(tmp_path / bad)
    assert merge(b=bad).exit_code == 0
    written = (tmp_path / "out" / "report.html").read_text()
    assert "<img" not in written
    assert html.escape(bad) in written
    card = (tmp_path / "out" / "README.md").read_text()
    assert not re.search(r"<img|`\$x", card)


@pytest.mark.parametrize(
    ("words", "fragment"),
    [
        (("--measure", "magic"), "there are: score, barrier"),
        (("--measure", "plane", "--data", "reported:batches"), "takes 3 models, got 2"),
        (("--measure", "llfc"), "needs data"),
        (("--measure", "llfc", "--data", "reported:batches", "--measure-option", "x=1"), "has option 'x'"),
    ],
)
def test_measures_that_cannot_be_taken_are_refused_at_once(
    merge: Merge, tmp_path: Path, words: tuple[str, ...], fragment: str
) -> None:
    result = merge(*words)
    assert result.exit_code == 2
    assert fragment in " ".join(result.stderr.split())
    assert not (tmp_path / "out").exists()


@pytest.mark.usefixtures("merge")
def test_stages_are_told_one_by_one(tmp_path: Path) -> None:
    (tmp_path / "recipe.yaml").write_text(
        "model: reported:net\nexample_inputs: 2x4\ndata: reported:batches\nonnx: false\npoints: 0\n"
        "stages:\n- {name: first, inputs: [a.safetensors, b.safetensors]}\n"
        "- {name: second, inputs: [first, a.safetensors], merge: slerp}\n"
    )
    assert CliRunner().invoke(app, ["merge", "recipe.yaml", "--out", "out", "--quiet"]).exit_code == 0
    told = json.loads((tmp_path / "out" / "report.json").read_text())
    text = shown(tmp_path / "out")
    assert "model a | first | 0.5 | made by a stage" in text
    assert f"Stage first | Kept: {told['earlier']['first']['kept']}" in text
