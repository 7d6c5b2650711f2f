"""What is wrong in a recipe, said with the key, what is expected, what was seen, and what to do."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from types import UnionType
from typing import Annotated, Any, Union, get_args, get_origin

from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from graphmerge.errors import meant
from graphmerge.recipe.schema import Recipe

SHOWN = 120
"""Characters of a value that a message shows."""


def described(error: ValidationError, content: Mapping[str, Any], origin: str) -> str:
    """Every mistake, one paragraph each."""
    found = error.errors(include_url=False)
    count = "1 mistake" if len(found) == 1 else f"{len(found)} mistakes"
    return "\n".join([f"{origin}: {count}.", *(_one(e, content) for e in found)])


def _one(e: ErrorDetails, content: Mapping[str, Any]) -> str:
    where = _key(e["loc"])
    seen = repr(_at(content, e["loc"]))[:SHOWN]
    match e["type"]:
        case "extra_forbidden":
            word, known = str(e["loc"][-1]), _fields(e["loc"][:-1])
            fix = f"correct or delete it{meant(word, known) or _below(e['loc'][:-1], known, word)}"
            return _lines(f"unknown key {where!r}", ", ".join(known), repr(word), fix)
        case "missing":
            flag = where.replace("_", "-")
            return _lines(f"{where!r} is missing", _text(e["loc"]), "nothing", f"add it (--{flag})")
        case "value_error":
            text = str(e["ctx"]["error"]) if "ctx" in e else e["msg"]
            return f"  {where}: {text}" if where else f"  {text}"
        case _:
            return _lines(f"{where!r} is wrong", e["msg"][0].lower() + e["msg"][1:], seen, _text(e["loc"]))


def _lines(what: str, expected: str, seen: str, fix: str) -> str:
    return f"  {what}\n    Expected: {expected}\n    Seen: {seen}\n    To do: {fix}"


def _key(loc: Sequence[int | str]) -> str:
    """``stages[1].merge.method``."""
    return "".join(f"[{k}]" if isinstance(k, int) else f".{k}" for k in loc).removeprefix(".")


def _at(content: Any, loc: Sequence[int | str]) -> Any:
    for key in loc:
        try:
            content = content[key]
        except (KeyError, IndexError, TypeError):
            return content
    return content


def _fields(loc: Sequence[int | str]) -> list[str]:
    """The known keys at a place of the recipe."""
    part: type[BaseModel] = Recipe
    for key in loc:
        if isinstance(key, str) and key in part.model_fields:
            part = next(_parts(part.model_fields[key].annotation), part)
    return list(part.model_fields)


def _below(loc: Sequence[int | str], known: Sequence[str], word: str) -> str:
    """The same question for keys one level down."""
    for key in known:
        inner = _fields([*loc, key])
        if inner != known and (found := meant(word, inner)):
            return found.replace("'", f"'{key}.", 1)
    return ""


def _parts(annotation: Any) -> Iterator[type[BaseModel]]:
    """The models within a type."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        yield annotation
    elif get_origin(annotation) in (Union, UnionType, tuple, Annotated):
        for inner in get_args(annotation):
            yield from _parts(inner)


def _text(loc: Sequence[int | str]) -> str:
    """What the schema says of a key."""
    part: type[BaseModel] = Recipe
    text = ""
    for key in loc:
        if isinstance(key, str) and key in part.model_fields:
            text = part.model_fields[key].description or text
            part = next(_parts(part.model_fields[key].annotation), part)
    return text
