"""Short texts that a user types."""

from __future__ import annotations

from collections.abc import Sequence

from graphmerge.errors import UsageError


def parse_place(text: str) -> tuple[str, int]:
    """``fc.weight:1``: a parameter and one of its dimensions."""
    name, _, axis = text.rpartition(":")
    if not name or not axis.isdigit():
        raise UsageError(f"{text!r}: expected PARAMETER:DIM, such as fc.weight:1")
    return name, int(axis)


def parse_options(texts: Sequence[str]) -> dict[str, str]:
    """``density=0.5``: names and values, still as text."""
    found: dict[str, str] = {}
    for text in texts:
        name, equals, value = text.partition("=")
        if not equals or not name or name in found:
            raise UsageError(f"--option {text!r}: expected NAME=VALUE, each name once, such as density=0.5")
        found[name] = value
    return found
