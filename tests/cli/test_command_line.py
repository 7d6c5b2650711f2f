"""The command line as a user types it."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnxruntime
import pytest
import torch
from safetensors.torch import load_file, save_file
from typer.testing import CliRunner, Result

from graphmerge.cli.app import app

NET = """
import torch
from torch import nn

class Net(nn.Module):
    def __init__(self, width=8):
        super().__init__()
        self.conv, self.norm = nn.Conv2d(1, width, 3), nn.BatchNorm2d(width)
        self.fc1, self.fc2 = nn.Linear(width * 4, 12), nn.Linear(12, 3)
        self.drop = nn.Dropout(0.5)

    def forward(self, x):
        h = torch.relu(self.norm(self.conv(x)))
        return self.fc2(self.drop(torch.relu(self.fc1(h.flatten(1)))))

@torch.library.custom_op("tinynet::opaque", mutates_args=(), schema="(Tensor x) -> Tensor")
def opaque(x):
    return x + torch.tanh(x)

@opaque.register_fake
def _(x):
    return torch.empty_like(x)

class Opaque(nn.Module):
    def __init__(self):
        super().__init__()
        self.one, self.two = nn.Linear(4, 8), nn.Linear(8, 2)

    def forward(self, x):
        return self.two(opaque(self.one(x)))

class Branch(nn.Module):
    def __init__(self):
        super().__init__()
        self.fc = nn.Linear(4, 2)

    def forward(self, x):
        if x.sum() > 0:
            return self.fc(x)
        return self.fc(-x)

def batches(n=4, size=40):
    torch.manual_seed(0)
    return [(torch.randn(size, 1, 4, 4), torch.randint(0, 3, (size,))) for _ in range(n)]
"""
MODEL = ["--model", "tinynet:Net", "--input", "2x1x4x4"]
MERGE = ["merge", "a.safetensors", "b.safetensors", *MODEL]

Run = Callable[..., Result]


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Run:
    """A folder with a model file and two checkpoints, and the command run in it."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    (tmp_path / "tinynet.py").write_text(NET)
    import tinynet  # type: ignore[import-not-found]

    for name, seed in (("a", 0), ("b", 1)):
        torch.manual_seed(seed)
        save_file(tinynet.Net().state_dict(), str(tmp_path / f"{name}.safetensors"))
    return lambda *words: CliRunner().invoke(app, [str(w) for w in words])


def fingerprint(folder: Path) -> dict[str, str]:
    """Every file of a folder with its hash."""
    return {p.name: hashlib.sha256(p.read_bytes()).hexdigest() for p in sorted(folder.iterdir())}


def text(result: Result) -> str:
    """All that was printed, on one line."""
    return " ".join((result.stdout + result.stderr).split())


def test_inspect_and_explain_show_groups_and_reasons(run: Run) -> None:
    shown = run("inspect", *MODEL)
    assert shown.exit_code == 0
    assert "fc1" in shown.stdout
    found = json.loads(run("inspect", *MODEL, "--json").stdout)
    assert [(g["name"], g["size"]) for g in found["groups"]] == [("conv", 8), ("fc1", 12)]
    assert "conv.bias dimension 0" in text(run("explain", *MODEL, "conv.weight:0"))
    assert "aten.relu" in text(run("explain", *MODEL, "conv.weight:0", "fc1.weight:1"))
    assert "not tied" in text(run("explain", *MODEL, "conv.weight:0", "fc1.weight:0"))
    assert "output" in text(run("explain", *MODEL, "fc2.weight:0"))
    assert run("explain", *MODEL, "nothing.weight:0").exit_code == 2
    assert run("explain", *MODEL, "conv.weight").exit_code == 2
    kept = json.loads(run("inspect", *MODEL, "--json", "--freeze", "fc2.*").stdout)
    assert [g["name"] for g in kept["groups"]] == ["conv"]


def test_verify_reports_every_group(run: Run) -> None:
    found = json.loads(run("verify", *MODEL, "--json").stdout)
    assert found["passed"]
    assert [g["name"] for g in found["groups"]] == ["conv", "fc1"]
    assert all(g["error"] < 1e-9 < g["control"] for g in found["groups"])


def test_merge_does_the_whole_path(run: Run, tmp_path: Path) -> None:
    result = run(*MERGE, "--data", "tinynet:batches", "--points", 3, "--out", "out")
    assert result.exit_code == 0, text(result)
    assert "kept:" in text(result)
    names = {"merged.safetensors", "merged.onnx", "report.json", "barrier.png"}
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
    assert {"merged.safetensors", "merged.onnx", "alignment.safetensors"} <= set(first)
    refused = run(*words)
    assert refused.exit_code == 2
    assert "--force" in text(refused)
    assert fingerprint(tmp_path / "out") == first
    assert run(*words, "--force").exit_code == 0
    assert fingerprint(tmp_path / "out")["merged.safetensors"] == first["merged.safetensors"]


