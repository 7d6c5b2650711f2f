"""Short texts that a user types."""

from __future__ import annotations

from collections.abc import Sequence

from graphmerge.errors import UsageError
from graphmerge.recipe.words import pairs


def parse_place(text: str) -> tuple[str, int]:
    """``fc.weight:1``: a parameter and one of its dimensions."""
    name, _, axis = text.rpartition(":")
    if not name or not axis.isdigit():
        raise UsageError(f"{text!r}: expected PARAMETER:DIM, such as fc.weight:1")
    return name, int(axis)


def parse_options(texts: Sequence[str]) -> dict[str, str]:
    """``density=0.5``: names and values, still as text."""
    try:
        found: dict[str, str] = pairs(texts)
    except ValueError as error:
        raise UsageError(f"--option {error}") from error
    return found
