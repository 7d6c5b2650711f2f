"""The short rendering: Markdown, as the model hubs show it."""

from __future__ import annotations

from collections.abc import Iterator

from graphmerge.evaluate.measures import Table
from graphmerge.evaluate.plot import printable
from graphmerge.report.document import Document, Section

_MEANING = "\\`*[]<>&|"
"""Characters that mean something in Markdown or HTML; as entities they are only seen."""


def markdown(document: Document) -> str:
    """The brief sections of a report; whatever names say, they come out as text."""
    lines = [f"# {_plain(document.title)}", "", _plain(document.lead)]
    for section in document.sections:
        if section.brief:
            lines += ["", f"## {_plain(section.title)}", *_body(section)]
    return "\n".join(lines) + "\n"


def _body(section: Section) -> Iterator[str]:
    bullet = "- " if section.alarm else ""
    for text in section.text:
        yield from ("", bullet + _plain(text))
    for table in section.tables:
        yield from ("", *_table(table))


def _table(table: Table) -> Iterator[str]:
    if table.title:
        yield from (f"{_plain(table.title)}:", "")
    yield _row(table.columns)
    yield "|---" + ("|---" if table.words else "|---:") * (len(table.columns) - 1) + "|"
    yield from map(_row, table.rows)


def _row(cells: tuple[str, ...]) -> str:
    return "| " + " | ".join(map(_plain, cells)) + " |"


def _plain(text: str) -> str:
    """One line that cannot break out of its place."""
    line = " ".join(printable(text).split())
    return "".join(f"&#{ord(c)};" if c in _MEANING else c for c in line)