def test_the_onnx_file_is_the_merged_model(run: Run, tmp_path: Path) -> None:
    assert run(*MERGE, "--out", "out", "--quiet").exit_code == 0
    import tinynet

    model = tinynet.Net().eval()
    model.load_state_dict(load_file(tmp_path / "out" / "merged.safetensors"))
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
        merged = load_file(tmp_path / name / "merged.safetensors")
        assert all(torch.allclose(merged[n].float(), t.float(), atol=1e-6) for n, t in state.items())


def test_match_evaluate_and_export(run: Run, tmp_path: Path) -> None:
    assert run("match", "a.safetensors", "b.safetensors", *MODEL, "--out", "al.safetensors").exit_code == 0
    assert run("match", "a.safetensors", "b.safetensors", *MODEL, "--out", "al.safetensors").exit_code == 2
    x, y = (torch.cat(t).numpy() for t in zip(*__import__("tinynet").batches(), strict=True))
    np.savez(tmp_path / "data.npz", inputs=x, targets=y)
    words = ("evaluate", "--model", "tinynet:Net", "--weights", "a.safetensors", "--json", "--data")
    assert json.loads(run(*words, "data.npz").stdout) == pytest.approx(
        json.loads(run(*words, "tinynet:batches").stdout)
    )
    assert run("export", *MODEL, "--weights", "a.safetensors", "--out", "x.onnx").exit_code == 0
    assert (tmp_path / "x.onnx").exists()


def edited(tmp_path: Path, change: Callable[[dict[str, torch.Tensor]], None]) -> Path:
    """A bad copy of checkpoint b."""
    state = load_file(tmp_path / "b.safetensors")
    change(state)
    save_file(state, str(tmp_path / "bad.safetensors"))
    return tmp_path / "bad.safetensors"


BAD_STATES: dict[str, tuple[Callable[[dict[str, torch.Tensor]], object], str]] = {
    "row 7: NaN": (lambda s: s["fc1.weight"].fill_(float("nan")), "fc1.weight"),
    "row 8: shape": (lambda s: s.update({"fc2.weight": torch.ones(4, 12)}), "fc2.weight"),
    "row 9: missing": (lambda s: s.pop("fc2.bias"), "fc2.bias"),
    "row 10: extra": (lambda s: s.update({"ema.decay": torch.ones(1)}), "ema.decay"),
    "row 13: integers": (lambda s: s.update({"fc2.bias": torch.ones(3, dtype=torch.int64)}), "fc2.bias"),
}


@pytest.mark.parametrize("row", BAD_STATES)
def test_a_bad_state_is_refused_and_the_output_left_alone(row: str, run: Run, tmp_path: Path) -> None:
    change, fragment = BAD_STATES[row]
    bad = edited(tmp_path, lambda s: change(s))  # type: ignore[func-returns-value, arg-type, return-value]
    refused_unchanged(run, tmp_path, bad, 3, fragment)


BAD_BYTES: dict[str, tuple[bytes, str]] = {
    "row 1: corrupt header": (b"\x10\x00\x00\x00\x00\x00\x00\x00{not json......}", "header"),
    "row 2: absurd header": (b"\xff" * 7 + b"\x7f" + b"{}", "header"),
    "row 4: empty": (b"", "empty"),
    "row 4: not a checkpoint": (b"hello, I am a text file\n" * 4, "checkpoint"),
}


@pytest.mark.parametrize("row", BAD_BYTES)
def test_a_bad_file_is_refused_and_the_output_left_alone(row: str, run: Run, tmp_path: Path) -> None:
    content, _ = BAD_BYTES[row]
    (tmp_path / "bad.safetensors").write_bytes(content)
    refused_unchanged(run, tmp_path, tmp_path / "bad.safetensors", 3, "bad.safetensors")


def refused_unchanged(run: Run, tmp_path: Path, bad: Path, code: int, fragment: str) -> None:
    """Merging with ``bad`` exits with ``code`` and leaves an existing output as it was."""
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "old.txt").write_text("precious")
    before = fingerprint(tmp_path / "out")
    result = run("merge", "a.safetensors", bad, *MODEL, "--out", "out", "--force")
    assert result.exit_code == code, text(result)
    assert fragment in text(result)
    assert "Traceback" not in text(result)
    assert fingerprint(tmp_path / "out") == before
    assert [p.name for p in tmp_path.iterdir() if "graphmerge" in p.name and p.is_dir()] == []


def test_row_3_a_truncated_file(run: Run, tmp_path: Path) -> None:
    whole = (tmp_path / "b.safetensors").read_bytes()
    (tmp_path / "bad.safetensors").write_bytes(whole[:-20])
    refused_unchanged(run, tmp_path, tmp_path / "bad.safetensors", 3, "bad.safetensors")


