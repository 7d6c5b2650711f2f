"""Recipes, plans and locks on the command line, as a user types them."""

from __future__ import annotations

import gc
import hashlib
import json
import weakref
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from safetensors.torch import load_file, save_file
from typed import MERGE, MODEL, Run, text

from graphmerge.recipe import read_recipe
from graphmerge.run.inputs import checkpoints
from graphmerge.run.open import open_recipe
from graphmerge.run.run import merge_all

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


def test_what_no_later_stage_names_is_let_go(run: Run, tmp_path: Path) -> None:  # noqa: ARG001
    a = load_file(tmp_path / "a.safetensors")
    for name in "cd":
        save_file({n: t + 1 for n, t in a.items()}, str(tmp_path / f"{name}.safetensors"))
    more = "- {name: more, inputs: [all, d.safetensors]}\n"
    recipe = read_recipe(write(tmp_path, STAGES + more))
    opened = open_recipe(recipe, list(checkpoints(recipe)))
    tensors = {Path(p).stem: weakref.ref(state["fc1.weight"]) for p, state in opened.states.items()}
    alive: dict[str, list[str]] = {}

    def say(told: str) -> None:
        gc.collect()
        if told.startswith("matching") or told.startswith("naive"):
            alive[list(alive)[-1]] = [n for n, tensor in tensors.items() if tensor() is not None]
        elif told.startswith("stage "):
            alive[told.partition(":")[0]] = []

    done = merge_all(recipe, opened, say)
    assert alive == {"stage left": list("abcd"), "stage all": list("cd"), "stage more": ["d"]}
    assert list(done.earlier) == ["left", "all"]


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
    @pytest.fixture
    def no_gpu(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(torch.cuda, "is_available", lambda: False)

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

    @pytest.mark.usefixtures("no_gpu")
    @pytest.mark.parametrize(
        ("words", "code", "said"),
        [
            (["--device", "cuda"], 2, "torch sees no CUDA device"),
            (["--match-options", "reference=5"], 2, "reference=5: there are 2 models"),
            (["--data", "few.npz"], 3, "at least 32 samples"),
            (["--data", "wide.npz"], 3, "does not run on the data"),
            (["--test", "wide.npz"], 3, "in the first batch (2, 1, 9, 9) float32"),
            (["--data", "doubles.npz"], 3, "does not run on the data"),
            (["--data", "one.npz"], 3, "at least 2 are needed"),
        ],
    )
    def test_what_a_merge_would_refuse_later_it_refuses_now(
        self, words: list[str], code: int, said: str, run: Run, tmp_path: Path
    ) -> None:
        for name, shape, dtype in (
            ("few", (40, 1, 4, 4), np.float32), ("wide", (9, 1, 9, 9), np.float32),
            ("doubles", (40, 1, 4, 4), np.float64), ("one", (1, 1, 4, 4), np.float32),
        ):  # fmt: skip
            targets = np.zeros(shape[0], np.int64)
            np.savez(tmp_path / f"{name}.npz", inputs=np.zeros(shape, dtype), targets=targets)
        result = run("plan", *MERGE[1:], *words)
        assert result.exit_code == code, text(result)
        assert said in text(result)
        assert said in text(run(*MERGE, *words, "--out", "out"))

    def test_a_repair_that_does_not_apply_is_a_fault(self, run: Run, tmp_path: Path) -> None:
        code = "from torch import nn\n\ndef net():\n    return nn.Sequential(nn.Linear(4, 3), nn.ReLU())\n"
        (tmp_path / "plain.py").write_text(code)
        for name in "pq":
            save_file({"0.weight": torch.randn(3, 4), "0.bias": torch.randn(3)}, str(tmp_path / f"{name}.st"))
        words = ("p.st", "q.st", "--model", "plain:net", "--input", "2x4", "--data", "tinynet:batches")
        result = run("plan", *words, "--repair", "bn-reset")
        assert result.exit_code == 2
        assert "no BatchNorm with running statistics" in text(result)

    def test_what_can_be_merged_has_no_fault(self, run: Run, tmp_path: Path) -> None:
        inputs = np.random.default_rng(0).normal(size=(300, 1, 4, 4)).astype(np.float32)
        np.savez(tmp_path / "data.npz", inputs=inputs, targets=np.arange(300) % 3)
        words = ("--data", "data.npz", "--repair", "bn-reset", "--no-onnx", "--points", 0)
        assert run("plan", *MERGE[1:], *words).exit_code == 0
        assert run(*MERGE, *words, "--out", "out").exit_code == 0

    def test_it_knows_how_many_models_are_matched_and_in_which_way(self, run: Run, tmp_path: Path) -> None:
        save_file(load_file(tmp_path / "b.safetensors"), str(tmp_path / "c.safetensors"))

        def estimate(*words: str) -> Any:
            shown = run("plan", *MERGE[1:], "--match", "weight", "--json", *words, "--allow-duplicate")
            return json.loads(shown.stdout)["estimate"]

        three = [estimate("c.safetensors", "--many", way) for way in ("reference", "merge-many", "cycle")]
        times = [e["stages"]["match by weight"] for e in (estimate(), *three)]
        assert times == sorted(times)
        assert three[0]["peak_bytes"] > estimate()["peak_bytes"]

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
