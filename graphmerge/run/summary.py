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


def scores(result: MergeResult) -> list[dict[str, Any]]:
    """The same rows as plain data."""
    return [
        {"name": n, "loss": s.loss, "accuracy": s.accuracy, "samples": s.samples} if s else {"name": n}
        for n, s in rows(result)
    ]
