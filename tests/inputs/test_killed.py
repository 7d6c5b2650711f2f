"""Runs killed at random moments: the old output is whole, the next run succeeds, nothing is left over.

Whole merges are killed 20 times here, 200 times where GRAPHMERGE_SLOW=1. What decides, the writing of the
output folder, is killed 200 times always. Each run is forked from this process, which has everything
imported: a process from scratch would spend its seconds on that.
"""

from __future__ import annotations

import json
import os
import random
import shutil
import time
from pathlib import Path

import torch
from forked import killed
from typed import MERGE, Run, contents

from graphmerge.cli.app import app
from graphmerge.files import load_checkpoint, save_model, sha256, staged_output

WHOLE_MERGES = 200 if os.environ.get("GRAPHMERGE_SLOW") == "1" else 20
WRITES = 200
SIGKILLED = 137


def leftovers(folder: Path) -> list[str]:
    return [p.name for p in folder.iterdir() if ".graphmerge-" in p.name]


def require_whole(out: Path, old: dict[str, bytes], new: dict[str, bytes]) -> bool:
    """Either all of the old output, byte by byte, or all files of the new one, sound; whether it is that."""
    found = contents(out)
    if found == old:
        return False
    assert found.keys() == new.keys()
    assert found["model.safetensors"] == new["model.safetensors"]
    load_checkpoint(out / "alignment.safetensors")
    assert json.loads(found["report.json"])
    return True


def test_row_22_merges_killed_at_random_moments(run: Run, tmp_path: Path) -> None:
    work = tmp_path / "work"
    words = [*MERGE, "--no-onnx", "--quiet", "--out", "work/out", "--force"]
    assert run(*words).exit_code == 0
    new = contents(work / "out")
    since = time.monotonic()
    assert killed(lambda: app(words), 600) == 0
    seconds = time.monotonic() - since
    restore(work / "out")
    old = contents(work / "out")
    chance, done = random.Random(0), 0
    for trial in range(1, 4 * WHOLE_MERGES):
        code = killed(lambda: app(words), chance.uniform(0, seconds))
        assert code in (0, SIGKILLED)
        done += code == SIGKILLED
        if code == 0:  # it ended before: the first run of all was a slow one
            seconds *= 0.8
        if require_whole(work / "out", old, new) or trial % 10 == 0:
            assert killed(lambda: app(words), 600) == 0  # over what the killed ones have left
            assert require_whole(work / "out", old, new)
            assert leftovers(work) == []
            restore(work / "out")
        if done == WHOLE_MERGES:
            break
    assert done == WHOLE_MERGES


def restore(out: Path) -> None:
    """The folder as it was before the first merge."""
    shutil.rmtree(out)
    out.mkdir()
    (out / "old.txt").write_text("precious")


def write(out: Path, state: dict[str, torch.Tensor]) -> None:
    """An output folder as a merge writes it: a checkpoint in several files, and a text."""
    with staged_output(out, force=True) as folder:
        files = save_model(folder, state, {}, shard_size=200_000)
        (folder / "hashes.txt").write_text("\n".join(map(sha256, files)))


def test_row_22_outputs_killed_while_they_are_written(tmp_path: Path) -> None:
    """After each kill the output is one of the two, whole, and the next run clears up."""
    out, chance = tmp_path / "out", random.Random(1)
    states = [{f"t{k}": torch.full((20_000,), float(s)) for k in range(4)} for s in (0, 1)]
    write(out, states[1])
    written = [contents(out)]
    since = time.monotonic()
    write(out, states[0])
    seconds = time.monotonic() - since
    written.insert(0, contents(out))
    interrupted = kept = 0
    for trial in range(WRITES):
        state, other = trial % 2, 1 - trial % 2
        write(out, states[other])
        assert leftovers(tmp_path) == []
        assert contents(out) == written[other]
        code = killed(lambda s=state: write(out, states[s]), chance.uniform(0, 1.5 * seconds))  # type: ignore[misc]
        seconds *= 0.9 if code == 0 else 1.05  # about two of three runs are killed, however busy the machine
        found = contents(out)
        assert found in written
        kept += found == written[other]
        interrupted += bool(leftovers(tmp_path))
    assert interrupted > WRITES / 4
    assert 0 < kept <= WRITES
    write(out, states[0])
    assert leftovers(tmp_path) == []
