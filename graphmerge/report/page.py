"""The full rendering: one HTML file that needs nothing else, for a screen or for paper."""

from __future__ import annotations

import re
from functools import cache
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined, Template
from markupsafe import Markup
from matplotlib.figure import Figure

from graphmerge.evaluate.plot import printable, svg
from graphmerge.report.document import Document

LONG = 32
"""Tables of more rows are folded until they are wanted; on paper they are open."""


def page(document: Document) -> str:
    """The whole report; the same report gives the same text. Names of others come out as text only."""
    return _template().render(document=document, long=LONG)


@cache
def _template() -> Template:
    environment = Environment(
        loader=PackageLoader("graphmerge.report", "."),
        autoescape=True,
        undefined=StrictUndefined,
        finalize=_shown,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    environment.filters["inline"] = inline
    return environment.get_template("page.html")


def _shown(value: Any) -> Any:
    return value if isinstance(value, Markup) else printable(str(value))


def inline(figure: Figure, prefix: str) -> Markup:
    """A figure as an SVG element whose ids begin with ``prefix``: figures of a page do not get mixed up."""
    text = re.sub(r"<metadata>.*?</metadata>\s*", "", svg(figure), flags=re.DOTALL)
    text = re.sub(r'( id="|href="#|url\(#)', rf"\g<1>{prefix}-", text)
    return Markup(text)
