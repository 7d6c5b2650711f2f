"""The command line as a user types it."""

from __future__ import annotations

import importlib
import io
import json
import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest
import torch
import typer
from rich.console import Console
from safetensors.torch import load_file, save_file
from typed import MERGE, MODEL, Run, fingerprint, text
from typer.testing import CliRunner

import graphmerge as gm
from graphmerge.cli import console
from graphmerge.cli.app import app
from graphmerge.errors import GraphMergeError
from graphmerge.files import read_metadata

cli_app = importlib.import_module("graphmerge.cli.app")


def test_inspect_shows_a_tree_and_all_of_it_as_json(run: Run) -> None:
    shown = text(run("inspect", *MODEL, "--freeze", "fc1"))
    assert "Net: 1 group, 8 units move" in shown
    assert "conv 8 permutation, 7 members" in shown
    assert "fixed 6 output: fc2.weight:0, fc2.bias:0" in shown
    assert "kept in place: fc1" in shown
    found = json.loads(run("inspect", *MODEL, "--json").stdout)
    assert [(g["name"], g["size"], g["module"]) for g in found["groups"]] == [
        ("conv", 8, ""),
        ("fc1", 12, ""),
    ]
    assert ["fc1.weight", 1] in found["groups"][0]["members"]
    assert {f["cause"] for f in found["fixed"]} == {"output", "position in space"}
    assert found["operators"]["aten.linear"] == 2
    assert found["inputs"] == {"x": [2, 1, 4, 4]}
    assert list(found["outputs"].values()) == [[2, 3]]
    shapes = {p["name"]: p["shape"] for p in found["parameters"]}
    assert shapes["fc1.weight"] == [12, 32]
    kept = json.loads(run("inspect", *MODEL, "--json", "--freeze", "fc2.*").stdout)
    assert [g["name"] for g in kept["groups"]] == ["conv"]
    assert [g["name"] for g in kept["frozen"]] == ["fc1"]


def test_explain_tells_ties_reasons_and_lines(run: Run) -> None:
    assert "conv.bias dimension 0" in text(run("explain", *MODEL, "conv.weight:0"))
    tied = text(run("explain", *MODEL, "conv.weight:0", "fc1.weight:1"))
    assert "aten.relu" in tied
    assert "tinynet.py:13: h = torch.relu(self.norm(self.conv(x)))" in tied
    assert "not tied" in text(run("explain", *MODEL, "conv.weight:0", "fc1.weight:0"))
    assert "output" in text(run("explain", *MODEL, "fc2.weight:0"))
    assert "kept in place" in text(run("explain", *MODEL, "fc1.weight:0", "--freeze", "fc1"))
    assert "did you mean 'conv.weight'" in text(run("explain", *MODEL, "comv.weight:0"))
    assert "has no dimension 7; it has 0, 1, 2, 3" in text(run("explain", *MODEL, "conv.weight:7"))
    assert "did you mean 'fc1.bias'" in text(run("explain", *MODEL, "conv.weight:0", "--freeze", "fc1.bais"))
    assert run("explain", *MODEL, "nothing.weight:0").exit_code == 2
    assert run("explain", *MODEL, "conv.weight").exit_code == 2


def test_a_kept_trace_gives_the_same_answers(run: Run, tmp_path: Path) -> None:
    words = ("inspect", *MODEL, "--json", "--cache", "kept")
    first = run(*words).stdout
    assert json.loads(first)["groups"]
    assert len(list((tmp_path / "kept").iterdir())) == 1
    assert run(*words).stdout == first
    (archive,) = (tmp_path / "kept").glob("*/program.pt2")
    archive.write_bytes(b"something else")
    refused = run("explain", *MODEL, "conv.weight:0", "--cache", "kept")
    assert refused.exit_code == 3
    assert "damaged" in text(refused)


def test_verify_reports_every_group(run: Run) -> None:
    found = json.loads(run("verify", *MODEL, "--json").stdout)
    assert found["passed"]
    assert [g["name"] for g in found["groups"]] == ["conv", "fc1"]
    assert all(g["error"] < 1e-9 < g["control"] for g in found["groups"])


