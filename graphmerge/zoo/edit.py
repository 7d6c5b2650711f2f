"""Changes to a zoo.yml that leave the rest of the file as it was: entries added, hashes renewed."""

from __future__ import annotations

import shlex
import subprocess
import sys
import textwrap
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from graphmerge.errors import GraphMergeError, UsageError
from graphmerge.files import load_checkpoint, sha256, write_text
from graphmerge.progress import Progress, silent
from graphmerge.recipe.read import Dumper, parse_yaml
from graphmerge.zoo.config import ZOO_FILE, ZooFolder, read_zoo, zoo_of, zoo_text

NEW = "version: 1\nmodels:\n"
"""A zoo.yml without entries."""


def opened(folder: Path) -> ZooFolder:
    """The zoo in a folder; an empty one where the folder has no zoo.yml yet."""
    empty = folder.is_dir() and not (folder / ZOO_FILE).exists()
    return ZooFolder(folder, {}) if empty else read_zoo(folder)


def add(zoo: ZooFolder, name: str, entry: Mapping[str, Any]) -> None:
    """Append an entry to zoo.yml, with the SHA-256 of its checkpoints; begin the file where there is none.

    Raises InputError where one cannot be read, UsageError where the name is taken, a key is wrong, or
    ``models`` is not the last key of the file, so that nothing can be appended to it.
    """
    path = zoo.folder / ZOO_FILE
    if name in zoo.entries:
        raise UsageError(f"{path} has an entry {name!r} already; choose another name")
    for p in entry.get("inputs", ()):
        load_checkpoint(zoo.folder / p)
    inputs = [{"path": p, "sha256": sha256(zoo.folder / p)} for p in entry.get("inputs", ())]
    content = {name: dict(entry) | ({"inputs": inputs} if inputs else {})}
    zoo_of({"version": 1, "models": content}, path)
    before = zoo_text(path) if path.exists() else NEW
    text = yaml.dump(content, Dumper=Dumper, sort_keys=False, allow_unicode=True, width=110)
    after = before.rstrip("\n") + "\n" + textwrap.indent(text, "  ")
    expected = parse_yaml(before, str(path))
    expected["models"] = dict(expected["models"] or {}) | content
    if _parsed(after) != expected:
        raise UsageError(
            f"{path}: an entry can be appended only where `models` is the last key, indented by two spaces;"
            f" put this there yourself:\n{text}"
        )
    write_text(path, after)


def _parsed(text: str) -> Mapping[str, Any] | None:
    try:
        return parse_yaml(text, "")
    except UsageError:
        return None


def train(zoo: ZooFolder, name: str, progress: Progress = silent) -> list[str]:
    """Run an entry's ``train`` command for each of its checkpoints, then renew their SHA-256 in zoo.yml.

    Gives a line for each checkpoint. Raises UsageError where the entry has no command, GraphMergeError
    where one fails.
    """
    entry = zoo.entries[name]
    if entry.train is None:
        raise UsageError(f"entry {name!r} has no `train`: the command that writes its checkpoints")
    lines = []
    for k, weights in enumerate(entry.inputs):
        path = zoo.path(weights)
        words = [w.replace("{index}", str(k)).replace("{path}", str(path)) for w in _words(entry.train)]
        progress(f"{name}: {shlex.join(words)}")
        if wrong := _run(words) or ("" if path.is_file() else f"{path} was not written"):
            raise GraphMergeError(f"training {name!r} failed: {shlex.join(words)}: {wrong}")
        lines.append(_renew(zoo, weights.sha256, sha256(path), weights.path))
    read_zoo(zoo.folder)
    return lines


def _words(command: str) -> list[str]:
    try:
        return shlex.split(command)
    except ValueError as error:
        raise UsageError(f"`train` {command!r} is no command: {error}") from error


def _run(words: Sequence[str]) -> str:
    """Run a command; what went wrong, if anything."""
    program = sys.executable if words[0] == "python" else words[0]
    try:
        done = subprocess.run([program, *words[1:]], check=False)
    except OSError as error:
        return str(error)
    return f"exit code {done.returncode}" if done.returncode else ""


def _renew(zoo: ZooFolder, old: str | None, new: str, name: str) -> str:
    """Put a new hash in the place of the old one."""
    path = zoo.folder / ZOO_FILE
    text = zoo_text(path)
    if old == new:
        return f"{name}: as before"
    if old is None or text.count(old) != 1:
        return f"{name}: put `sha256: {new}` into {path}"
    write_text(path, text.replace(old, new))
    return f"{name}: new SHA-256 {new}; run `graphmerge zoo update`"
