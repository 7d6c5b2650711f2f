"""What a report says, apart from how it looks."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from matplotlib.figure import Figure

from graphmerge.evaluate.measures import MEASURES, Findings, Table


@dataclass(frozen=True)
class Section:
    """One heading with sentences, tables, figures by name, and a text that is shown as it stands.

    ``brief`` sections stand in the short rendering too; ``alarm`` ones are to be seen first.
    """

    title: str
    text: tuple[str, ...] = ()
    tables: tuple[Table, ...] = ()
    figures: Mapping[str, Figure] = field(default_factory=dict)
    code: str = ""
    brief: bool = False
    alarm: bool = False


@dataclass(frozen=True)
class Document:
    """A report: its title, a sentence below it, and its sections in order."""

    title: str
    lead: str
    sections: tuple[Section, ...]


def measured(name: str, found: Findings) -> Section:
    """What a measure found."""
    measure = MEASURES[name]
    text = measure.text[0].upper() + measure.text[1:]
    source = (f"Source: {measure.source}.",) if measure.source else ()
    return Section(f"Measured: {name}", (f"{text}.", *source), found.tables, found.figures)