def test_merge_does_the_whole_path(run: Run, tmp_path: Path) -> None:
    result = run(*MERGE, "--data", "tinynet:batches", "--points", 3, "--out", "out")
    assert result.exit_code == 0, text(result)
    assert "kept:" in text(result)
    names = {"model.safetensors", "merged.onnx", "report.json", "barrier.png"}
    assert names <= set(fingerprint(tmp_path / "out"))
    report = json.loads((tmp_path / "out" / "report.json").read_text())
    rows = [r["name"] for r in report["rows"]]
    assert rows[:3] == ["model a", "model b", "naive"]
    assert "weight matching + bn-reset" in rows
    assert rows[-1] == "ensemble of a and b"
    assert all(e < 1e-4 for e in report["onnx"]["max_error"].values())


def test_merge_needs_no_data_and_gives_the_same_bytes_again(run: Run, tmp_path: Path) -> None:
    words = (*MERGE, "--out", "out", "--quiet")
    assert run(*words).exit_code == 0
    first = fingerprint(tmp_path / "out")
    assert {"model.safetensors", "merged.onnx", "alignment.safetensors"} <= set(first)
    refused = run(*words)
    assert refused.exit_code == 2
    assert "--force" in text(refused)
    assert fingerprint(tmp_path / "out") == first
    assert run(*words, "--force").exit_code == 0
    assert fingerprint(tmp_path / "out")["model.safetensors"] == first["model.safetensors"]


def test_the_onnx_file_is_the_merged_model(run: Run, tmp_path: Path) -> None:
    assert run(*MERGE, "--out", "out", "--quiet").exit_code == 0
    import tinynet

    model = tinynet.Net().eval()
    model.load_state_dict(load_file(tmp_path / "out" / "model.safetensors"))
    x = torch.randn(5, 1, 4, 4)
    session = onnxruntime.InferenceSession(str(tmp_path / "out" / "merged.onnx"))
    (got,) = session.run(None, {session.get_inputs()[0].name: x.numpy()})
    assert np.allclose(got, model(x).detach().numpy(), atol=1e-5)


def test_a_permuted_copy_is_recovered_and_identical_models_succeed(run: Run, tmp_path: Path) -> None:
    state = load_file(tmp_path / "a.safetensors")
    order = torch.randperm(12)
    moved = {**state, "fc1.weight": state["fc1.weight"][order], "fc1.bias": state["fc1.bias"][order]}
    moved["fc2.weight"] = state["fc2.weight"][:, order].contiguous()
    save_file(moved, str(tmp_path / "copy.safetensors"))
    save_file(state, str(tmp_path / "same.safetensors"), {"note": "other bytes, same weights"})
    for name in ("copy", "same"):
        result = run(
            "merge", "a.safetensors", f"{name}.safetensors", *MODEL, "--out", name, "--quiet", "--no-onnx"
        )
        assert result.exit_code == 0, text(result)
        merged = load_file(tmp_path / name / "model.safetensors")
        assert all(torch.allclose(merged[n].float(), t.float(), atol=1e-6) for n, t in state.items())


def test_match_and_export(run: Run, tmp_path: Path) -> None:
    assert run("match", "a.safetensors", "b.safetensors", *MODEL, "--out", "al.safetensors").exit_code == 0
    assert run("match", "a.safetensors", "b.safetensors", *MODEL, "--out", "al.safetensors").exit_code == 2
    assert run("export", *MODEL, "--weights", "a.safetensors", "--out", "x.onnx").exit_code == 0
    assert (tmp_path / "x.onnx").exists()


def test_json_is_one_object_and_nothing_else(run: Run) -> None:
    result = run(*MERGE, "--data", "tinynet:batches", "--points", 3, "--out", "out", "--json")
    assert json.loads(result.stdout)["rows"]
    assert result.stderr == ""


