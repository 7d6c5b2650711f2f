"""Recipes, plans and locks on the command line, as a user types them."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from safetensors.torch import load_file, save_file
from typed import MERGE, MODEL, Run, text

RECIPE = """
version: 1
model: tinynet:Net
inputs: [a.safetensors, b.safetensors]
example_inputs: 2x1x4x4
match: weight
merge: {method: average, weights: [0.3, 0.7]}
onnx: false
out: out
"""


def write(folder: Path, content: str) -> Path:
    (folder / "recipe.yaml").write_text(content)
    return folder / "recipe.yaml"


def merged_bytes(folder: Path) -> bytes:
    return (folder / "model.safetensors").read_bytes()


def test_a_recipe_and_the_same_flags_give_the_same_bytes(run: Run, tmp_path: Path) -> None:
    assert run("merge", write(tmp_path, RECIPE), "--quiet").exit_code == 0
    words = ("--match", "weight", "--weights", "0.3,0.7", "--no-onnx", "--quiet", "--out", "flags")
    assert run(*MERGE, *words).exit_code == 0
    assert merged_bytes(tmp_path / "out") == merged_bytes(tmp_path / "flags")


def test_the_lock_gives_the_same_bytes_again(run: Run, tmp_path: Path) -> None:
    recipe = write(tmp_path, RECIPE + "data: tinynet:batches\npoints: 0\nseed: 3\n")
    assert run("merge", recipe, "--quiet").exit_code == 0
    again = run("merge", "out/recipe.lock.yaml", "--out", "again")
    assert again.exit_code == 0, text(again)
    assert "the same bytes as recipe.lock.yaml says" in text(again)
    assert merged_bytes(tmp_path / "out") == merged_bytes(tmp_path / "again")
    lock = yaml.safe_load((tmp_path / "out" / "recipe.lock.yaml").read_text())
    digest = hashlib.sha256((tmp_path / "a.safetensors").read_bytes()).hexdigest()
    assert lock["inputs"][0] == {"path": "../a.safetensors", "sha256": digest}
    assert lock["match"]["options"] == {"reference": 0, "cost": "plain", "restarts": 2}
    assert (lock["match"]["method"], lock["match"]["many"]) == ("weight", "reference")
    assert {"graphmerge", "torch", "python"} <= lock["made_with"].keys()


def test_a_lock_whose_input_has_changed_is_refused(run: Run, tmp_path: Path) -> None:
    assert run("merge", write(tmp_path, RECIPE), "--quiet").exit_code == 0
    state = load_file(tmp_path / "b.safetensors")
    save_file({n: t + 1 for n, t in state.items()}, str(tmp_path / "b.safetensors"))
    refused = run("merge", "out/recipe.lock.yaml", "--out", "again")
    assert refused.exit_code == 3
    assert "is not the file that the recipe means" in text(refused)
    assert not (tmp_path / "again").exists()


def test_flags_count_before_the_recipe(run: Run, tmp_path: Path) -> None:
    words = ("--merge", "slerp", "--merge-options", "scope=model", "--seed", 5, "--json", "--weights", "1,1")
    report = json.loads(run("merge", write(tmp_path, RECIPE), *words).stdout)
    assert report["recipe"]["merge"] == {"method": "slerp", "weights": [1, 1], "options": {"scope": "model"}}
    assert report["recipe"]["seed"] == 5
    assert report["recipe"]["match"]["method"] == "weight"


def test_rules_keep_the_values_of_one_model(run: Run, tmp_path: Path) -> None:
    words = ("--rule", "fc2.*=keep-b", "--rule", "conv=1,0", "--match", "none", "--no-onnx", "--quiet")
    assert run(*MERGE, *words, "--out", "out").exit_code == 0
    a, b, merged = (
        load_file(tmp_path / p) for p in ("a.safetensors", "b.safetensors", "out/model.safetensors")
    )
    assert torch.equal(merged["fc2.weight"], b["fc2.weight"])
    assert torch.equal(merged["conv.weight"], a["conv.weight"])
    assert torch.allclose(merged["fc1.bias"], (a["fc1.bias"] + b["fc1.bias"]) / 2)
    refused = run(*MERGE, "--rule", "nothing=keep-a", "--out", "two")
    assert refused.exit_code == 2
    assert "no parameter or group" in text(refused)


STAGES = """
model: tinynet:Net
example_inputs: 2x1x4x4
match: none
onnx: false
stages:
- {name: left, inputs: [a.safetensors, b.safetensors]}
- {name: all, inputs: [left, c.safetensors], merge: {weights: [0.75, 0.25]}}
"""


def test_a_later_stage_uses_what_an_earlier_one_made(run: Run, tmp_path: Path) -> None:
    a, b = (load_file(tmp_path / f"{n}.safetensors") for n in "ab")
    c = {n: torch.randn_like(t) if t.is_floating_point() else t for n, t in a.items()}
    save_file(c, str(tmp_path / "c.safetensors"))
    result = run("merge", write(tmp_path, STAGES), "--out", "out", "--json")
    assert result.exit_code == 0, text(result)
    assert list(json.loads(result.stdout)["earlier"]) == ["left"]
    merged = load_file(tmp_path / "out" / "model.safetensors")
    wanted = 0.375 * (a["fc1.weight"] + b["fc1.weight"]) + 0.25 * c["fc1.weight"]
    assert torch.allclose(merged["fc1.weight"], wanted, atol=1e-6)
    again = run("merge", "out/recipe.lock.yaml", "--out", "again", "--quiet")
    assert again.exit_code == 0, text(again)
    assert merged_bytes(tmp_path / "again") == merged_bytes(tmp_path / "out")


def test_large_models_are_split_and_read_again(run: Run, tmp_path: Path) -> None:
    words = ("--match", "none", "--no-onnx", "--quiet")
    assert run(*MERGE, *words, "--out", "whole").exit_code == 0
    assert run(*MERGE, *words, "--out", "parts", "--shard-size", "1KB").exit_code == 0
    index = json.loads((tmp_path / "parts" / "model.safetensors.index.json").read_text())
    parts = {n: load_file(tmp_path / "parts" / f)[n] for n, f in index["weight_map"].items()}
    whole = load_file(tmp_path / "whole" / "model.safetensors")
    assert parts.keys() == whole.keys()
    assert all(torch.equal(parts[n], t) for n, t in whole.items())
    for name in ("whole", "parts"):
        shown = run("evaluate", name, "--model", "tinynet:Net", "--data", "tinynet:batches")
        assert shown.exit_code == 0, text(shown)


def test_the_card_names_the_inputs_and_cannot_be_broken_by_them(run: Run, tmp_path: Path) -> None:
    (tmp_path / "b.safetensors").rename(tmp_path / "b<script>`|.safetensors")
    words = ("merge", "a.safetensors", "b<script>`|.safetensors", *MODEL, "--no-onnx", "--quiet")
    assert run(*words, "--out", "out").exit_code == 0
    card = (tmp_path / "out" / "README.md").read_text()
    assert "| a.safetensors |" in card
    assert "| b&#60;script&#62;&#96;&#124;.safetensors |" in card
    assert "<script>" not in card


class TestPlan:
    def test_it_says_what_will_happen_and_writes_nothing(self, run: Run, tmp_path: Path) -> None:
        before = sorted(tmp_path.iterdir())
        result = run("plan", *MERGE[1:], "--out", "out", "--json")
        assert result.exit_code == 0, text(result)
        plan = json.loads(result.stdout)
        assert plan["faults"] == []
        assert [(g["name"], g["size"]) for g in plan["groups"]] == [("conv", 8), ("fc1", 12)]
        assert plan["output_bytes"] == sum(
            t.numel() * t.element_size() for t in load_file(tmp_path / "a.safetensors").values()
        )
        assert plan["estimate"]["seconds"] > 0
        assert sorted(p for p in tmp_path.iterdir() if p.name != "__pycache__") == [
            p for p in before if p.name != "__pycache__"
        ]

    def test_all_faults_are_found_at_once(self, run: Run, tmp_path: Path) -> None:
        state = load_file(tmp_path / "b.safetensors")
        state |= {
            "fc2.bias": torch.zeros(4),
            "fc1.bias": torch.zeros(12, dtype=torch.int64),
            "odd": torch.ones(1),
        }
        save_file(state, str(tmp_path / "b.safetensors"))
        (tmp_path / "out").mkdir()
        (tmp_path / "out" / "old.txt").write_text("precious")
        np.savez(tmp_path / "data.npz", inputs=np.zeros((5, 1, 4, 4)), targets=np.zeros(4))
        words = ("--out", "out", "--data", "data.npz", "--test", "tinynet:nothing", "--rule", "zz=keep-a")
        result = run("plan", *MERGE[1:], *words)
        shown = text(result)
        for fragment in (
            "'odd'", "of other shapes", "of another kind", "already exists", "expected as many",
            "cannot import", "no parameter or group", "7 faults",
        ):  # fmt: skip
            assert fragment in shown, fragment
        assert result.exit_code == 2

    def test_a_prefix_is_suggested(self, run: Run, tmp_path: Path) -> None:
        state = load_file(tmp_path / "b.safetensors")
        save_file({f"module.{n}": t for n, t in state.items()}, str(tmp_path / "b.safetensors"))
        result = run("plan", *MERGE[1:])
        assert result.exit_code == 3
        assert "under 'module.' match the model" in text(result)

    def test_no_weights_are_read(self, run: Run, tmp_path: Path) -> None:
        raw = (tmp_path / "b.safetensors").read_bytes()
        (tmp_path / "b.safetensors").write_bytes(raw[:-8] + b"\xff" * 8)
        assert run("plan", *MERGE[1:]).exit_code == 0

    def test_a_model_that_cannot_be_traced_is_a_fault_too(self, run: Run) -> None:
        result = run("plan", "a.safetensors", "b.safetensors", "--model", "tinynet:Branch", "--input", "2x4")
        assert "if x.sum() > 0" in text(result)
        assert "does not have the model's names" in text(result)


def test_the_schema_names_every_key_and_method(run: Run) -> None:
    found = json.loads(run("schema").stdout)
    assert {"model", "inputs", "match", "stages", "shard_size"} <= found["properties"].keys()
    assert "dare-ties" in found["$defs"]["Merge"]["properties"]["method"]["enum"]
    assert found["additionalProperties"] is False


@pytest.mark.parametrize("command", ["merge", "plan"])
def test_every_key_of_a_recipe_is_a_flag(command: str, run: Run) -> None:
    shown = text(run(command, "--help"))
    keys = set(json.loads(run("schema").stdout)["properties"]) - {"version", "inputs", "stages", "made_with"}
    assert [k for k in keys if f"--{k.replace('_', '-')}" not in shown] == []


def test_a_recipe_takes_no_further_checkpoints(run: Run, tmp_path: Path) -> None:
    refused = run("merge", write(tmp_path, RECIPE), "a.safetensors")
    assert refused.exit_code == 2
    assert "names its inputs" in text(refused)
