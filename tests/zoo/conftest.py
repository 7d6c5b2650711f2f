"""A toy zoo with its baseline, and the command run on it."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
import toy
from toy import Zoo
from typer.testing import CliRunner

from graphmerge.cli.app import app


@pytest.fixture(scope="session")
def measured(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of the toy zoo with a baseline; not to be changed."""
    folder = tmp_path_factory.mktemp("zoo")
    toy.make(folder)
    done = CliRunner().invoke(app, ["zoo", "update", str(folder), "--quiet"])
    assert done.exit_code == 0, done.output
    return folder


@pytest.fixture
def folder(measured: Path, tmp_path: Path) -> Path:
    """A copy of the toy zoo."""
    return Path(shutil.copytree(measured, tmp_path / "zoo"))


@pytest.fixture
def zoo(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Zoo:
    """`graphmerge zoo ...`, run in an empty folder."""
    monkeypatch.chdir(tmp_path)
    return lambda *words: CliRunner().invoke(app, ["zoo", *map(str, words)])
