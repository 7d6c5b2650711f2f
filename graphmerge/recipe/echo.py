"""A recipe written out: every effective value, so that it says all and gives the same again."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from graphmerge.recipe.paths import bare, moved, relative_to
from graphmerge.recipe.read import Dumper
from graphmerge.recipe.schema import Recipe, Stage

OWN = set(Stage.model_fields) - {"name"}
"""What a stage may say for itself."""

ELSEWHERE = ("out", "cache", "device", "made_with")
"""Keys that say where a merge ran, not what it gives."""


def echo(recipe: Recipe, hashes: Mapping[str, str] | None = None) -> dict[str, Any]:
    """The recipe as plain data: options at their values, defaults too, files with their SHA-256.

    ``hashes`` are those of files by path.
    """
    found = recipe.model_dump(mode="json", exclude={"stages", "made_with"})
    if recipe.stages:
        found = {n: v for n, v in found.items() if n not in OWN}
        found["stages"] = [{"name": name} | _own(step) for name, step in recipe.steps]
    else:
        found |= _own(recipe)
    plain: dict[str, Any] = _filled(found, hashes or {})
    return plain


def _own(step: Recipe) -> dict[str, Any]:
    found = step.model_dump(mode="json", include=OWN)
    found["match"]["options"] = step.match.all_options
    found["merge"]["options"] = step.merge_options
    return found


def _filled(value: Any, hashes: Mapping[str, str]) -> Any:
    """Plain data with the SHA-256 of every file put in, without keys that hold None."""
    if isinstance(value, list):
        return [_filled(v, hashes) for v in value]
    if not isinstance(value, dict):
        return value
    found = {n: _filled(v, hashes) for n, v in value.items() if v is not None}
    known = hashes.get(found["path"]) if "path" in found else None
    return found | ({"sha256": known} if known else {})


def portable(echoed: Mapping[str, Any]) -> dict[str, Any]:
    """An echo that says nothing of where it ran: files by their names, without device and output."""
    return moved({n: v for n, v in echoed.items() if n not in ELSEWHERE}, bare)


def lock_text(echoed: Mapping[str, Any], made_with: Mapping[str, Any], folder: Path) -> str:
    """The text of a recipe.lock.yaml that stands in ``folder``: paths are relative to it."""
    content = moved({n: v for n, v in echoed.items() if n != "out"}, relative_to(folder))
    text: str = yaml.dump(content | {"made_with": dict(made_with)}, Dumper=Dumper, sort_keys=False)
    return "# Gives model.safetensors again: graphmerge merge recipe.lock.yaml --out NEW\n" + text
