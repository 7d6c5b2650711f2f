"""Reports for people: one structure of sections, rendered as a web page and as Markdown; data as JSON."""

from graphmerge.report.document import Document, Section, measured
from graphmerge.report.markdown import markdown
from graphmerge.report.page import page
from graphmerge.report.plain import finite, json_text

__all__ = ["Document", "Section", "finite", "json_text", "markdown", "measured", "page"]
