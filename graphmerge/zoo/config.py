"""``zoo.yml``: the models of a zoo, and how each of them is checked."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError, model_validator

from graphmerge.errors import InputError, UsageError, meant, refusal
from graphmerge.match.methods import settings
from graphmerge.merge import METHODS as MERGING
from graphmerge.options import read_options
from graphmerge.recipe.read import parse_yaml
from graphmerge.repair import require_repair
from graphmerge.sources import parse_input

ZOO_FILE = "zoo.yml"

Options = dict[str, int | float | str | None]


def _refusing(check: Callable[[], object]) -> None:
    """Run a check of the engine within one of pydantic, which knows ValueError alone."""
    try:
        check()
    except UsageError as error:
        raise ValueError(str(error)) from error


def _repair(name: str) -> str:
    """A repair that there is."""
    if name != "none":
        _refusing(partial(require_repair, name, {}))
    return name


class Part(BaseModel):
    """A mapping of known keys; frozen."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    @model_validator(mode="before")
    @classmethod
    def _known(cls, given: Any) -> Any:
        """Refuse an unknown key with the one that was probably meant."""
        strange = sorted(map(str, given.keys() - cls.model_fields)) if isinstance(given, dict) else []
        if strange:
            known = cls.model_fields
            hint = meant(strange[0], known) or f"; there are: {', '.join(known)}"
            raise ValueError(f"unknown key {strange[0]!r}{hint}")
        return given


class Weights(Part):
    """A checkpoint, relative to the folder of the zoo, and what its bytes hash to."""

    path: str
    sha256: str | None = Field(default=None, pattern="^[0-9a-f]{64}$")


class Match(Part):
    """How the models after the first are brought into its frame."""

    method: str = "weight"
    options: Options = {}

    @model_validator(mode="after")
    def _of_a_method(self) -> Self:
        _refusing(lambda: settings(self.method, self.options))
        return self


class Merge(Part):
    """How the aligned models become one."""

    method: str = "average"
    weights: tuple[float, ...] | None = None
    options: Options = {}

    @model_validator(mode="after")
    def _of_a_method(self) -> Self:
        if self.method not in MERGING:
            raise ValueError(f"unknown merge method {self.method!r}; there are: {', '.join(MERGING)}")
        _refusing(lambda: read_options(self.method, MERGING[self.method].options, self.options))
        return self


class Tolerances(Part):
    """How far a measurement may be from the baseline before its check fails."""

    accuracy: float = Field(default=0.005, ge=0)
    """Of a model or a merge, absolute, on the scale 0 to 1."""
    barrier: float = Field(default=0.02, ge=0)
    """Of the loss, in nats."""
    objective: float = Field(default=1e-3, ge=0)
    """Of matching, relative."""
    onnx: float = Field(default=1e-4, ge=0)
    """Largest difference of an output to torch's, absolute (and ten times as much relative)."""
    time: float = Field(default=3.0, ge=1)
    """A stage may take so many times the baseline's reference steps, and one more."""
    memory: float = Field(default=1.5, ge=1)
    """The same for peak memory."""


class Entry(Part):
    """A model of the zoo; the keys mean what they mean in a recipe and as flags of the command line."""

    model: str
    """``module:factory`` or ``module:factory(width=2)``, the zoo's folder being importable; or a Hugging Face
    folder, relative to the zoo."""
    example_inputs: tuple[str, ...] = ()
    """As --input; a Hugging Face folder knows its own."""
    inputs: tuple[Weights, ...] = ()
    data: str | None = None
    """Batches (inputs, targets) to match and repair with: ``module:loader`` or an .npz."""
    test: str | None = None
    """Batches to measure on; those of ``data`` where there are none."""
    match: Match = Match()
    merge: Merge = Merge()
    repair: Annotated[str, AfterValidator(_repair)] = "none"
    freeze: tuple[str, ...] = ()
    seed: int = 0
    points: int = Field(default=3, ge=2)
    """Places on the path between the first two models at which the barrier is measured."""
    onnx: Literal["dynamic", "static", "none"] = "dynamic"
    """Whether the exported file takes any batch, that of the example, or none is made."""
    tolerances: Tolerances = Tolerances()
    train: str | None = None
    """A command that writes one of ``inputs``: {index} is its number from 0, {path} its path."""

    @model_validator(mode="after")
    def _of_inputs(self) -> Self:
        for text in self.example_inputs:
            _refusing(partial(parse_input, text))
        return self


class Zoo(Part):
    """The content of a zoo.yml."""

    version: Literal[1]
    models: dict[str, Entry]


@dataclass(frozen=True)
class ZooFolder:
    """A zoo: its folder, and its entries by name."""

    folder: Path
    entries: Mapping[str, Entry]

    def path(self, weights: Weights) -> Path:
        """Where a checkpoint lies."""
        return self.folder / weights.path


def read_zoo(folder: str | Path) -> ZooFolder:
    """The zoo in a folder.

    Raises InputError where there is no zoo.yml, UsageError where it is not one: bad YAML, a key that
    there is not, a value that is not allowed.
    """
    path = Path(folder) / ZOO_FILE
    return ZooFolder(Path(folder), zoo_of(parse_yaml(zoo_text(path), str(path)), path).models)


def zoo_text(path: Path) -> str:
    """The text of a zoo.yml; InputError where there is none."""
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(
            f"{str(path)!r} cannot be read: {error}; a zoo is a folder with a {ZOO_FILE}"
        ) from error


def zoo_of(content: Any, path: Path) -> Zoo:
    """The content of a zoo.yml, checked; ``path`` is for messages."""
    try:
        return Zoo.model_validate(content)
    except ValidationError as error:
        faults = [f"{'.'.join(map(str, e['loc'])) or 'the file'}: {_plain(e['msg'])}" for e in error.errors()]
        raise UsageError(
            refusal(
                f"{str(path)!r} is not a zoo as it stands.",
                expected="version: 1, and under models a mapping of names to entries",
                seen="\n    ".join(faults),
                means="nothing was run",
                fix="correct what is named; docs/ci.md has an example",
            )
        ) from error


def _plain(message: str) -> str:
    return message.removeprefix("Value error, ")
