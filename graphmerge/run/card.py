"""The model card: a README.md beside the merged model, which is the short form of the report."""

from __future__ import annotations

import yaml

from graphmerge.report import Document, markdown


def card(document: Document) -> str:
    """The brief sections in Markdown, under the tags that the Hugging Face hub reads."""
    head = yaml.safe_dump({"library_name": "graphmerge", "tags": ["merge"]}, sort_keys=False)
    more = "All of it stands in `report.html` and `report.json`."
    again = "`recipe.lock.yaml` makes it again: `graphmerge merge recipe.lock.yaml --out NEW`."
    return f"---\n{head}---\n{markdown(document)}\n{more}\n\n{again}\n"
