"""The scores of a merge as rows: endpoints, candidates, ensemble."""

from __future__ import annotations

from string import ascii_lowercase
from typing import Any

from graphmerge.evaluate import Score
from graphmerge.pipeline import MergeResult


def rows(result: MergeResult) -> list[tuple[str, Score | None]]:
    """Endpoints, every candidate, and the ensemble, for the table."""
    ends = [(f"model {letter(k)}", s) for k, s in enumerate(result.endpoints)]
    together = "a and b" if len(ends) == 2 else f"all {len(ends)}"
    top = [(f"ensemble of {together}", result.ensemble)] if result.ensemble else []
    return [*ends, *((c.name, c.score) for c in result.candidates), *top]


def letter(model: int) -> str:
    """What a model is called: a, b, ... z, then by number."""
    return ascii_lowercase[model] if model < len(ascii_lowercase) else str(model + 1)


def scores(result: MergeResult, text: bool = False) -> list[dict[str, Any]]:
    """The same rows as plain data; of ``text`` with perplexities, of candidates with the held-out score."""
    held_out = {c.name: c.held_out for c in result.candidates}
    found = []
    for name, score in rows(result):
        kind = "candidate" if name in held_out else "model" if name.startswith("model ") else "ensemble"
        row: dict[str, Any] = {"name": name, "kind": kind, "kept": name == result.kept.name}
        for into, s in ((row, score), (row.setdefault("held-out", {}), held_out.get(name))):
            into.update(s.to_json() if s else {})
            into.update({"perplexity": s.perplexity} if s and text else {})
        found.append({k: v for k, v in row.items() if v != {}})
    return found
