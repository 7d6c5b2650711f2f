"""The model card: a README.md beside the merged model."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml


def card(report: Mapping[str, Any]) -> str:
    """What was merged, how, and what came out, in Markdown with the tags that the Hugging Face hub reads."""
    recipe = report["recipe"]
    stages = {s["name"] for s in recipe.get("stages", ())}
    files = [f for s in recipe.get("stages", (recipe,)) for f in s["inputs"] if f["path"] not in stages]
    names = [Path(f["path"]).name for f in files]
    head = yaml.safe_dump({"library_name": "graphmerge", "tags": ["merge"]}, sort_keys=False)
    scored = [r for r in report["rows"] if "loss" in r]
    lines = [
        f"---\n{head}---\n# Merged model\n",
        f"Merged by graphmerge {report['made_with']['graphmerge']} from:\n",
        *(f"- `{_plain(n)}` (SHA-256 `{f['sha256'][:16]}`)" for n, f in zip(names, files, strict=True)),
        f"\nArchitecture: `{_plain(recipe['model'])}`. Kept: {_plain(report['kept'])}.\n",
    ]
    if scored:
        lines += ["| | loss (nats) | accuracy |", "|---|---|---|"]
        lines += [f"| {_plain(r['name'])} | {r['loss']:.4f} | {100 * r['accuracy']:.2f} % |" for r in scored]
    lines += ["\n`recipe.lock.yaml` makes it again: `graphmerge merge recipe.lock.yaml --out NEW`."]
    return "\n".join(lines) + "\n"


def _plain(text: str) -> str:
    """A name that cannot break out of its place in Markdown or HTML."""
    kept = "".join(c if c.isprintable() and c not in "`|<>\\" else "_" for c in str(text))
    return kept[:200]
