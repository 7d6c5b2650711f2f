"""The shape of every refusal of this stage: what, expected, seen, what it means, what to do."""

from __future__ import annotations

from collections.abc import Iterable

SHOWN = 5
"""How many names a message lists before it counts the rest."""


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
