"""Rows of models: the same ones, other ones, and such as cannot be traced, proved or exported."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from nets import Mlp, Tanh
from safetensors.torch import load_file, save_file
from typed import MERGE, MODEL, Pair, Refused, Run, text

import graphmerge as gm
from graphmerge.errors import TraceError


def test_row_25_the_same_bytes_twice(run: Run, refused: Refused, tmp_path: Path) -> None:
    (tmp_path / "twin.safetensors").write_bytes((tmp_path / "a.safetensors").read_bytes())
    words = ("merge", "a.safetensors", "twin.safetensors", *MODEL, "--no-onnx")
    refused(3, *words, says=("a.safetensors", "twin.safetensors", "--allow-duplicate"))
    (tmp_path / "link.safetensors").symlink_to("a.safetensors")
    refused(3, "merge", "a.safetensors", "link.safetensors", *MODEL, says="--allow-duplicate")
    assert run(*words, "--allow-duplicate", "--out", "new").exit_code == 0


def test_row_26_models_that_are_identical_succeed_and_it_is_said(run: Run, tmp_path: Path) -> None:
    state = load_file(tmp_path / "a.safetensors")
    save_file(state, str(tmp_path / "same.safetensors"), {"note": "other bytes, same weights"})
    words = ("merge", "a.safetensors", "same.safetensors", *MODEL, "--data", "tinynet:batches")
    result = run(*words, "--points", 3, "--repair", "none", "--no-onnx", "--out", "out")
    assert result.exit_code == 0, text(result)
    assert "the models are identical" in text(result)
    report = json.loads((tmp_path / "out" / "report.json").read_text())
    assert abs(report["barrier"]["naive"]["loss barrier"]["max above line"]) < 1e-6
    merged = load_file(tmp_path / "out" / "model.safetensors")
    assert all(torch.allclose(merged[n], t) for n, t in state.items() if n.startswith("fc"))


def test_row_27_an_exact_permutation_is_recovered(run: Run, tmp_path: Path) -> None:
    state = load_file(tmp_path / "a.safetensors")
    order = torch.randperm(12)
    moved = {**state, "fc1.weight": state["fc1.weight"][order], "fc1.bias": state["fc1.bias"][order]}
    moved["fc2.weight"] = state["fc2.weight"][:, order].contiguous()
    save_file(moved, str(tmp_path / "copy.safetensors"))
    words = ("merge", "a.safetensors", "copy.safetensors", *MODEL, "--no-onnx", "--out", "out")
    assert run(*words).exit_code == 0
    merged = load_file(tmp_path / "out" / "model.safetensors")
    assert all(torch.allclose(merged[n].float(), t.float(), atol=1e-6) for n, t in state.items())


def test_row_28_other_networks_with_the_same_shapes(run: Run, refused: Refused, tmp_path: Path) -> None:
    """Checkpoints say nothing of their graph: two configs do, and two modules, by the first node."""
    for name, act in (("a", "relu"), ("b", "gelu")):
        (tmp_path / f"{name}1").mkdir()
        (tmp_path / f"{name}.safetensors").rename(tmp_path / f"{name}1" / "model.safetensors")
        (tmp_path / f"{name}1" / "config.json").write_text(json.dumps({"hidden_act": act}))
    refused(4, "merge", "a1", "b1", *MODEL, says=("hidden_act: 'relu'", "'gelu'", "other networks"))
    graph = gm.trace(Mlp(), (torch.randn(2, 4),))
    with pytest.raises(TraceError, match=r"relu.*tanh"):
        graph.require_same(Tanh())
    assert run


def test_row_35_a_model_that_differs_from_run_to_run(pair: Pair, refused: Refused) -> None:
    """No symmetry can be proved on it, which is a gate: exit 1."""
    says = ("other outputs when it is run again", "aten.native_dropout", "switch the randomness off")
    refused(1, *pair("Noisy"), says=says)


def test_row_35_little_noise_widens_the_tolerance_and_is_reported(pair: Pair, run: Run) -> None:
    pair("Hum")
    found = json.loads(run("verify", "--model", "nets:Hum", "--input", "2x4", "--json").stdout)
    assert found["passed"]
    assert 1e-9 < found["noise"] < found["tolerance"] < 1e-4


def test_row_36_training_mode_is_left_alone_and_evaluation_mode_used(run: Run, tmp_path: Path) -> None:
    """Dropout of 0.9 would be noise in training mode. The merged checkpoint knows no mode."""
    import nets

    for k in (0, 1):
        torch.manual_seed(k)
        save_file(nets.in_training().state_dict(), str(tmp_path / f"t{k}.safetensors"))
    words = ("merge", "t0.safetensors", "t1.safetensors", "--model", "nets:in_training", "--input", "2x4")
    quick = ("--data", "nets:batches", "--repair", "none", "--method", "weight", "--points", 0, "--no-onnx")
    for out in ("one", "two"):
        torch.manual_seed(ord(out[0]))
        assert run(*words, *quick, "--out", out).exit_code == 0
    reports = [json.loads((tmp_path / o / "report.json").read_text()) for o in ("one", "two")]
    assert reports[0]["rows"] == reports[1]["rows"]
    model = nets.in_training()
    gm.verify(gm.trace(model, (torch.randn(2, 4),)), model)
    assert model.training
    assert all(m.training for m in model.modules())


def test_row_37_control_flow_on_data_with_the_line(run: Run, refused: Refused, tmp_path: Path) -> None:
    """There are no ``leaf_modules``: an operator of one's own (torch.library) says the same and can have a
    rule. The message names what works without one."""
    import tinynet  # type: ignore[import-not-found]

    assert run
    for k in (0, 1):
        torch.manual_seed(k)
        save_file(tinynet.Branch().state_dict(), str(tmp_path / f"t{k}.safetensors"))
    words = ("merge", "t0.safetensors", "t1.safetensors", "--model", "tinynet:Branch", "--input", "2x4")
    refused(4, *words, says=("Branch", "tinynet.py:", "if x.sum() > 0", "torch.cond", "trace a submodule"))


@pytest.fixture
def opaque(run: Run, tmp_path: Path) -> list[str]:
    """The words of a merge of networks with an operator that nothing is known of."""
    import tinynet

    assert run
    for k in (0, 1):
        torch.manual_seed(k)
        save_file(tinynet.Opaque().state_dict(), str(tmp_path / f"o{k}.safetensors"))
    return ["merge", "o0.safetensors", "o1.safetensors", "--model", "tinynet:Opaque", "--input", "3x4"]


def test_row_38_an_operator_without_a_rule_is_reported_and_strict_refuses_it(
    opaque: list[str], run: Run, refused: Refused
) -> None:
    shown = run("inspect", *opaque[3:])
    assert shown.exit_code == 0
    assert "0 groups" in text(shown)
    assert "tinynet.opaque" in text(shown)
    refused(4, *opaque, "--strict", says="tinynet.opaque")


def test_row_39_an_operator_that_onnx_lacks_keeps_the_merge_and_exits_4(
    opaque: list[str], run: Run, tmp_path: Path
) -> None:
    result = run(*opaque, "--out", "out")
    assert result.exit_code == 4, text(result)
    assert "opaque" in text(result)
    assert (tmp_path / "out" / "model.safetensors").exists()
    assert not (tmp_path / "out" / "merged.onnx").exists()
    assert "error" in json.loads((tmp_path / "out" / "report.json").read_text())["onnx"]
    assert run(*opaque, "--no-onnx", "--out", "new").exit_code == 0


def test_row_42_large_onnx_files_keep_their_weights_beside_them(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The limit of 1.5 GiB is lowered here, in place of writing so much."""
    import onnxruntime

    monkeypatch.setattr("graphmerge.export.onnx.SINGLE_FILE_LIMIT", 100)
    assert run(*MERGE, "--out", "out").exit_code == 0
    assert (tmp_path / "out" / "merged.onnx.data").stat().st_size > 100
    onnxruntime.InferenceSession(str(tmp_path / "out" / "merged.onnx"))
