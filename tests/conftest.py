"""The command, run in a folder of its own."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from typed import NET, Run
from typer.testing import CliRunner

from graphmerge.cli.app import app


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
