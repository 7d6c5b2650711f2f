"""What a run tells of itself, as plain data: all that its page and its card show stands in it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from graphmerge.evaluate import BarrierCurve
from graphmerge.evaluate.measures import Findings
from graphmerge.losses import CROSS_ENTROPY
from graphmerge.pipeline import MergeResult, Supply
from graphmerge.run.facts import alignments, choice, is_text, reductions, symmetry
from graphmerge.run.machine import hardware, versions
from graphmerge.run.summary import scores
from graphmerge.trace.run import left_out


def of_merge(result: MergeResult, supply: Supply) -> dict[str, Any]:
    """What was tried and kept in one merge."""
    return {
        "kept": result.kept.name,
        "matching": result.kept.matching,
        "repair": result.kept.repair,
        "repair_options": dict(result.repair_options),
        "repair_notes": dict(result.kept.notes),
        "choice": choice(result),
        "shares": result.shares,
        "options": dict(result.kept_merge.options),
        "notes": dict(result.kept_merge.notes),
        "loss": result.loss.name,
        "unit": result.loss.unit,
        "batches": {"all": len(supply.data or ()), "left out": left_out(supply.data or ())},
        "measured on": "test data" if supply.test else "held-out data",
        "rows": scores(result, result.loss is CROSS_ENTROPY and is_text(supply.test or supply.data)),
        "alignments": alignments(result),
    }


def report_of(
    echoed: Mapping[str, Any],
    earlier: Mapping[str, Mapping[str, Any]],
    result: MergeResult,
    supply: Supply,
    drawn: Mapping[str, BarrierCurve],
    measured: Mapping[str, Findings],
) -> dict[str, Any]:
    """The report: the recipe with every effective value, the last merge, and what ``of_merge`` told of those
    before it."""
    found = {
        "recipe": dict(echoed),
        "made_with": versions(),
        "hardware": hardware(echoed["device"]),
        "groups": len(result.graph.groups),
        "invariance error": result.verification.max_error,
        "symmetry": symmetry(result),
        "measures": {n: _measured(f) for n, f in measured.items()},
    }
    found |= of_merge(result, supply)
    found |= {"earlier": dict(earlier)} if earlier else {}
    if drawn:
        found["barrier"] = {n: c.to_json() for n, c in drawn.items()}
        found["barrier reduction"] = reductions(drawn)
    return found


def _measured(found: Findings) -> dict[str, Any]:
    tables = [{"title": t.title, "columns": t.columns, "rows": t.rows} for t in found.tables]
    return {"data": found.data, "tables": tables}


def compared(locked: Mapping[str, Any], now: Mapping[str, Any], files: Mapping[str, str]) -> str:
    """Whether the files have the hashes that a lock tells; where not, what else is another than then."""
    if locked.get("files") == files:
        return "the same bytes as recipe.lock.yaml says"
    other = [f"{n} {locked.get(n)} then, {v} now" for n, v in now.items() if locked.get(n) != v]
    return f"other bytes than recipe.lock.yaml says: {', '.join(other) or 'of the same versions'}"
