"""What ``baseline.json`` holds of each measurement; a file edited by hand is refused where it is another."""

from __future__ import annotations

from typing import Self

from pydantic import BaseModel, ConfigDict, model_validator


class Part(BaseModel):
    """A mapping in which no key may be missing and no value of another type; more keys do no harm."""

    model_config = ConfigDict(strict=True)


class Trace(Part):
    """How many operators there are, and which have no rule: left fixed, or tried out."""

    operators: int
    unknown: list[str]
    tried: list[str]


class Group(Part):
    """A symmetry group; ``members`` are ``parameter:dimension``, ``within`` names of groups."""

    name: str
    size: int
    copies: int
    members: list[str]
    within: list[str]


class Groups(Part):
    """All groups, and by ``parameter:dimension`` how many units are fixed, and why."""

    groups: list[Group]
    fixed: dict[str, tuple[int, str]]

    @model_validator(mode="after")
    def _nested(self) -> Self:
        names = {g.name for g in self.groups}
        if lost := {n for g in self.groups for n in g.within} - names:
            raise ValueError(f"within {min(lost)!r}, and no group is called so")
        return self


class Invariance(Part):
    """The largest relative change of an output, and the groups that failed or were not seen to move."""

    error: float
    tolerance: float
    failed: list[str]
    hidden: list[str]


class Planted(Part):
    """How much of a planted symmetry came back."""

    units: int
    recovered: int
    distance: float


class Scores(Part):
    """Of every model."""

    accuracy: list[float]
    loss: list[float]


class Match(Part):
    """Of every model after the first."""

    objective: list[float]


class Score(Part):
    """Of the merged model."""

    accuracy: float
    loss: float


class Barrier(Part):
    """Of the path between the first two models."""

    loss: float
    error: float


class Facts(Part):
    """One entry; a check without facts fails until ``zoo update`` has measured them."""

    trace: Trace | None = None
    groups: Groups | None = None
    invariance: Invariance | None = None
    planted: Planted | None = None
    accuracy: Scores | None = None
    match: Match | None = None
    merged: Score | None = None
    barrier: Barrier | None = None
    time: dict[str, float] | None = None
    memory: dict[str, float] | None = None


class Content(Part):
    """The whole file."""

    models: dict[str, Facts]
