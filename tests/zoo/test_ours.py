"""Our own zoo, the page on CI, and the files that CI reads: they say what is so."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml
from typer.main import get_command

import models_zoo
from graphmerge.cli.zoo import app
from graphmerge.zoo import read_baseline, read_zoo
from graphmerge.zoo.baseline import UNKEPT
from graphmerge.zoo.config import Tolerances, zoo_of
from graphmerge.zoo.judge import JUDGES
from graphmerge.zoo.measure import MEASUREMENTS, names_of
from graphmerge.zoo.subject import Subject

ROOT = Path(__file__).parents[2]
ZOO = read_zoo(Path(models_zoo.__file__).parent)
PAGE = (ROOT / "docs" / "ci.md").read_text(encoding="utf-8")


@pytest.mark.parametrize("name", ZOO.entries)
def test_every_checkpoint_has_its_hash_and_every_check_its_baseline(name: str) -> None:
    entry = ZOO.entries[name]
    assert Subject(ZOO, entry).require_hashes() == len(entry.inputs) > 1
    assert list(read_baseline(ZOO.folder)[name]) == sorted(n for n in names_of(entry) if n not in UNKEPT)


def test_the_baseline_has_no_other_entries() -> None:
    assert read_baseline(ZOO.folder).keys() == ZOO.entries.keys()


def test_every_measurement_is_judged_and_told_of() -> None:
    assert list(MEASUREMENTS) == list(JUDGES)
    table = PAGE.partition("## What is checked")[2].partition("\n## ")[0]
    assert re.findall(r"^\| `(\w+)` \|", table, re.M) == list(JUDGES)


def test_the_example_of_the_page_is_a_zoo_and_its_defaults_are_true() -> None:
    (example,) = re.findall(r"```yaml\n(# zoo/zoo.yml\n.*?)```", PAGE, re.S)
    content = yaml.safe_load(re.sub(r"sha256: \w+\.\.\.", f"sha256: '{'0' * 64}'", example))
    zoo = zoo_of(content, Path("zoo.yml"))
    assert set(names_of(zoo.models["classifier"])) == set(JUDGES)
    told = dict(re.findall(r"`(\w+): ([\d.e-]+)`", PAGE.partition("## What is checked")[2]))
    assert {k: float(v) for k, v in told.items()} == Tolerances().model_dump()


def options(command: str) -> set[str]:
    found: Any = get_command(app)
    return {o for p in found.commands[command].params for o in p.opts}


@pytest.mark.parametrize("path", ["action.yml", ".github/workflows/ci.yml", "Makefile", "docs/ci.md"])
def test_ci_calls_the_command_as_it_is(path: str) -> None:
    text = (ROOT / path).read_text(encoding="utf-8")
    for line in re.findall(r"graphmerge zoo (\w+ .*)", text):
        command, *words = line.partition("#")[0].split()
        flags = {w for w in words if re.fullmatch(r"--?[a-z]+", w)}
        assert flags <= options(command), line


def test_the_action_and_the_workflow_fit_together() -> None:
    action = yaml.safe_load((ROOT / "action.yml").read_text(encoding="utf-8"))
    jobs = yaml.safe_load((ROOT / ".github" / "workflows" / "ci.yml").read_text(encoding="utf-8"))["jobs"]
    assert action["runs"]["using"] == "composite"
    assert all("shell" in step for step in action["runs"]["steps"] if "run" in step)
    (step,) = [s for s in jobs["zoo"]["steps"] if s.get("uses") == "./"]
    assert set(step["with"]) <= set(action["inputs"])
    assert (ROOT / step["with"]["zoo"] / "zoo.yml").is_file()
    (load, save) = [s for s in action["runs"]["steps"] if "actions/cache/" in s.get("uses", "")]
    assert save["if"] == "always()"  # a failure too keeps what passed
    assert load["with"]["key"] == save["with"]["key"]
    assert load["with"]["key"].startswith(load["with"]["restore-keys"])
    used = set(re.findall(r"inputs\.([\w-]+)", str(action["runs"])))
    assert used == set(action["inputs"])


def scripts() -> dict[str, str]:
    """The scripts of the action by the names of their steps."""
    action = yaml.safe_load((ROOT / "action.yml").read_text(encoding="utf-8"))
    return {s["name"]: s["run"] for s in action["runs"]["steps"] if "run" in s}


def ran(script: str, folder: Path, **given: str) -> list[str]:
    """Run a script as GitHub does, with a `graphmerge` and a `python` that note their words."""
    for name in ("graphmerge", "python"):
        (folder / name).write_text(f'#!/bin/bash\nprintf "%s\\n" "$@" > {folder}/words\n')
        (folder / name).chmod(0o755)
    env = {
        "PATH": f"{folder}:/usr/bin:/bin",
        "GITHUB_ACTION_PATH": str(ROOT),
        "GITHUB_OUTPUT": "told",
        **given,
    }
    command = ["bash", "--noprofile", "--norc", "-eo", "pipefail", "-c", script]
    subprocess.run(command, cwd=folder, env=env, check=True)
    return (folder / "words").read_text().splitlines()


HOSTILE = "$(touch bad) `touch bad` ; touch bad"


def test_no_input_is_part_of_a_script(tmp_path: Path) -> None:
    assert [name for name, script in scripts().items() if "${{" in script] == []
    (tmp_path / "vit-1").touch()
    words = ran(scripts()["Check"], tmp_path, ZOO=HOSTILE, ARGS="-k vit*\n" + HOSTILE, SHARD="1/2")
    assert words[7:9] == ["-k", "vit*"]
    assert words[9:-4] == HOSTILE.split()
    assert words[-4:] == ["--shard", "1/2", "--", HOSTILE]
    installed = ran(scripts()["Install"], tmp_path, REQUIREMENTS="-r a.txt\n-e .")
    assert installed[-5:] == [str(ROOT), "-r", "a.txt", "-e", "."]
    assert ran(scripts()["Install"], tmp_path, REQUIREMENTS="")[-1] == str(ROOT)
    assert not (tmp_path / "bad").exists()


@pytest.mark.parametrize(
    ("given", "shard", "name"),
    [("", "", "zoo-report"), ("", "1/3", "zoo-report-1-of-3"), ("mine/1\nx=y", "1/3", "mine_1_x_y")],
)
def test_the_name_of_the_artifact_is_one(given: str, shard: str, name: str, tmp_path: Path) -> None:
    ran(scripts()["Names"], tmp_path, REPORT=given, SHARD=shard, REQUIREMENTS="")
    assert (tmp_path / "told").read_text().splitlines()[0] == f"report={name}"
