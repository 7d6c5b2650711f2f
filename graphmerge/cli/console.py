"""What the command line prints: tables for people, one JSON object for programs, errors by exit code."""

from __future__ import annotations

import resource
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from rich import markup
from rich.console import Console
from rich.table import Table

from graphmerge.errors import GraphMergeError, SystemFault, amount, out_of_memory, refusal
from graphmerge.report import json_text

INTERRUPTED = 130
"""Exit code after Ctrl-C, as shells give it."""

SYSTEM = SystemFault.exit_code

TICK = 2.0

UNLIMITED = 100_000
"""Columns of an output that is no terminal: nothing is cut or folded in a file or a pipe."""


def _console(*, stderr: bool) -> Console:
    stream = sys.stderr if stderr else sys.stdout
    return Console(stderr=stderr, highlight=False, width=None if stream.isatty() else UNLIMITED)


out = _console(stderr=False)
err = _console(stderr=True)


def escape(text: str) -> str:
    """A text for the terminal: no markup, and control characters of hostile names spelled out."""
    plain = (c if c.isprintable() or c == "\n" else repr(c)[1:-1] for c in text)
    return markup.escape("".join(plain))


def examples(*words: str) -> str:
    """What a user could type, for a help text, each on a line that is not broken."""
    head = "Example:" if len(words) == 1 else "Examples:"
    return "\n".join(["\b", head, *(f"  graphmerge {w}" for w in words)])


class Talk:
    """Progress on standard error (unless quiet), results on standard output."""

    def __init__(self, quiet: bool, as_json: bool) -> None:
        self.quiet = quiet or as_json
        self.as_json = as_json
        self._since = self._last = time.perf_counter()

    def say(self, text: str) -> None:
        """One line of progress, with the seconds since the start."""
        if not self.quiet:
            self._last = time.perf_counter()
            err.print(f"[dim]{time.perf_counter() - self._since:6.1f}s[/dim]  {escape(text)}", soft_wrap=True)

    def tick(self, text: str) -> None:
        """The same for what comes many times a second: one line every ``TICK`` seconds at most."""
        if time.perf_counter() - self._last >= TICK:
            self.say(text)

    def result(self, value: Mapping[str, Any], show: Callable[[], None]) -> None:
        """Print a result as JSON, or call ``show`` to print it for people."""
        if self.as_json:
            sys.stdout.write(json_text(value))
        else:
            show()


def table(title: str, columns: Sequence[str], rows: Iterable[Sequence[str]]) -> None:
    """Print a table; columns after the first are numbers and stand to the right."""
    made = Table()
    for k, name in enumerate(columns):
        made.add_column(escape(name), justify="left" if k == 0 else "right", overflow="fold")
    for row in rows:
        made.add_row(*map(escape, row))
    out.print(f"[bold]{escape(title)}[/bold]", soft_wrap=True)
    out.print(made)


def _refuse(text: str) -> None:
    """An error message on standard error, not broken into lines of its own: paths can be copied."""
    err.print(f"[bold red]graphmerge:[/bold red] {escape(text)}", soft_wrap=True)


@contextmanager
def exit_codes(debug: bool) -> Iterator[None]:
    """Turn refusals into a message and their exit code; ``debug`` lets the traceback through."""
    try:
        yield
    except (Exception, KeyboardInterrupt) as error:
        end = _end(error)
        if end is None or (debug and end[0] != INTERRUPTED):
            raise
        code, why = end
        _refuse(why)
        raise SystemExit(code) from error


def _end(error: BaseException) -> tuple[int, str] | None:
    """The exit code and the message for what ended a command; None for a fault of ours."""
    if _interrupted(error):
        told = str(error) if isinstance(error, KeyboardInterrupt) else ""
        return INTERRUPTED, told or "interrupted; nothing was written"
    if isinstance(error, GraphMergeError):
        return error.exit_code, str(error)
    if isinstance(error, OSError):
        return SYSTEM, _system(error)
    if isinstance(error, (MemoryError, RuntimeError)) and out_of_memory(error):
        return SYSTEM, _memory(error)
    return None


def _interrupted(error: BaseException | None) -> bool:
    """Ctrl-C, or what failed on the way out after it (a library that cleans up half a step)."""
    while error is not None and not isinstance(error, KeyboardInterrupt):
        error = error.__cause__ or error.__context__
    return error is not None


def _system(error: OSError) -> str:
    return refusal(
        "The system refused to read or write.",
        expected="files that are there and may be read, and a disk with space",
        seen=str(error),
        means="nothing was written; an earlier output is as it was",
        fix="check that path, its permissions and the free space",
    )


def _memory(error: BaseException) -> str:
    """What was used at the most, and asked for when there was no more."""
    used = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)
    peak = f"a peak of {amount(used)} in this process"
    if torch.cuda.is_available():
        peak += f", of {amount(torch.cuda.max_memory_allocated())} on the GPU"
    return refusal(
        "Out of memory.",
        expected="memory for all models at once; `graphmerge plan` estimates how much",
        seen=f"{peak}, then: {str(error).strip().splitlines()[0][:200] if str(error) else 'MemoryError'}",
        means="nothing was written; an earlier output is as it was",
        fix="try a smaller batch (--input, and that of --data), --no-onnx, or --device cpu",
    )
