"""Short texts that stand for values."""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from typing import Any

from graphmerge.errors import UsageError, meant
from graphmerge.losses import require_name
from graphmerge.sources import is_import, parse_input

UNITS = {"": 1, "KB": 10**3, "MB": 10**6, "GB": 10**9, "TB": 10**12}


def choice(what: str, word: str, known: Collection[str]) -> None:
    """ValueError unless ``word`` is a known one."""
    if word not in known:
        raise ValueError(f"unknown {what} {word!r}; there are: {', '.join(known)}{meant(word, known)}")


def pairs(given: Any) -> Any:
    """``["density=0.5"]`` as a mapping; anything else as it is."""
    if not isinstance(given, list | tuple):
        return given
    found: dict[str, str] = {}
    for text in given:
        name, equals, value = str(text).partition("=")
        if not equals or not name or name in found:
            raise ValueError(f"{text!r}: expected NAME=VALUE, each name once, such as density=0.5")
        found[name] = value
    return found


def numbers(given: Any) -> Any:
    """``0.3,0.7`` as numbers; anything else as it is."""
    if not isinstance(given, str):
        return given
    try:
        return tuple(float(w) for w in given.split(","))
    except ValueError as error:
        raise ValueError(f"{given!r}: expected W,W,... such as 0.3,0.7") from error


def examples(given: Any) -> Any:
    """Example inputs as texts ``[name=]SHAPE[:dtype]``.

    A mapping of names to ``{shape: [batch, 3, 32, 32], dtype: float32}`` says the same; ``batch`` is 2.
    """
    if isinstance(given, str):
        return (given,)
    if not isinstance(given, Mapping):
        return given
    found = []
    for name, value in given.items():
        if not isinstance(value, Mapping) or not {"shape"} <= value.keys() <= {"shape", "dtype"}:
            raise ValueError(f"{name}: expected {{shape: [2, 3, 32, 32], dtype: float32}}")
        shape = "x".join("2" if n == "batch" else str(n) for n in value["shape"])
        found.append(f"{name}={shape}" + (f":{value['dtype']}" if "dtype" in value else ""))
    return tuple(found)


def example(text: str) -> str:
    """The text, if it is one of an example input."""
    try:
        parse_input(text)
    except UsageError as error:
        raise ValueError(str(error)) from error
    return text


def loss_named(given: Any) -> Any:
    """The name of a loss, if there is one of that name; ``module:function`` is looked up when it is run."""
    if isinstance(given, str) and not is_import(given):
        try:
            require_name(given)
        except UsageError as error:
            raise ValueError(str(error)) from error
    return given


def size(given: Any) -> Any:
    """``5GB`` or ``300MB`` in bytes; a number is one of bytes."""
    found = re.fullmatch(r"(\d+(?:\.\d+)?)([KMGT]B)?", str(given).strip().upper())
    if not found:
        raise ValueError(f"{given!r}: expected a size such as 5GB, 300MB or a number of bytes")
    return round(float(found[1]) * UNITS[found[2] or ""])