def test_row_18_pickled_code_is_not_run(run: Run, tmp_path: Path) -> None:
    class Evil:
        def __reduce__(self) -> tuple[object, ...]:
            return (Path.touch, (tmp_path / "owned",))

    torch.save({"fc1.weight": Evil()}, tmp_path / "bad.pt")
    refused_unchanged(run, tmp_path, tmp_path / "bad.pt", 3, "bad.pt")
    assert not (tmp_path / "owned").exists()


def test_row_25_the_same_bytes_twice(run: Run, tmp_path: Path) -> None:
    (tmp_path / "twin.safetensors").write_bytes((tmp_path / "a.safetensors").read_bytes())
    refused_unchanged(run, tmp_path, tmp_path / "twin.safetensors", 3, "--allow-duplicate")


def test_row_12_half_precision_is_computed_in_float32_and_stored_as_it_came(run: Run, tmp_path: Path) -> None:
    half = {
        n: t.half() if t.is_floating_point() else t for n, t in load_file(tmp_path / "a.safetensors").items()
    }
    save_file(half, str(tmp_path / "half.safetensors"))
    words = ("merge", "half.safetensors", "b.safetensors", *MODEL, "--no-onnx")
    result = run(*words, "--out", "one")
    assert result.exit_code == 0
    assert "torch.float16 as torch.float32" in text(result)
    assert load_file(tmp_path / "one" / "merged.safetensors")["fc1.weight"].dtype == torch.float16
    assert run(*words, "--dtype", "float32", "--out", "two").exit_code == 0
    merged = load_file(tmp_path / "two" / "merged.safetensors")
    assert merged["fc1.weight"].dtype == torch.float32
    assert merged["norm.num_batches_tracked"].dtype == torch.int64


def test_json_is_one_object_and_nothing_else(run: Run) -> None:
    result = run(*MERGE, "--data", "tinynet:batches", "--points", 3, "--out", "out", "--json")
    assert json.loads(result.stdout)["rows"]
    assert result.stderr == ""


def test_row_38_an_operator_without_a_rule_is_reported_and_strict_exits_4(run: Run) -> None:
    words = ("inspect", "--model", "tinynet:Opaque", "--input", "3x4")
    shown = run(*words)
    assert shown.exit_code == 0
    assert "0 symmetry groups" in text(shown)
    assert "tinynet.opaque" in text(shown)
    refused = run(*words, "--strict")
    assert refused.exit_code == 4
    assert "tinynet.opaque" in text(refused)


def test_row_37_control_flow_on_data_exits_4_with_the_line(run: Run) -> None:
    result = run("inspect", "--model", "tinynet:Branch", "--input", "2x4")
    assert result.exit_code == 4
    assert "if x.sum() > 0" in text(result)


def test_row_46_unicode_and_spaces_in_paths(run: Run, tmp_path: Path) -> None:
    (tmp_path / "b.safetensors").rename(tmp_path / "größe zwei.safetensors")
    two = "größe zwei.safetensors"
    words = ("merge", "a.safetensors", two, *MODEL, "--quiet", "--no-onnx", "--out", "aus gabe")
    assert run(*words).exit_code == 0
    assert (tmp_path / "aus gabe" / "merged.safetensors").exists()


def test_row_48_the_output_may_not_hold_an_input(run: Run, tmp_path: Path) -> None:
    result = run(*MERGE, "--out", tmp_path, "--force")
    assert result.exit_code == 2
    assert (tmp_path / "a.safetensors").exists()


def test_interruption_exits_130_and_leaves_the_output(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupt(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("graphmerge.cli.merging.merge_models", interrupt)
    refused_unchanged(run, tmp_path, tmp_path / "b.safetensors", 130, "interrupted")


@pytest.mark.parametrize(
    ("words", "fragment"),
    [
        (("inspect", "--model", "nothing:here", "--input", "2x4"), "cannot import"),
        (("inspect", "--model", "tinynet", "--input", "2x4"), "module:name"),
        (("inspect", "--model", "tinynet:Net", "--input", "2xmany"), "SHAPE"),
        (("inspect", "--model", "tinynet:Net(width=oops)", "--input", "2x1x4x4"), "width"),
        (("inspect", "--model", "tinynet:Net(depth=3)", "--input", "2x1x4x4"), "TypeError"),
        (("inspect", *MODEL, "--device", "tpu"), "auto, cpu, cuda"),
        (("match", *MERGE[1:], "--out", "o", "--method", "activation"), "--data"),
        ((*MERGE, "--out", "o", "--dtype", "int64"), "floating"),
        ((*MERGE, "--out", "o", "--points", "1"), "at least 2"),
        ((*MERGE, "--out", "o", "--method", "magic"), "auto, weight, activation"),
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
