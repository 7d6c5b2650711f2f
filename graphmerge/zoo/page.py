"""The checks of a zoo as one HTML page that needs nothing else: what failed first, then every entry."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import groupby

from graphmerge.evaluate.measures import Table
from graphmerge.report import Document, Section
from graphmerge.report import page as rendered
from graphmerge.zoo.judge import Check

COLUMNS = ("check", "outcome", "measured", "seconds")


def page(title: str, checks: Sequence[Check], counts: str) -> str:
    """The page; whatever names the zoo holds, they come out as text."""
    failed = [
        Section(f"{c.entry}: {c.name}", (_parted(c.text), *c.details), alarm=True)
        for c in checks
        if c.outcome == "FAIL"
    ]
    entries = [
        Section(entry, tables=(Table("", COLUMNS, tuple(map(_row, group)), words=True),))
        for entry, group in groupby(checks, lambda c: c.entry)
    ]
    return rendered(Document(title, f"{counts}.", (*failed, *entries)))


def _row(c: Check) -> tuple[str, ...]:
    return c.name, c.outcome, _parted(c.text), f"{c.seconds:.2f}"


def _parted(text: str) -> str:
    """The parts of a line with more than space between them, which a page would not show."""
    return " · ".join(text.split("  "))
