"""Progress of anything long: a function that is told, at every step, what is being done."""

from collections.abc import Callable

Progress = Callable[[str], None]
"""Called with one line of text, possibly many times a second; whoever shows it chooses how often."""


def silent(_: str) -> None:
    """Show nothing."""
