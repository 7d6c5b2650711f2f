"""The same recipe gives the same bytes in any process, whatever the seed of its hashes and its threads."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

from typed import MERGE, Run, contents

from graphmerge.files import load_checkpoint, read_metadata

WORDS = [*MERGE, "--data", "tinynet:batches", "--points", "3", "--quiet"]
MEASURED = ("seconds", "stages", "log", "hardware", "threads", "out")
"""What tells of the run, not of its result."""


def without_times(value: Any) -> Any:
    if isinstance(value, list):
        return [without_times(v) for v in value]
    if not isinstance(value, dict):
        return value
    return {n: without_times(v) for n, v in value.items() if n not in MEASURED}


def report(folder: Path) -> Any:
    return without_times(json.loads((folder / "report.json").read_text()))


def test_hash_seed_and_threads_change_no_byte(run: Run, tmp_path: Path) -> None:
    """Sums over thousands of numbers may be split by threads, and then round otherwise: not in a network of
    this size. docs/limits.md says so."""
    assert run
    running = []
    for name, seed, threads in (("one", "1", "1"), ("two", "2", "2")):
        own = {"PYTHONHASHSEED": seed, "OMP_NUM_THREADS": threads}
        words = [sys.executable, "-m", "graphmerge", *WORDS, "--out", name]
        running.append(subprocess.Popen(words, env=os.environ | own, cwd=tmp_path))
    assert [p.wait(300) for p in running] == [0, 0]
    one, two = contents(tmp_path / "one"), contents(tmp_path / "two")
    assert one.keys() == two.keys()
    for name in ("model.safetensors", "merged.onnx", "barrier.png", "README.md"):
        assert one.get(name) == two.get(name), name
    assert report(tmp_path / "one") == report(tmp_path / "two")
    for name in (n for n in one if n.startswith("alignment")):
        files = [tmp_path / f / name for f in ("one", "two")]
        first, second = (load_checkpoint(f) for f in files)
        assert all((first[n] == t).all() for n, t in second.items())
        assert without_times(read_metadata(files[0])) == without_times(read_metadata(files[1]))
