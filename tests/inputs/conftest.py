"""Merges that must be refused, with the output that they must leave alone."""

from __future__ import annotations

from pathlib import Path

import nets
import pytest
import torch
from safetensors.torch import save_file
from typed import Pair, Refused, Run, contents, text

LITTER = (".graphmerge-part", ".graphmerge-lock")


@pytest.fixture
def refused(run: Run, tmp_path: Path) -> Refused:
    """Run a command that must fail with ``code`` and say all of ``fragments``; what it printed, on one line.

    An output folder ``out`` is there before, and must be the same after, byte by byte and name by name;
    nothing may be left beside it, and no traceback shown.
    """

    def check(code: int, *words: object, says: tuple[str, ...] | str) -> str:
        (tmp_path / "out").mkdir(exist_ok=True)
        (tmp_path / "out" / "old.txt").write_text("precious")
        before = contents(tmp_path / "out")
        result = run(*words, "--out", "out", "--force")
        printed = text(result)
        assert result.exit_code == code, printed
        for fragment in (says,) if isinstance(says, str) else says:
            assert fragment in printed
        assert "Traceback" not in printed
        assert contents(tmp_path / "out") == before
        assert [p.name for p in tmp_path.iterdir() if p.name.endswith(LITTER)] == []
        return printed

    return check


@pytest.fixture
def pair(run: Run, tmp_path: Path) -> Pair:  # noqa: ARG001 - the folder to be in
    """Save two checkpoints of a network of ``nets``; the words of the command that merges them."""

    def make(name: str, shape: str = "2x4") -> list[str]:
        files = []
        for k in (0, 1):
            torch.manual_seed(k)
            state = getattr(nets, name)().state_dict()
            files.append(f"{name}{k}.safetensors")
            save_file({n: t.clone() for n, t in state.items()}, str(tmp_path / files[-1]))
        return ["merge", *files, "--model", f"nets:{name}", "--input", shape, "--no-onnx"]

    return make
