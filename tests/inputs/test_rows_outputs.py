"""Rows of outputs: full or read-only disks, links, outputs that exist, two runs on one, Ctrl-C, no memory.

The disks are real where this process may mount a tmpfs; tests that need one are skipped elsewhere.
"""

from __future__ import annotations

import os
import resource
import shutil
import signal
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from forked import killed
from typed import MERGE, MODEL, Pair, Refused, Run, contents, text

from graphmerge.cli.app import app, main
from graphmerge.files import staged_output


@contextmanager
def disk(at: Path, size: str) -> Iterator[Path]:
    """A disk of this size."""
    at.mkdir()
    made = subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", at], capture_output=True)
    if made.returncode:
        pytest.skip("a tmpfs cannot be mounted here")
    try:
        yield at
    finally:
        subprocess.run(["umount", at], check=True)


def earlier(folder: Path) -> dict[str, bytes]:
    """An output of an earlier run."""
    (folder / "out").mkdir(exist_ok=True)
    (folder / "out" / "old.txt").write_text("precious")
    return contents(folder)


def without_caches(found: dict[str, bytes]) -> dict[str, bytes]:
    return {n: c for n, c in found.items() if "__pycache__" not in n}


def test_row_21_a_disk_that_is_too_small_is_seen_before_the_start(run: Run, tmp_path: Path) -> None:
    with disk(tmp_path / "disk", "8k") as small:
        before = earlier(small)
        result = run(*MERGE, "--out", small / "out", "--force")
        assert result.exit_code == 5
        assert "Too little disk space" in text(result)
        assert contents(small) == before


@pytest.mark.parametrize("size", ["12k", "28k"])
def test_row_21_a_disk_that_fills_up_while_writing(
    size: str, run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The sizes end the run in different files of the output. What is needed is told wrongly on purpose:
    another program might have taken the space."""
    plenty = shutil.disk_usage(tmp_path)._replace(free=1 << 40)
    with disk(tmp_path / "disk", size) as small:
        before = earlier(small)
        monkeypatch.setattr(shutil, "disk_usage", lambda _: plenty)
        result = run(*MERGE, "--out", small / "out", "--force")
        assert result.exit_code == 5, text(result)
        assert "old" not in text(result) or "as it was" in text(result)
        assert str(small) in text(result) or "No space left" in text(result)
        assert "Traceback" not in text(result)
        assert contents(small) == before


@pytest.mark.parametrize("limit", [10, 3000, 5000])
def test_row_21_a_write_that_fails_anywhere(limit: int, run: Run, tmp_path: Path) -> None:
    """The same where nothing may be mounted: the system refuses files above a size, in a forked process."""
    assert run
    before = earlier(tmp_path)

    def limited() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))
        app([*MERGE, "--out", "out", "--force"])

    assert killed(limited, 300) == 5
    assert without_caches(contents(tmp_path)) == without_caches(before)


def test_row_23_every_file_and_folder_is_on_disk_before_it_gets_its_name(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    synced, real = set[str](), os.fsync

    def watched(descriptor: int) -> None:
        synced.add(Path(f"/proc/self/fd/{descriptor}").readlink().name)
        real(descriptor)

    monkeypatch.setattr(os, "fsync", watched)
    assert run(*MERGE, "--out", "out").exit_code == 0
    written = {p.name for p in (tmp_path / "out").iterdir()}
    assert written | {"new", tmp_path.name} <= synced


def test_row_24_no_memory_exits_5_with_the_peak(pair: Pair, run: Run, refused: Refused) -> None:
    """A network of 2^56 weights, for which there is no memory anywhere. What a merge needs is in its plan."""
    says = ("Out of memory", "a peak of", "iB in this process", "graphmerge plan")
    words = pair("Mlp")
    refused(5, *words[:3], "--model", "nets:greedy", "--input", "2x4", says=says)
    assert "of memory in all" in text(run("plan", *words[1:]))


def test_row_44_links_are_followed_for_inputs_and_never_for_outputs(run: Run, tmp_path: Path) -> None:
    (tmp_path / "blob").write_bytes((tmp_path / "b.safetensors").read_bytes())
    (tmp_path / "link.safetensors").symlink_to("blob")
    assert (
        run("merge", "a.safetensors", "link.safetensors", *MODEL, "--no-onnx", "--out", "new").exit_code == 0
    )
    (tmp_path / "alias").symlink_to(tmp_path / "new")
    before = contents(tmp_path / "new")
    result = run(*MERGE, "--out", "alias", "--force")
    assert result.exit_code == 2
    assert "symbolic link" in text(result)
    assert contents(tmp_path / "new") == before
    (tmp_path / "x.onnx").symlink_to(tmp_path / "precious.onnx")
    (tmp_path / "precious.onnx").write_text("precious")
    words = ("export", *MODEL, "--weights", "a.safetensors", "--out", "x.onnx", "--force")
    assert run(*words).exit_code == 2
    assert (tmp_path / "precious.onnx").read_text() == "precious"


def test_row_47_an_output_that_holds_something(run: Run, tmp_path: Path) -> None:
    before = earlier(tmp_path)
    result = run(*MERGE, "--out", "out")
    assert result.exit_code == 2
    assert "pass --force" in text(result)
    assert contents(tmp_path)["out/old.txt"] == before["out/old.txt"]


def test_row_47_a_read_only_disk(run: Run, tmp_path: Path) -> None:
    with disk(tmp_path / "disk", "1m") as small:
        before = earlier(small)
        subprocess.run(["mount", "-o", "remount,ro", small], check=True)
        result = run(*MERGE, "--out", small / "out", "--force")
        assert result.exit_code == 5, text(result)
        assert "Read-only file system" in text(result)
        assert contents(small) == before


@pytest.mark.parametrize("out", [".", "models", "models/../models", "models/sub/.."])
def test_row_48_the_output_may_not_hold_an_input(out: str, run: Run, tmp_path: Path) -> None:
    (tmp_path / "models" / "sub").mkdir(parents=True)
    (tmp_path / "a.safetensors").rename(tmp_path / "models" / "a.safetensors")
    before = contents(tmp_path)
    words = ("merge", "models/a.safetensors", "b.safetensors", *MODEL, "--out", out, "--force")
    result = run(*words)
    assert result.exit_code == 2
    assert "--force does not change this" in text(result)
    assert contents(tmp_path) == before


def test_row_49_two_runs_on_one_output(run: Run, tmp_path: Path) -> None:
    with staged_output(tmp_path / "out") as first:
        result = run(*MERGE, "--no-onnx", "--out", "out")
        assert result.exit_code == 5
        assert "Another run is writing" in text(result)
        (first / "model.safetensors").write_text("of the first run")
    assert contents(tmp_path / "out") == {"model.safetensors": b"of the first run"}


@pytest.mark.parametrize("share", [0.1, 0.4, 0.8])
def test_row_53_ctrl_c_exits_130_and_leaves_nothing(
    share: float, run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A real signal to a process of its own, after that share of the time of a whole run."""
    assert run
    monkeypatch.setattr("sys.argv", ["graphmerge", *MERGE, "--quiet", "--out", "out", "--force"])
    since, code = time.monotonic(), killed(main, 600)
    after = share * (time.monotonic() - since)
    while code == 0:  # the whole run at first, then those that were faster than it
        shutil.rmtree(tmp_path / "out")
        before = earlier(tmp_path)
        code = killed(main, after, signal.SIGINT)
        after *= 0.8
    assert code == 130
    assert without_caches(contents(tmp_path)) == without_caches(before)
