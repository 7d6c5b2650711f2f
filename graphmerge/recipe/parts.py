"""The parts of a recipe that say how to merge: match, merge, repair, rules.

Every part can be written short, as a text, in a file and on the command line alike.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from string import ascii_lowercase
from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, StrictInt, model_validator

from graphmerge.errors import UsageError
from graphmerge.match import METHODS as MATCHING
from graphmerge.match import WAYS
from graphmerge.match.many import described_ways, fitting_methods, way_settings
from graphmerge.merge import METHODS as MERGING
from graphmerge.options import Option, Value, read_options
from graphmerge.recipe.words import choice, numbers, pairs
from graphmerge.repair import CHOICES, require_repair
from graphmerge.repair import METHODS as REPAIRING

AUTO = ("weight", "activation")
"""The ways of matching that ``auto`` tries; those that need data only where there are data."""

Options = Annotated[dict[str, bool | int | float | str | None], BeforeValidator(pairs)]


class Part(BaseModel):
    """A mapping with known keys; frozen."""

    model_config = ConfigDict(extra="forbid", frozen=True, hide_input_in_errors=True)

    @model_validator(mode="before")
    @classmethod
    def _short(cls, given: Any) -> Any:
        """A text alone is the value of the first key: ``merge: ties`` is ``merge: {method: ties}``."""
        return {next(iter(cls.model_fields)): given} if isinstance(given, str) else given


class Match(Part):
    """How the models after the first are brought into its frame."""

    method: str = Field(
        "auto",
        description="auto (weight, and activation where there are data), none, or a method of matching.",
        json_schema_extra={"enum": ["auto", "none", *MATCHING]},
    )
    options: Options = Field({}, description="Options of the matching, e.g. restarts=3; repeats.")
    many: str = Field(
        "reference",
        description=f"How three models or more are matched. {described_ways()}.",
        json_schema_extra={"enum": list(WAYS), "flags": ["--many"]},
    )

    @property
    def tried(self) -> tuple[str, ...]:
        """The methods of matching to try."""
        return fitting_methods(self.many, {"auto": AUTO, "none": ()}.get(self.method, (self.method,)))

    def lacking(self, data: object) -> tuple[str, ...]:
        """Those of the methods to try that need data, where there are none."""
        return tuple(m for m in self.tried if MATCHING[m].lacks(data, self.options_of(m)))

    def options_of(self, method: str) -> dict[str, Value]:
        """All options of one of the methods tried, those not given at their defaults."""
        own = MATCHING[method].options
        return read_options(method, own, {n: v for n, v in self.options.items() if n in own})

    def told(self, method: str) -> dict[str, Value]:
        """What ``match_many`` is told for one of the methods tried; the rest is at its defaults."""
        way = WAYS[self.many]
        known = {*way.options, *(MATCHING[method].options if way.any_pairwise else ())}
        pairwise: dict[str, Value] = {"pairwise": method} if way.any_pairwise else {}
        return pairwise | {n: v for n, v in self.options.items() if n in known}

    @property
    def all_options(self) -> dict[str, Value]:
        """All options of the way and of every method tried, those not given at their defaults."""
        found: dict[str, Value] = {}
        for method in self.tried:
            _, own, pairwise = way_settings(self.many, self.told(method))
            found |= own | (pairwise if WAYS[self.many].any_pairwise else {})
        return found

    @model_validator(mode="after")
    def _known(self) -> Self:
        if self.method in MERGING:
            raise ValueError(f"{self.method} is no matching, but a way to merge: --merge {self.method}")
        choice("matching", self.method, ("auto", "none", *MATCHING))
        choice("way of matching many models", self.many, WAYS)
        every: dict[str, Option] = dict(WAYS[self.many].options)
        try:
            tried = self.tried
        except UsageError as error:
            raise ValueError(str(error)) from error
        for method in tried if WAYS[self.many].any_pairwise else ():
            every |= MATCHING[method].options
        checked(f"{self.method} matching", every, self.options)
        return self


class Merge(Part):
    """How aligned models become one."""

    method: str = Field(
        "average",
        description="How aligned models become one.",
        json_schema_extra={"enum": list(MERGING)},
    )
    weights: Annotated[tuple[float, ...] | None, BeforeValidator(numbers)] = Field(
        None,
        description="One per model, e.g. 0.3,0.7; for some parameters only: a rule.",
        json_schema_extra={"flags": ["--weights"]},
    )
    options: Options = Field(
        {},
        description="Options of the merge method, e.g. density=0.5; repeats.",
        json_schema_extra={"flags": ["--option"]},
    )

    @model_validator(mode="after")
    def _known(self) -> Self:
        choice("merge method", self.method, MERGING)
        checked(self.method, MERGING[self.method].options, self.options)
        return self


class Repair(Part):
    """What is done to the activations of the merged model."""

    method: str = Field(
        "auto",
        description="auto (the repairs worth trying), all, none, or methods such as repair+temperature.",
        json_schema_extra={"examples": [*CHOICES, *REPAIRING]},
    )
    options: Options = Field(
        {},
        description="Options of the repairs, e.g. gains=no; repeats.",
        json_schema_extra={"flags": ["--repair-option"]},
    )
    finetune: StrictInt = Field(
        0,
        ge=0,
        description="Steps of gradient descent on the data in the end.",
        json_schema_extra={"flags": ["--finetune"]},
    )
    keep: Literal["if-better", "always"] = Field(
        "if-better", description="Keep a repair only where it lowers the held-out loss, or always."
    )

    @property
    def further(self) -> tuple[str, ...]:
        """What is tried after repairs: temperature after each, fine-tuning on the best of all."""
        calibrated = ("temperature",) if self.method in ("auto", "all") else ()
        return calibrated + (("finetune",) if self.finetune else ())

    @property
    def needs_data(self) -> bool:
        """Nothing of it can be left out where there are no data."""
        return self.method not in CHOICES or self.finetune > 0

    @model_validator(mode="after")
    def _known(self) -> Self:
        try:
            require_repair(self.method, self.options, self.finetune > 0)
        except UsageError as error:
            raise ValueError(str(error)) from error
        return self


class Rule(Part):
    """What holds for the parameters that fit a pattern; the first rule that fits counts."""

    match: str = Field(description="Pattern of parameter or group names, such as layer1.* or fc.weight.")
    action: str | None = Field(
        None,
        description="keep-a, keep-b, ... (or keep-1, keep-2, ...): the values of one model, aligned.",
        json_schema_extra={"pattern": "^keep-([a-z]|[0-9]+)$"},
    )
    weights: Annotated[tuple[float, ...] | None, BeforeValidator(numbers)] = Field(
        None, description="The weights of the models for these parameters."
    )

    @model_validator(mode="before")
    @classmethod
    def _short(cls, given: Any) -> Any:
        """``fc.*=keep-a`` or ``layer1.*=0.3,0.7``."""
        if not isinstance(given, str):
            return given
        pattern, equals, what = given.rpartition("=")
        if not equals or not pattern:
            raise ValueError("expected PATTERN=keep-a or PATTERN=W,W,... such as 'fc.*=keep-a'")
        return {"match": pattern, "action" if what.startswith("keep") else "weights": what}

    @property
    def kept(self) -> int | None:
        """The number of the model, from 0, whose values are kept."""
        which = (self.action or "").removeprefix("keep-")
        return None if not which else int(which) - 1 if which.isdigit() else ascii_lowercase.index(which)

    @model_validator(mode="after")
    def _one(self) -> Self:
        if (self.action is None) == (self.weights is None):
            raise ValueError("expected either action or weights")
        if self.action is not None and not re.fullmatch(r"keep-([a-z]|[1-9]\d*)", self.action):
            raise ValueError(f"action {self.action!r}: expected keep-a, keep-b, ... or keep-1, keep-2, ...")
        return self


def checked(method: str, options: Mapping[str, Option], given: Mapping[str, object]) -> None:
    """ValueError unless a method has these options, within their bounds."""
    try:
        read_options(method, options, given)
    except UsageError as error:
        raise ValueError(str(error)) from error


def weights_of(
    merge: Merge, rules: Sequence[Rule]
) -> tuple[float, ...] | dict[str, tuple[float, ...]] | None:
    """The weights as ``merge`` takes them: those of the rules by pattern, then those of all the rest."""
    patterns = {r.match: r.weights for r in rules if r.weights is not None}
    if not patterns:
        return merge.weights
    return patterns | ({"*": merge.weights} if merge.weights is not None else {})