@pytest.mark.parametrize(
    ("words", "fragment"),
    [
        (("inspect", "--model", "nothing:here", "--input", "2x4"), "cannot import"),
        (("inspect", "--model", "tinynet:net", "--input", "2x4"), "did you mean 'Net'?"),
        (("inspect", "--model", "tinynet", "--input", "2x4"), "module:name"),
        (("inspect", "--model", "tinynet:Net", "--input", "2xmany"), "SHAPE"),
        (("inspect", "--model", "tinynet:Net(width=oops)", "--input", "2x1x4x4"), "width"),
        (("inspect", "--model", "tinynet:Net(depth=3)", "--input", "2x1x4x4"), "TypeError"),
        (("inspect", *MODEL, "--device", "tpu"), "auto, cpu, cuda"),
        (("match", *MERGE[1:], "--out", "o", "--method", "activation"), "--data"),
        ((*MERGE, "--out", "o", "--dtype", "int64"), "floating"),
        ((*MERGE, "--out", "o", "--points", "1"), "at least 2"),
        ((*MERGE, "--out", "o", "--method", "magic"), "auto, none, weight, activation"),
        ((*MERGE, "--out", "o", "--method", "activation"), "--data"),
    ],
)  # fmt: skip
def test_a_wrong_call_exits_2_and_says_what_to_write(words: tuple[str, ...], fragment: str, run: Run) -> None:
    result = run(*words)
    assert result.exit_code == 2
    assert fragment in text(result)


def test_debug_shows_the_traceback(run: Run) -> None:
    result = run("inspect", "--model", "nothing:here", "--input", "2x4", "--debug")
    assert result.exception is not None
    assert not isinstance(result.exception, SystemExit)


def test_help_of_every_command() -> None:
    for command in ("inspect", "verify", "explain", "match", "merge", "evaluate", "export", "demo"):
        result = CliRunner().invoke(app, [command, "--help"])
        assert result.exit_code == 0
        assert "--" in result.stdout
    assert CliRunner().invoke(app, ["--version"]).stdout.strip() == "0.1.0"


def test_match_sets_the_options_of_its_method(run: Run) -> None:
    words = ("match", "a.safetensors", "b.safetensors", *MODEL, "--out", "al.safetensors", "--json")
    assert json.loads(run(*words, "--option", "restarts=1").stdout)["options"]["restarts"] == 1
    for wrong, fragment in (("magic=1", "restarts"), ("restarts", "NAME=VALUE"), ("restarts=no", "whole")):
        result = run(*words, "--force", "--option", wrong)
        assert result.exit_code == 2
        assert fragment in text(result)


def test_match_draws_its_descent_and_goes_on_from_an_alignment(run: Run, tmp_path: Path) -> None:
    words = ("match", "a.safetensors", "b.safetensors", *MODEL, "--out")
    first = run(*words, "one.safetensors", "--plot", "one.svg", "--option", "restarts=1")
    assert first.exit_code == 0, text(first)
    assert "certified" in text(first)
    assert "sweep" in text(first)
    assert (tmp_path / "one.svg").read_text().lstrip().startswith("<?xml")
    again = run(*words, "two.safetensors", "--plot", "two.svg", "--option", "restarts=1", "--json")
    assert (tmp_path / "one.svg").read_bytes() == (tmp_path / "two.svg").read_bytes()
    on = json.loads(run(*words, "three.safetensors", "--start", "one.safetensors", "--json").stdout)
    assert on["start"] == pytest.approx(json.loads(again.stdout)["objective"])
    assert on["objective"] >= on["start"]
    assert run(*words, "four.safetensors", "--plot", "one.svg").exit_code == 2
    assert run(*words, "four.safetensors", "--plot", "one.bmp").exit_code == 2
    assert not (tmp_path / "four.safetensors").exists()


