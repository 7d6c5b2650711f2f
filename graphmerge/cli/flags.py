"""Flags of the command line that are the keys of a recipe: made from its schema, so that they agree."""

from __future__ import annotations

import inspect
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal, get_args, get_origin

import typer
from pydantic import BaseModel, BeforeValidator
from pydantic.fields import FieldInfo

from graphmerge.cli.shared import replacing
from graphmerge.errors import UsageError
from graphmerge.recipe import Recipe, read_recipe, recipe_from
from graphmerge.recipe.parts import Match, Merge, Repair
from graphmerge.recipe.read import SUFFIXES

NOT_FLAGS = ("version", "inputs", "stages", "made_with")
"""Keys that a file alone has, or that are arguments."""

PARTS: dict[str, type[BaseModel]] = {"match": Match, "merge": Merge, "repair": Repair}

Values = Mapping[str, Any]

Paths = Annotated[
    list[str],
    typer.Argument(metavar="RECIPE.yaml | A B...", help="A recipe, or checkpoints to merge."),
]


@dataclass(frozen=True)
class Flag:
    """A key of a recipe as a flag: its place, its names, the type that the command line reads."""

    place: tuple[str, ...]
    info: FieldInfo
    text: str

    @property
    def name(self) -> str:
        """The name of the parameter in Python."""
        return "_".join(self.place)

    @property
    def names(self) -> list[str]:
        """What a user may type; the key's own words come first."""
        more = self.info.json_schema_extra
        word = "--" + "-".join(p.replace("_", "-") for p in self.place)
        extra = more.get("flags", ()) if isinstance(more, dict) else ()
        own = f"{word}/--no-{word[2:]}" if self.read_as is bool else word
        return [own, *(str(f) for f in extra)]  # type: ignore[union-attr]

    @property
    def read_as(self) -> Any:
        """bool, int, str, or a list of texts."""
        annotation = self.info.annotation
        read = any(isinstance(m, BeforeValidator) for m in self.info.metadata)
        if get_origin(annotation) in (tuple, dict) and self.place[-1] != "weights":
            return list[str]
        return annotation if annotation in (bool, int) and not read else str

    @property
    def choices(self) -> list[str]:
        """The words that a shell may complete."""
        whole = len(self.place) == 1 and self.place[0] in PARTS
        field = PARTS[self.place[0]].model_fields["method"] if whole else self.info
        if get_origin(field.annotation) is Literal:
            return [str(w) for w in get_args(field.annotation)]
        said: Any = field.json_schema_extra
        return list(said.get("enum", ())) if isinstance(said, dict) else []

    def parameter(self) -> inspect.Parameter:
        """The flag as typer reads it."""
        default = self.info.get_default(call_default_factory=True)
        if isinstance(default, BaseModel):
            default = next(iter(default.model_dump().values()))
        said = isinstance(default, str | int) and default is not False
        shown = f"  [default: {default}]" if said else ""
        words = self.choices
        option = typer.Option(
            *self.names, help=self.text + shown, show_default=False,
            metavar="<str>" if self.read_as == list[str] else None,
            autocompletion=(lambda: words) if words else None,
        )  # fmt: skip
        kind = inspect.Parameter.POSITIONAL_OR_KEYWORD
        annotation: Any = self.read_as | None
        return inspect.Parameter(self.name, kind, default=None, annotation=Annotated[annotation, option])


def recipe_flags() -> Iterator[Flag]:
    """Every flag, in the order of the schema."""
    for key, info in Recipe.model_fields.items():
        if key in NOT_FLAGS:
            continue
        yield Flag((key,), info, info.description or "")
        for inner, field in list(PARTS[key].model_fields.items())[1:] if key in PARTS else ():
            yield Flag((key, inner), field, f"{field.description}")


FLAGS = tuple(recipe_flags())


def typed_keys(values: Mapping[tuple[str, ...], Any]) -> dict[str, Any]:
    """Plain data of a recipe with the flags that were typed."""
    given: dict[str, Any] = {}
    for place, value in values.items():
        if value is None or value == []:
            continue
        if place[0] in PARTS:
            part = given.setdefault(place[0], {})
            part[place[1] if len(place) > 1 else "method"] = value
        else:
            given[place[0]] = value
    return given


with_recipe = replacing(
    "given",
    {f.name: f.parameter() for f in FLAGS},
    lambda typed: typed_keys({f.place: typed[f.name] for f in FLAGS}),
)
"""Give ``command(paths, given, ...)`` the flags of a recipe; those that were typed are ``given``."""


def recipe_of(paths: Sequence[str], given: Values) -> Recipe:
    """The recipe that a user means: a YAML file, with flags put over it, or checkpoints and flags."""
    if Path(paths[0]).suffix not in SUFFIXES:
        return recipe_from({**given, "inputs": list(paths)}, "the command line")
    if len(paths) > 1:
        raise UsageError(f"{paths[0]} is a recipe, which names its inputs; leave out {paths[1]}")
    return read_recipe(paths[0], given)
