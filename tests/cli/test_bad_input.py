"""Bad input on the command line: its exit code, its message, and an output left as it was."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from typed import MERGE, MODEL, Run, fingerprint, text


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


def test_row_7_nan_is_copied_but_never_matched_where_that_is_allowed(run: Run, tmp_path: Path) -> None:
    edited(tmp_path, lambda s: s.update({"fc1.weight": torch.full((12, 32), torch.nan)}))
    words = ("merge", "bad.safetensors", "b.safetensors", *MODEL, "--no-onnx")
    result = run(*words, "--allow-nonfinite", "--out", "out")
    assert result.exit_code == 0, text(result)
    assert "hold NaN or infinity: fc1.weight" in text(result)
    bad, b, merged = (
        load_file(tmp_path / p) for p in ("bad.safetensors", "b.safetensors", "out/model.safetensors")
    )
    assert merged["fc1.weight"].isnan().all()
    assert torch.allclose(merged["fc2.weight"], (bad["fc2.weight"] + b["fc2.weight"]) / 2)


BAD_BYTES: dict[str, tuple[bytes, str]] = {
    "row 1: corrupt header": (b"\x10\x00\x00\x00\x00\x00\x00\x00{not json......}", "header"),
    "row 2: absurd header": (b"\xff" * 7 + b"\x7f" + b"{}", "header"),
    "row 4: empty": (b"", "empty"),
    "row 4: not a checkpoint": (b"hello, I am a text file\n" * 4, "header length"),
}


@pytest.mark.parametrize("row", BAD_BYTES)
def test_a_bad_file_is_refused_and_the_output_left_alone(row: str, run: Run, tmp_path: Path) -> None:
    content, fragment = BAD_BYTES[row]
    (tmp_path / "bad.safetensors").write_bytes(content)
    refused_unchanged(run, tmp_path, tmp_path / "bad.safetensors", 3, fragment)


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
    assert load_file(tmp_path / "one" / "model.safetensors")["fc1.weight"].dtype == torch.float16
    assert run(*words, "--dtype", "float32", "--out", "two").exit_code == 0
    merged = load_file(tmp_path / "two" / "model.safetensors")
    assert merged["fc1.weight"].dtype == torch.float32
    assert merged["norm.num_batches_tracked"].dtype == torch.int64


def test_row_38_an_operator_without_a_rule_is_reported_and_strict_exits_4(run: Run) -> None:
    words = ("inspect", "--model", "tinynet:Opaque", "--input", "3x4")
    shown = run(*words)
    assert shown.exit_code == 0
    assert "0 groups" in text(shown)
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
    assert (tmp_path / "aus gabe" / "model.safetensors").exists()


def test_row_48_the_output_may_not_hold_an_input(run: Run, tmp_path: Path) -> None:
    result = run(*MERGE, "--out", tmp_path, "--force")
    assert result.exit_code == 2
    assert (tmp_path / "a.safetensors").exists()


def test_interruption_exits_130_and_leaves_the_output(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupt(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("graphmerge.run.run.merge_traced", interrupt)
    refused_unchanged(run, tmp_path, tmp_path / "b.safetensors", 130, "interrupted")