def test_a_match_interrupted_before_anything_is_found_leaves_nothing(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(sys.modules["graphmerge.match.coordinate"], "place", interrupted)
    before = set(tmp_path.iterdir())
    result = run(
        "match", "a.safetensors", "b.safetensors", *MODEL, "--out", "x.safetensors", "--plot", "x.svg"
    )
    assert result.exit_code == 130
    assert "nothing was written" in text(result)
    assert {p for p in tmp_path.iterdir() if p.name != "__pycache__"} <= before


def every_command() -> Iterator[tuple[list[str], Any]]:
    """The words that name a command, and the command."""
    for name, command in typer.main.get_group(app).commands.items():
        inner = getattr(command, "commands", {})
        yield from (([name, n], c) for n, c in inner.items()) if inner else [([name], command)]


def test_every_command_has_an_example_and_a_sentence_that_fits_a_line(run: Run) -> None:
    found = list(every_command())
    assert len(found) > 14
    for words, command in found:
        assert f"graphmerge {' '.join(words)}" in text(run(*words, "--help")), words
        assert not command.get_short_help_str(62).endswith("..."), words


def test_no_option_is_cut_in_a_narrow_terminal_or_lacks_a_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    for words, command in every_command():
        shown = CliRunner().invoke(app, [*words, "--help"]).stdout
        for p in [p for p in command.params if p.param_type_name == "option"]:
            assert p.help, (words, p.name)
            for name in (*p.opts, *p.secondary_opts):
                assert name in re.split(r"[\s,/]+", shown), (words, name)


def test_what_fails_on_the_way_out_after_ctrl_c_is_still_an_interrupt(
    capsys: pytest.CaptureFixture[str],
) -> None:
    def command() -> None:
        with console.exit_codes(debug=False):
            try:
                raise KeyboardInterrupt
            finally:
                raise RuntimeError("half a step cannot be undone")

    with pytest.raises(SystemExit, match="130"):
        command()
    assert "interrupted" in capsys.readouterr().err


def test_the_exit_codes_are_told_and_are_those_of_the_errors() -> None:
    shown = CliRunner().invoke(app, ["--help"]).stdout
    for code in {0, *(kind.exit_code for kind in GraphMergeError.__subclasses__()), 130}:
        assert re.search(rf"^ +{code} ", shown, re.MULTILINE), code


def test_the_shell_completes_methods() -> None:
    words = {
        "_GRAPHMERGE_COMPLETE": "complete_bash",
        "COMP_WORDS": "graphmerge merge --match si",
        "COMP_CWORD": "3",
    }
    shown = CliRunner().invoke(app, [], env=words, prog_name="graphmerge")
    assert shown.stdout.split() == ["sinkhorn"]


@pytest.mark.parametrize("said", ["nothing", "flag", "variable"])
def test_colours_are_off_where_they_are_not_wanted(
    said: str, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    if said == "variable":
        monkeypatch.setenv("NO_COLOR", "1")
    terminal = Console(file=io.StringIO(), force_terminal=True, color_system="standard")
    for module in (console, cli_app):
        monkeypatch.setattr(module, "err", terminal)
    words = ["--no-color"] if said == "flag" else []
    assert run(*words, "merge", "a.safetensors", "b.safetensors").exit_code == 2
    red = "\x1b[1;31m" in terminal.file.getvalue()  # type: ignore[attr-defined]
    assert red == (said == "nothing")


def test_ctrl_c_in_a_long_match_keeps_what_was_reached_and_start_goes_on(run: Run, tmp_path: Path) -> None:
    words = ["match", "a.safetensors", "b.safetensors", *MODEL, "--out", "x.safetensors"]
    words += ["--method", "annealing", "--data", "tinynet:batches"]
    endless = [sys.executable, "-m", "graphmerge", *words, "--option", f"steps={10**9}"]
    environment = {**os.environ, "PYTHONPATH": f"{Path(gm.__file__).parents[1]}{os.pathsep}{tmp_path}"}
    process = subprocess.Popen(
        endless, cwd=tmp_path, env=environment, stderr=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
    )  # fmt: skip
    assert process.stderr is not None
    seen = next(line for line in process.stderr if "matching: step" in line)
    process.send_signal(signal.SIGINT)
    rest = process.communicate(timeout=60)[1]
    assert process.returncode == 130, seen + rest
    assert "add --start x.partial.safetensors" in rest
    assert not (tmp_path / "x.safetensors").exists()
    reached = read_metadata(tmp_path / "x.partial.safetensors")
    assert not reached["converged"]
    on = run(*words, "--option", "steps=5", "--start", "x.partial.safetensors", "--json")
    assert json.loads(on.stdout)["objective"] >= reached["objective"] - 1e-6
    assert (tmp_path / "x.safetensors").exists()
