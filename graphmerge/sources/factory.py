"""The object behind ``module:name``, which a user names it by."""

from __future__ import annotations

import ast
import importlib
import re
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from graphmerge.errors import UsageError, meant

FORM = re.compile(r"([\w.]+):([\w.]+)(?:\((.*)\))?", re.DOTALL)
"""``module:name`` or ``module:name(key=literal, ...)``."""


def is_import(text: str) -> bool:
    """Whether a text names an object to import rather than a file."""
    return FORM.fullmatch(text.strip()) is not None


def importable(folder: Path) -> None:
    """Let modules of a folder be imported, before those of others."""
    if str(folder.resolve()) not in sys.path:
        sys.path.insert(0, str(folder.resolve()))


def import_object(spec: str) -> tuple[Callable[..., Any], dict[str, Any]]:
    """The object behind ``module:name`` or ``module:name(key=literal, ...)``, and those arguments."""
    found = FORM.fullmatch(spec.strip())
    if not found:
        raise UsageError(f"{spec!r} is not of the form module:name or module:name(width=2)")
    module_name, path, arguments = found.groups()
    importable(Path.cwd())
    try:
        target: Any = importlib.import_module(module_name)
    except Exception as error:
        why = f"{type(error).__name__}: {error}"
        raise UsageError(f"cannot import {spec!r}: {why}; the current folder is importable") from error
    for part in path.split("."):
        try:
            target = getattr(target, part)
        except AttributeError as error:
            why = f"AttributeError: {error}{meant(part, dir(target))}"
            raise UsageError(f"cannot import {spec!r}: {why}") from error
    return target, _keywords(arguments or "", spec)


def _keywords(text: str, spec: str) -> dict[str, Any]:
    try:
        call = ast.parse(f"f({text})", mode="eval").body
        if not isinstance(call, ast.Call) or not isinstance(call.func, ast.Name):
            raise ValueError("one pair of brackets is expected")
        if call.args or any(k.arg is None for k in call.keywords):
            raise ValueError("only key=literal arguments are read")
        return {str(k.arg): ast.literal_eval(k.value) for k in call.keywords}
    except (SyntaxError, ValueError, TypeError) as error:
        raise UsageError(
            f"the arguments of {spec!r} cannot be read: {error}; write e.g. (width=2)"
        ) from error
