"""What a run tells of itself, as plain data."""

from __future__ import annotations

import platform
from collections.abc import Mapping
from importlib.metadata import version
from typing import Any

import torch

from graphmerge.evaluate import BarrierCurve
from graphmerge.pipeline import MergeResult
from graphmerge.run.summary import scores

PACKAGES = ("graphmerge", "torch", "numpy", "scipy", "safetensors")


def versions() -> dict[str, Any]:
    """What the bytes of a result depend on besides the recipe: packages, Python, processor, threads."""
    return {n: version(n) for n in PACKAGES} | {
        "python": platform.python_version(),
        "machine": f"{platform.system()} {platform.machine()}",
        "threads": torch.get_num_threads(),
    }


def of_merge(result: MergeResult) -> dict[str, Any]:
    """What was tried and kept in one merge."""
    return {
        "kept": result.kept.name,
        "matching": result.kept.matching,
        "repair": result.kept.repair,
        "repair_options": dict(result.repair_options),
        "shares": result.shares,
        "options": dict(result.kept_merge.options),
        "notes": dict(result.kept_merge.notes),
        "rows": scores(result),
    }


def report_of(
    echoed: Mapping[str, Any], merges: Mapping[str, MergeResult], drawn: Mapping[str, BarrierCurve]
) -> dict[str, Any]:
    """The report: the recipe with every effective value, the last merge, and the stages before it."""
    *earlier, last = merges
    result = merges[last]
    found = {
        "recipe": dict(echoed),
        "made_with": versions(),
        "groups": len(result.graph.groups),
        "invariance error": result.verification.max_error,
    }
    found |= of_merge(result)
    found |= {"earlier": {name: of_merge(merges[name]) for name in earlier}} if earlier else {}
    return found | ({"barrier": {n: c.to_json() for n, c in drawn.items()}} if drawn else {})


def compared(locked: Mapping[str, Any], now: Mapping[str, Any], files: Mapping[str, str]) -> str:
    """Whether the files have the hashes that a lock tells; where not, what else is another than then."""
    if locked.get("files") == files:
        return "the same bytes as recipe.lock.yaml says"
    other = [f"{n} {locked.get(n)} then, {v} now" for n, v in now.items() if locked.get(n) != v]
    return f"other bytes than recipe.lock.yaml says: {', '.join(other) or 'of the same versions'}"
