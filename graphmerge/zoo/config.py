"""``zoo.yml``: the models of a zoo, and how each of them is checked."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import AfterValidator, BeforeValidator, ConfigDict, Field, ValidationError, model_validator

from graphmerge.errors import InputError, UsageError
from graphmerge.match import METHODS as MATCHING
from graphmerge.merge import METHODS as MERGING
from graphmerge.recipe import File, Match, Merge, Recipe
from graphmerge.recipe.mistakes import described
from graphmerge.recipe.parts import Part
from graphmerge.recipe.read import parse_yaml
from graphmerge.recipe.schema import UNFINISHED, Examples, Files, Texts, require_step
from graphmerge.recipe.words import choice
from graphmerge.repair import require_repair

ZOO_FILE = "zoo.yml"


def _repair(name: str) -> str:
    """A repair that there is."""
    try:
        if name != "none":
            require_repair(name, {})
    except UsageError as error:
        raise ValueError(str(error)) from error
    return name


class OneMatch(Match):
    """Matching as in a recipe, by one method: what it reaches is held against the baseline."""

    method: str = "weight"

    @model_validator(mode="after")
    def _one(self) -> Self:
        choice("matching", self.method, MATCHING)
        return self


class Tolerances(Part):
    """How far a measurement may be from the baseline before its check fails."""

    model_config = ConfigDict(use_attribute_docstrings=True)

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

    model_config = ConfigDict(use_attribute_docstrings=True)

    model: str = Field(min_length=1)
    """``module:factory`` or ``module:factory(width=2)``, the zoo's folder being importable; or a Hugging Face
    folder, relative to the zoo."""
    example_inputs: Examples = ()
    """As --input; a Hugging Face folder knows its own."""
    inputs: Files = ()
    """Checkpoints, relative to the folder of the zoo, and what their bytes hash to."""
    data: str | None = None
    """Batches (inputs, targets) to match and repair with: ``module:loader`` or an .npz."""
    test: str | None = None
    """Batches to measure on; those of ``data`` where there are none."""
    match: OneMatch = OneMatch()
    merge: Merge = Merge()
    repair: Annotated[str, AfterValidator(_repair)] = "none"
    freeze: Texts = ()
    seed: int = 0
    points: int = Field(default=3, ge=2)
    """Places on the path between the first two models at which the barrier is measured."""
    onnx: Literal["dynamic", "static", "none"] = "dynamic"
    """Whether the exported file takes any batch, that of the example, or none is made."""
    tolerances: Tolerances = Tolerances()
    train: str | None = Field(None, pattern=r"\S")
    """A command that writes one of ``inputs``: {index} is its number from 0, {path} its path."""

    @model_validator(mode="after")
    def _mergeable(self) -> Self:
        """Several checkpoints come with all that matching, merging and repairing them needs."""
        if len(self.inputs) < 2:
            return self
        name, method = self.merge.method, MERGING[self.merge.method]
        if method.base or method.data == "own":
            wanted = "the model that all were fine-tuned from" if method.base else "data for each model"
            raise ValueError(f"merge: {name} needs {wanted}, which an entry cannot name")
        keys = ("inputs", "data", "match", "merge", "repair")
        try:
            require_step(Recipe.model_validate({k: getattr(self, k) for k in keys}, context=UNFINISHED))
        except UsageError as error:
            raise ValueError(str(error)) from error
        return self


class Zoo(Part):
    """The content of a zoo.yml."""

    model_config = ConfigDict(use_attribute_docstrings=True)

    version: Literal[1]
    """The version of this format: 1."""
    models: Annotated[dict[str, Entry], BeforeValidator(lambda given: {} if given is None else given)]
    """Entries by name; docs/ci.md has an example."""


@dataclass(frozen=True)
class ZooFolder:
    """A zoo: its folder, and its entries by name."""

    folder: Path
    entries: Mapping[str, Entry]

    def path(self, weights: File) -> Path:
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
        raise UsageError(described(error, content, str(path), Zoo)) from error
