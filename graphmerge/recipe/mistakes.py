"""What is wrong in a recipe, said with the key, what is expected, what was seen, and what to do."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from types import UnionType
from typing import Annotated, Any, Union, get_args, get_origin

from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from graphmerge.errors import meant

SHOWN = 120
"""Characters of a value that a message shows."""


def described(error: ValidationError, content: Mapping[str, Any], origin: str, root: type[BaseModel]) -> str:
    """Every mistake, one paragraph each; ``root`` is the model of the whole file."""
    found = error.errors(include_url=False)
    count = "1 mistake" if len(found) == 1 else f"{len(found)} mistakes"
    return "\n".join([f"{origin}: {count}.", *(_one(e, content, root) for e in found)])


def _one(e: ErrorDetails, content: Mapping[str, Any], root: type[BaseModel]) -> str:
    loc = e["loc"]
    where, (part, text) = _key(loc), _place(loc, root)
    match e["type"]:
        case "extra_forbidden":
            word, known = str(loc[-1]), list(part.model_fields)
            fix = f"correct or delete it{meant(word, known) or _below(part, word)}"
            return _lines(f"unknown key {where!r}", ", ".join(known), repr(word), fix)
        case "missing":
            return _lines(f"{where!r} is missing", text, "nothing", "add it")
        case "value_error":
            said = str(e["ctx"]["error"]) if "ctx" in e else e["msg"]
            return f"  {where}: {said}" if where else f"  {said}"
        case _:
            seen = repr(_at(content, loc))[:SHOWN]
            return _lines(f"{where!r} is wrong", e["msg"][0].lower() + e["msg"][1:], seen, text)


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


def _place(loc: Sequence[int | str], root: type[BaseModel]) -> tuple[type[BaseModel], str]:
    """The model at a place of the file, and what the schema says of the last key that it knows there."""
    part, text, named = root, "", False
    for key in loc:
        if named or not isinstance(key, str) or key not in part.model_fields:
            named = False  # a number, or a name that the user chose
            continue
        field = part.model_fields[key]
        text, named = field.description or text, get_origin(field.annotation) is dict
        part = next(_parts(field.annotation), part)
    return part, text


def _below(part: type[BaseModel], word: str) -> str:
    """Whether a key one level down was meant."""
    for key, field in part.model_fields.items():
        inner = [n for model in _parts(field.annotation) for n in model.model_fields]
        if found := meant(word, inner):
            return found.replace("'", f"'{key}.", 1)
    return ""


def _parts(annotation: Any) -> Iterator[type[BaseModel]]:
    """The models within a type."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        yield annotation
    elif get_origin(annotation) in (Union, UnionType, tuple, dict, Annotated):
        for inner in get_args(annotation):
            yield from _parts(inner)
