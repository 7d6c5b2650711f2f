"""Pages of the documentation: their blocks, run in order, and what they claim to print."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import redirect_stdout
from dataclasses import dataclass
from io import StringIO
from itertools import zip_longest
from pathlib import Path
from shlex import split
from typing import Any

from typer.testing import CliRunner

from graphmerge.cli.app import app

ROOT = Path(__file__).parents[2]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]

FENCE = re.compile(r"^```(\w+)?(?: (\S+))?\n(.*?)^```$", re.MULTILINE | re.DOTALL)
COMMAND = re.compile(r"^\$ (graphmerge (?:.*\\\n)*.*)\n?", re.MULTILINE)


@dataclass(frozen=True)
class Block:
    """A fenced block: its language, the word after that, its text, and the line that it begins in.

    The word is the name of a file to write the text to, or the exit code that a command has (``exit=3``), or
    ``about``, where numbers may differ from machine to machine.
    """

    language: str
    word: str
    text: str
    line: int


def blocks(page: Path) -> list[Block]:
    """The fenced blocks of a page, those inside comments too."""
    source = page.read_text()
    return [
        Block(m[1] or "", m[2] or "", m[3], source[: m.start(3)].count("\n") + 1)
        for m in FENCE.finditer(source)
    ]


@dataclass(frozen=True)
class Outcome:
    """What a block or command shows and prints; ``about``: numbers may differ."""

    where: str
    shown: str
    printed: str
    about: bool


def run(page: Path) -> Iterator[Outcome]:
    """Run the blocks of a page in the current folder.

    Blocks with a file name are written, other Python blocks run in one namespace; a ``text`` block after
    one is what that printed. Of a ``console`` block each ``$ graphmerge`` is run.
    """
    namespace: dict[str, Any] = {"__name__": page.stem}
    found = blocks(page)
    for block, after in zip_longest(found, found[1:]):
        where = f"{page.name}:{block.line}"
        if "." in block.word:
            Path(block.word).write_text(block.text)
        elif block.language == "python":
            printed = _execute(page, block, namespace)
            answer = after if after and after.language == "text" else Block("text", "", "", 0)
            yield Outcome(where, answer.text, printed, answer.word == "about")
        elif block.language == "console":
            yield from _commands(block, where)


def _execute(page: Path, block: Block, namespace: dict[str, Any]) -> str:
    """What a Python block prints; its tracebacks name the line of the page."""
    padded = "\n" * (block.line - 1) + block.text
    with redirect_stdout(StringIO()) as printed:
        exec(compile(padded, str(page), "exec"), namespace)
    return printed.getvalue()


def _commands(block: Block, where: str) -> Iterator[Outcome]:
    """Each command, what is shown below it, and what it prints: errors where it ends with one."""
    pieces = COMMAND.split(block.text)[1:]
    wanted = int(block.word.removeprefix("exit=")) if block.word.startswith("exit=") else 0
    for command, shown in zip(pieces[::2], pieces[1::2], strict=True):
        result = CliRunner().invoke(app, split(command.replace("\\\n", " "))[1:])
        printed = result.stdout if result.exit_code == 0 else result.stderr
        assert result.exit_code == wanted, f"{where}: {command} ends with {result.exit_code}: {printed}"
        yield Outcome(f"{where}: {command}", shown or "...", printed, block.word == "about")


def fits(shown: str, printed: str, about: bool = False) -> bool:
    """Whether text is what a page shows, where ``...`` stands for anything.

    Rounding errors (1.2e-16) may be of any size; with ``about`` all numbers may.
    """
    pattern = ".*".join(map(re.escape, _plain(shown, about).split("...")))
    return re.fullmatch(pattern, _plain(printed, about), re.DOTALL) is not None


def _plain(text: str, about: bool) -> str:
    """Text without trailing spaces, with ``#`` for numbers that may differ."""
    lines = "\n".join(line.rstrip() for line in text.strip().splitlines())
    without = re.sub(r"\d\.\d+e[+-]\d\d", "#", lines)
    return re.sub(r" *\b\d+(\.\d+)?\b", " #", without) if about else without
