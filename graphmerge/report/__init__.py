"""Reports for people: one structure of sections, rendered as a web page and as Markdown; data as JSON."""

from graphmerge.report.data import finite, json_text
from graphmerge.report.document import Document, Section, measured
from graphmerge.report.markdown import markdown
from graphmerge.report.page import page

__all__ = ["Document", "Section", "finite", "json_text", "markdown", "measured", "page"]
