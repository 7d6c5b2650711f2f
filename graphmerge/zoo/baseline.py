"""``baseline.json``: what was measured of a zoo when all was well; only ``zoo update`` writes it."""

from __future__ import annotations

import json
import platform
from collections.abc import Iterator, Mapping
from importlib.metadata import version
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from graphmerge.errors import InputError, refusal
from graphmerge.files import write_text
from graphmerge.zoo.config import Entry
from graphmerge.zoo.format import Content
from graphmerge.zoo.groups import difference
from graphmerge.zoo.judge import JUDGES
from graphmerge.zoo.measure import Facts, Measured

BASELINE_FILE = "baseline.json"
PACKAGES = ("graphmerge", "torch", "onnx", "onnxruntime", "onnxscript", "numpy", "scipy")
NOISY = ("invariance", "time", "memory")
"""What differs from run to run, and is kept as it was while it does not differ by more than the tolerance."""
UNKEPT = ("weights", "onnx")
"""What is judged without a baseline."""

Baseline = dict[str, dict[str, Facts]]
"""Facts by entry and measurement."""


def versions() -> dict[str, str]:
    """What the figures depend on besides the zoo."""
    return {"python": platform.python_version()} | {name: version(name) for name in PACKAGES}


def read_baseline(folder: Path) -> Baseline:
    """The baseline of a zoo; empty where there is none yet. InputError where it is damaged."""
    path = folder / BASELINE_FILE
    if not path.exists():
        return {}
    try:
        text = path.read_text(encoding="utf-8")
        Content.model_validate_json(text)
        models: Baseline = json.loads(text)["models"]
        return models
    except (OSError, ValueError, RecursionError) as error:
        raise InputError(
            refusal(
                f"{str(path)!r} is not a baseline.",
                expected="JSON as `graphmerge zoo update` writes it",
                seen=_first(error),
                means="there is nothing to hold the zoo against",
                fix="restore the file, or delete it and run `graphmerge zoo update`",
            )
        ) from error


def _first(error: Exception) -> str:
    """The first mistake, with its place in the file."""
    if not isinstance(error, ValidationError):
        return f"{type(error).__name__}: {error}"
    first = error.errors(include_url=False)[0]
    place = ".".join(map(str, first["loc"]))
    return f"{place}: {first['msg']}" if place else first["msg"]


def write_baseline(folder: Path, baseline: Baseline) -> None:
    """Put a baseline into the folder of its zoo, and what it was made with."""
    content = {"made_with": versions(), "models": baseline}
    write_text(folder / BASELINE_FILE, json.dumps(content, indent=1, sort_keys=True) + "\n")


def updated(old: Mapping[str, Facts], measured: Measured, entry: Entry) -> dict[str, Facts]:
    """The facts of an entry to write down: those measured; the old ones where all that differs is noise."""

    def noise(what: str, now: Facts) -> bool:
        judged = (JUDGES[what](*pair, entry.tolerances) for pair in ((now, old[what]), (old[what], now)))
        return not any(complaints for _, complaints in judged)

    facts = {what: now for what, now in measured.facts.items() if what not in UNKEPT}
    return facts | {w: old[w] for w in NOISY if w in facts and w in old and noise(w, facts[w])}


def changes(old: Mapping[str, Facts], new: Mapping[str, Facts]) -> list[str]:
    """The difference of two baselines of one entry, a line each."""
    lines = [f"{what}: no longer measured" for what in old if what not in new]
    for what, facts in new.items():
        if what not in old:
            lines.append(f"{what}: new")
        elif what == "groups":
            lines += [f"groups: {line}" for line in difference(old[what], facts)]
        else:
            lines += [f"{what}.{line}" for line in _numbers(old[what], facts)]
    return lines


def _numbers(old: Facts, new: Facts) -> Iterator[str]:
    for name in sorted(old.keys() | new.keys()):
        a, b = old.get(name), new.get(name)
        if a != b:
            yield f"{name}: {_plain(a)} -> {_plain(b)}"


def _plain(value: Any) -> str:
    return "nothing" if value is None else json.dumps(value)
