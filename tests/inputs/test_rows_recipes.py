"""Rows of recipes and flags: typing errors, weights out of range, hostile names, other versions."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
import yaml
from safetensors.torch import load_file, save_file
from typed import MERGE, MODEL, Refused, Run, text

RECIPE = "model: tinynet:Net\nexample_inputs: 2x1x4x4\ninputs: [a.safetensors, b.safetensors]\nonnx: false\n"


@pytest.mark.parametrize(
    ("line", "says"),
    [
        ("mach: none", ("unknown key 'mach'", "did you mean 'match'?")),
        ("seeed: 3", ("unknown key 'seeed'", "did you mean 'seed'?")),
        ("merge: {methd: ties}", ("unknown key 'merge.methd'", "did you mean 'method'?")),
        ("merge: averge", ("unknown merge method 'averge'", "did you mean 'average'?")),
        ("onnx: true", ("line 5", "'onnx' is given twice")),
        ("seed: many", ("'seed' is wrong", "'many'")),
    ],
)
@pytest.mark.parametrize("command", ["merge", "plan"])
def test_row_50_a_typing_error_or_a_key_given_twice(
    command: str, line: str, says: tuple[str, ...], refused: Refused, tmp_path: Path
) -> None:
    (tmp_path / "recipe.yaml").write_text(RECIPE + line + "\n")
    refused(2, command, "recipe.yaml", says=("recipe.yaml", *says))


def test_row_50_a_flag_that_does_not_exist(run: Run) -> None:
    result = run(*MERGE, "--sed", "3", "--out", "out")
    assert result.exit_code == 2
    assert "--seed" in text(result)


@pytest.mark.parametrize("weights", ["-0.5,1.5", "0,0", "nan,1", "inf,1"])
def test_row_51_weights_that_are_no_shares(weights: str, refused: Refused) -> None:
    refused(2, *MERGE, "--merge", "slerp", "--weights", weights, says=("weights", "expected"))


@pytest.mark.parametrize(("weights", "option"), [("0,0", 0), ("1,-1", 1), ("nan,1", 0)])
def test_row_51_weights_that_make_no_sum(weights: str, option: int, refused: Refused) -> None:
    refused(2, *MERGE, "--weights", weights, "--option", f"normalize={option}", says=("weights", "expected"))


def test_row_51_the_number_of_weights(refused: Refused) -> None:
    refused(2, *MERGE, "--weights", "0.2,0.3,0.5", says=("2 models but 3 weights",))


@pytest.mark.parametrize(("normalize", "used"), [(0, [1, 3]), (1, [0.25, 0.75])])
def test_row_51_weights_are_used_as_they_are_unless_normalize_is_given_and_echoed(
    normalize: int, used: list[float], run: Run, tmp_path: Path
) -> None:
    words = (
        *MERGE,
        "--method",
        "none",
        "--no-onnx",
        "--weights",
        "1,3",
        "--option",
        f"normalize={normalize}",
    )
    assert run(*words, "--out", "out").exit_code == 0
    report = json.loads((tmp_path / "out" / "report.json").read_text())
    assert report["notes"]["weights"] == used
    files = ("a.safetensors", "b.safetensors", "out/model.safetensors")
    a, b, merged = (load_file(tmp_path / f)["fc2.bias"] for f in files)
    assert torch.allclose(merged, used[0] * a + used[1] * b)


EVIL = "\x1b[31mred\x07<script>alert(1)</script>[bold]"


def test_row_52_hostile_names_of_tensors_are_spelled_out(refused: Refused, tmp_path: Path) -> None:
    state = load_file(tmp_path / "b.safetensors")
    save_file({**state, EVIL: torch.ones(1)}, str(tmp_path / "bad.safetensors"))
    printed = refused(
        3, "merge", "a.safetensors", "bad.safetensors", *MODEL, says=("bad.safetensors", "[bold]")
    )
    assert "\x1b" not in printed
    assert "\x07" not in printed
    assert r"\x1b[31mred" in printed


def test_row_52_hostile_names_of_files_break_neither_terminal_nor_card(run: Run, tmp_path: Path) -> None:
    name = EVIL.replace("/", "") + ".safetensors"
    (tmp_path / "b.safetensors").rename(tmp_path / name)
    missing = run("merge", "a.safetensors", "\x1b[2Jgone.safetensors", *MODEL, "--out", "new")
    assert missing.exit_code == 3
    result = run("merge", "a.safetensors", name, *MODEL, "--no-onnx", "--out", "out")
    assert result.exit_code == 0, text(result)
    card = (tmp_path / "out" / "README.md").read_text()
    for shown in (text(missing), text(result), card):
        assert "\x1b" not in shown
        assert "\x07" not in shown
    assert "<script>" not in card


def test_row_54_versions_are_recorded_and_others_are_said_not_refused(run: Run, tmp_path: Path) -> None:
    """A zoo's baseline is held by tolerances in the same way (tests/zoo)."""
    assert run(*MERGE, "--no-onnx", "--out", "first").exit_code == 0
    lock = tmp_path / "first" / "recipe.lock.yaml"
    content = yaml.safe_load(lock.read_text())
    assert content["made_with"]["torch"] == torch.__version__
    content["made_with"] |= {"torch": "1.0", "files": {"model.safetensors": "0" * 64}}
    lock.write_text(yaml.safe_dump(content))
    result = run("merge", lock, "--out", "second")
    assert result.exit_code == 0, text(result)
    assert f"torch 1.0 then, {torch.__version__} now" in text(result)
    one, two = (load_file(tmp_path / f / "model.safetensors") for f in ("first", "second"))
    assert all(torch.allclose(t, two[n]) for n, t in one.items())
