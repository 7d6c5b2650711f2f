"""Merge methods, several models and a base, as a user types them."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from typed import MERGE, MODEL, Run, text

from graphmerge.files import read_metadata
from graphmerge.merge import METHODS

TIES = (
    "merge", "a.safetensors", "b.safetensors", "c.safetensors", *MODEL, "--merge", "ties", "--base",
    "base.safetensors", "--method", "none", "--no-onnx", "--json",
)  # fmt: skip


@pytest.fixture
def tuned(run: Run, tmp_path: Path) -> Run:
    """The folder with a base in it and three models that each moved other weights."""
    base = load_file(tmp_path / "a.safetensors")
    save_file(base, str(tmp_path / "base.safetensors"))
    for k, (name, moved) in enumerate((("a", "conv.weight"), ("b", "fc1.weight"), ("c", "fc2.bias"))):
        torch.manual_seed(k)
        state = {n: t + 0.1 * torch.randn_like(t) if n == moved else t for n, t in base.items()}
        save_file(state, str(tmp_path / f"{name}.safetensors"))
    return run


def test_three_models_of_one_base_are_merged_by_ties(tuned: Run, tmp_path: Path) -> None:
    result = tuned(*TIES, "--option", "density=1", "--option", "scale=0.5", "--out", "out")
    assert result.exit_code == 0, text(result)
    report = json.loads(result.stdout)
    assert report["recipe"]["merge"]["method"] == "ties"
    assert report["options"] == {"density": 1.0, "scale": 0.5}
    assert [f["path"] for f in report["recipe"]["inputs"]] == [f"{n}.safetensors" for n in "abc"]
    assert report["recipe"]["base"]["path"] == "base.safetensors"
    merged, base = (
        load_file(tmp_path / "out" / "model.safetensors"),
        load_file(tmp_path / "base.safetensors"),
    )
    for name, moved in (("a", "conv.weight"), ("b", "fc1.weight"), ("c", "fc2.bias")):
        own = load_file(tmp_path / f"{name}.safetensors")[moved]
        assert torch.allclose(merged[moved], (own + base[moved]) / 2, atol=1e-6)


def test_all_models_are_aligned_to_the_first_and_weighted_as_told(tuned: Run, tmp_path: Path) -> None:
    words = ("--weights", "0.5,0.25,0.25", "--rule", "fc2.*=0,0,1", "--data", "tinynet:batches")
    result = tuned(*TIES[:4], *MODEL, *words, "--method", "weight", "--no-onnx", "--json", "--out", "out")
    assert result.exit_code == 0, text(result)
    report = json.loads(result.stdout)
    assert [r["name"] for r in report["rows"]][:3] == ["model a", "model b", "model c"]
    assert report["rows"][-1]["name"] == "ensemble of all 3"
    assert report["recipe"]["merge"]["weights"] == [0.5, 0.25, 0.25]
    assert report["recipe"]["rules"] == [{"match": "fc2.*", "weights": [0, 0, 1]}]
    files = {p.name for p in (tmp_path / "out").iterdir()}
    assert {"alignment-b.safetensors", "alignment-c.safetensors"} <= files or report["matching"] == "none"


def test_three_models_are_matched_all_at_once(tuned: Run, tmp_path: Path) -> None:
    words = ("--many", "cycle", "--no-onnx", "--json", "--out", "out")
    result = tuned(*TIES[:4], *MODEL, *words)
    assert result.exit_code == 0, text(result)
    saved = [read_metadata(tmp_path / "out" / f"alignment-{k}.safetensors") for k in "bc"]
    assert [s["method"] for s in saved] == ["cycle", "cycle"]


def test_methods_that_measure_get_the_data(tuned: Run) -> None:
    words = ("--data", "tinynet:batches", "--method", "none", "--points", 0, "--no-onnx", "--json")
    notes = {
        "greedy-soup": {"ingredients"},
        "regmean": {"solved", "averaged"},
        "least-squares": {"solved", "averaged"},
        "ode-m": {"losses", "steps", "shortened", "refused"},
    }
    for method, told in notes.items():
        result = tuned(*TIES[:4], *MODEL, "--merge", method, *words, "--out", method)
        assert result.exit_code == 0, text(result)
        report = json.loads(result.stdout)
        assert report["recipe"]["merge"]["method"] == method
        assert told <= report["notes"].keys()


@pytest.mark.parametrize(
    ("words", "fragment"),
    [
        (("--merge", "magic"), "greedy-soup"),
        (("--merge", "ties"), "needs base="),
        (("--many", "magic"), "reference, merge-many, cycle, hierarchical"),
        (("--many", "cycle", "--method", "activation", "--data", "tinynet:batches"), "by weight only"),
        (("--merge", "fisher"), "needs data="),
        (("--merge", "ode-m"), "needs data=... (--data): batches (inputs, targets)"),
        (("--merge", "ode-m", "--option", "step=0"), "from 0.001 to 1"),
        (("--merge", "slerp", "--option", "scope=half"), "tensor, model"),
        (("--merge", "slerp", "--option", "colour=1"), "there are: scope"),
        (("--option", "density"), "NAME=VALUE"),
        (("--weights", "a,b"), "W,W"),
        (("--weights", "1,2,3"), "one weight per model"),
    ],
)  # fmt: skip
def test_a_wrong_call_exits_2_and_says_what_to_write(words: tuple[str, ...], fragment: str, run: Run) -> None:
    result = run(*MERGE, "--out", "o", "--quiet", *words)
    assert result.exit_code == 2
    assert fragment in text(result)


def test_the_help_lists_every_method_with_its_options_and_source(run: Run) -> None:
    shown = text(run("merge", "--help"))
    for name, method in METHODS.items():
        assert f"{name}:" in shown
        assert method.source.rpartition(" ")[2] in shown
        assert all(f"{o}={facts.default}" in shown for o, facts in method.options.items())
