"""Every refusal of graphmerge, with the exit code that the command line gives it, and its shape."""

from collections.abc import Collection, Iterable
from difflib import get_close_matches

SHOWN = 5
"""How many names a message lists before it counts the rest."""


class GraphMergeError(Exception):
    """A refusal: what, where, what was expected and seen, what it means, what to do."""

    exit_code = 1


class GateError(GraphMergeError):
    """A gate failed: verification, parity of an export, or a regression."""

    exit_code = 1


class UsageError(GraphMergeError):
    """The call itself is wrong: an option, a recipe, or an output in the way."""

    exit_code = 2


class InputError(GraphMergeError):
    """An input file or the data given is bad."""

    exit_code = 3


class TraceError(GraphMergeError):
    """The model cannot be traced, or two models do not share one graph."""

    exit_code = 4


class SystemFault(GraphMergeError):
    """The system failed: no space, no permission, no memory."""

    exit_code = 5


def out_of_memory(error: BaseException) -> bool:
    """Whether an error says that there is no more memory, as Python, torch's CPU and its GPUs say it."""
    text = str(error)
    return isinstance(error, MemoryError) or "can't allocate memory" in text or "out of memory" in text


def refusal(what: str, *, expected: str, seen: str, means: str, fix: str) -> str:
    """Lay out one refusal; ``what`` names the file or tensor at fault."""
    return f"{what}\n  Expected: {expected}\n  Seen: {seen}\n  Meaning: {means}\n  To do: {fix}"


def listing(names: Iterable[str]) -> str:
    """Name the first few, count the rest; control characters of hostile names come out escaped.

    >>> listing(["a", "b"])
    "'a', 'b'"
    """
    quoted = [repr(name) for name in names]
    rest = len(quoted) - SHOWN
    return ", ".join(quoted[:SHOWN]) + (f" and {rest} more" if rest > 0 else "")


def amount(count: int) -> str:
    """A byte count for people, exact when small.

    >>> amount(12), amount(3 << 30)
    ('12 bytes', '3.0 GiB')
    """
    if count < 1 << 20:
        return f"{count} bytes"
    return f"{count / (1 << 20):.1f} MiB" if count < 1 << 30 else f"{count / (1 << 30):.1f} GiB"


def meant(word: str, known: Collection[str]) -> str:
    """A question to end a message with, where a known word is close to the one given.

    >>> meant("dare_ties", ["dare", "dare-ties"])
    "; did you mean 'dare-ties'?"
    """
    alike = {w.replace("_", "-").lower(): w for w in known}
    close = get_close_matches(word.replace("_", "-").lower(), alike, 1)
    return f"; did you mean {alike[close[0]]!r}?" if close else ""
