"""The paths within a recipe, and how they are read from another place."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from graphmerge.sources import is_import

Move = Callable[[str], str]


def moved(content: Mapping[str, Any], move: Move) -> dict[str, Any]:
    """Plain data of a recipe with every path changed; names of stages and of modules stay."""
    stages = {s["name"] for s in content.get("stages") or ()}

    def path(text: str) -> str:
        return text if text in stages or is_import(text) else move(text)

    def file(value: Any) -> Any:
        return value and {**value, "path": path(value["path"])}

    def part(own: Mapping[str, Any]) -> dict[str, Any]:
        changed: dict[str, Any] = {n: file(own[n]) for n in ("base", "data", "test") if n in own}
        changed |= {n: [file(f) for f in own[n]] for n in ("inputs", "own_data") if n in own}
        changed |= {n: path(own[n]) for n in ("model", "out", "cache") if own.get(n)}
        return {**own, **changed}

    return part(content) | ({"stages": [part(s) for s in content["stages"]]} if stages else {})


def read_from(folder: Path) -> Move:
    """Relative paths are those of ``folder``."""
    return lambda text: os.path.normpath(folder / text)


def relative_to(folder: Path) -> Move:
    """Paths as they are seen from ``folder``."""
    return lambda text: os.path.relpath(text, folder)


def bare(text: str) -> str:
    """The name alone, which says nothing of where it lies."""
    return Path(text).name
