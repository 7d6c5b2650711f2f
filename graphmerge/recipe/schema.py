"""A recipe: everything that decides what a merge gives, and where it goes.

The fields are the keys of the YAML file and, by the names under ``flags``, the flags of the command line.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Annotated, Any, Literal, Self

from pydantic import (
    AfterValidator,
    BeforeValidator,
    Field,
    PlainSerializer,
    StrictBool,
    StrictInt,
    ValidationInfo,
    WithJsonSchema,
    model_validator,
)

from graphmerge.errors import UsageError
from graphmerge.evaluate.measures import MEASURES, chosen
from graphmerge.losses import CROSS_ENTROPY, LOSSES, loss_of
from graphmerge.match.many.reference import require_reference
from graphmerge.merge import METHODS as MERGING
from graphmerge.merge import require_call
from graphmerge.merge.job import check_weights
from graphmerge.options import Value, read_options
from graphmerge.recipe.parts import Match, Merge, Options, Part, Repair, Rule, weights_of
from graphmerge.recipe.words import example, examples, loss_named, size
from graphmerge.repair import require_fitting


def listed(given: Any) -> Any:
    """One thing as a list of one."""
    return given if isinstance(given, list | tuple) else (given,)


def flags(*names: str) -> dict[str, Any]:
    """What the command line calls a key, besides its own name."""
    return {"flags": list(names)}


Name = Annotated[str, Field(min_length=1, pattern=r"^[^\x00]+$")]
"""Of a file, or of what is imported: without the character that no file system takes."""


class File(Part):
    """A file or folder, or an object as module:name; where ``sha256`` is given, the bytes must have it."""

    path: Name
    sha256: str | None = Field(None, pattern=r"^[0-9a-f]{64}$")


Texts = Annotated[tuple[str, ...], BeforeValidator(listed)]
Files = Annotated[tuple[File, ...], BeforeValidator(listed)]
Rules = Annotated[tuple[Rule, ...], BeforeValidator(listed)]
Examples = Annotated[tuple[Annotated[str, AfterValidator(example)], ...], BeforeValidator(examples)]


LossName = Annotated[
    str | Callable[[Any, Any], Any],
    AfterValidator(loss_named),
    PlainSerializer(lambda given: given if isinstance(given, str) else loss_of(given).name, return_type=str),
    WithJsonSchema({"type": "string"}),
]


class How(Part):
    """How to merge models that are at hand: what the result depends on besides models and data."""

    match: Match = Field(
        Match(),
        description="Matching: auto, none, or one of `match --help`.",
        json_schema_extra=flags("--method"),
    )
    merge: Merge = Field(Merge(), description="How aligned models become one; the methods are below.")
    repair: Repair = Field(
        Repair(),
        description="auto (the repairs worth trying), all, none, or methods such as repair+temperature.",
    )
    loss: LossName = Field(
        CROSS_ENTROPY.name,
        description=f"What counts on data: {', '.join(LOSSES)}, or module:function of (outputs, targets).",
        examples=[*LOSSES],
    )
    rules: Rules = Field(
        (),
        description="For some parameters or groups: 'fc.*=keep-a' or 'layer1.*=1,0'; repeats.",
        json_schema_extra=flags("--rule"),
    )
    freeze: Texts = Field((), description="Group or parameter to keep in place, e.g. 'layer3.*'; repeats.")
    strict: StrictBool = Field(False, description="Operators without a rule are an error.")
    seed: StrictInt = Field(0, description="Fixes every random choice.")
    allow_nonfinite: StrictBool = Field(
        False, description="Tensors with NaN or infinity are copied from the first model, never matched."
    )
    cache: Name | None = Field(
        None, description="Folder to keep traces in; a model that has not changed is found there."
    )

    @property
    def merge_options(self) -> dict[str, Value]:
        """All options of the merge method; its seed is that of the recipe unless it is given."""
        own = MERGING[self.merge.method].options
        seeded: dict[str, object] = {"seed": self.seed} if "seed" in own else {}
        return read_options(self.merge.method, own, seeded | self.merge.options)

    @property
    def loss_name(self) -> str:
        """The name of the loss."""
        return self.loss if isinstance(self.loss, str) else loss_of(self.loss).name

    @property
    def weights(self) -> tuple[float, ...] | Mapping[str, tuple[float, ...]] | None:
        """The weights of the models, by pattern where rules have some."""
        return weights_of(self.merge, self.rules)


class Stage(Part):
    """One merge of several; what it does not say is as the recipe says."""

    name: str = Field(pattern=r"^[\w-]+$", description="What later stages call its result.")
    inputs: Files = Field((), description="Checkpoints, or names of earlier stages.")
    base: File | None = None
    own_data: Files = ()
    match: Match = Match()
    merge: Merge = Merge()
    repair: Repair = Repair()
    rules: Rules = ()
    seed: StrictInt = 0


UNFINISHED = "unfinished"
"""Context in which a recipe may lack what flags are still to say."""


class Recipe(How):
    """One merge, or several in a row: models, data, how to merge, what to write."""

    version: Literal[1] = Field(1, description="The version of this format.")
    model: Name | None = Field(
        None,
        description="The architecture: module:factory or module:factory(width=2), a folder with a config.json"
        " (Hugging Face; by default the first input), or a .pt2 archive.",
        json_schema_extra=flags("-m"),
    )
    inputs: Files = Field((), description="Checkpoints; the result is in the frame of the first.")
    base: File | None = Field(None, description="The checkpoint that the models were fine-tuned from.")
    trust: StrictBool = Field(False, description="Read a .pt2 as model, which can run code that is in it.")
    example_inputs: Examples = Field(
        (),
        description="Example input [name=]SHAPE[:dtype], e.g. 2x3x32x32 or ids=2x7:int64; repeats.",
        json_schema_extra=flags("--example-input", "--input", "-i"),
    )
    data: File | None = Field(
        None,
        description="Training batches (inputs, targets): module:loader or an .npz. For matching and repair.",
        json_schema_extra=flags("-d"),
    )
    own_data: Files = Field(
        (), description="Batches of one model, where they differ; once per model, in order."
    )
    test: File | None = Field(
        None,
        description="Held-out batches for evaluation; without it a part of data is held out.",
        json_schema_extra=flags("-t"),
    )
    points: StrictInt = Field(25, ge=0, description="Points of the barrier curves (0: none).")
    measures: Texts = Field(
        (),
        description="Measures for the report, such as llfc or variance (see `evaluate --help`); repeats.",
        json_schema_extra=flags("--measure"),
    )
    measure_options: Options = Field(
        {},
        description="Options of the measures, e.g. points=11; repeats.",
        json_schema_extra=flags("--measure-option"),
    )
    out: Name | None = Field(None, description="Output folder.", json_schema_extra=flags("-o"))
    out_dtype: Literal["same", "float16", "bfloat16", "float32", "float64"] = Field(
        "same",
        description="Of model.safetensors, a floating dtype such as float16; same is that of the first.",
        json_schema_extra=flags("--dtype"),
    )
    shard_size: Annotated[int, BeforeValidator(size)] = Field(
        5 * 10**9, gt=0, description="Larger checkpoints are split into files of at most this size, e.g. 2GB."
    )
    onnx: StrictBool = Field(True, description="Also write merged.onnx.")
    static: StrictBool = Field(False, description="Fix the batch size of merged.onnx to that of the example.")
    device: Literal["auto", "cpu", "cuda"] = Field("auto", description="auto, cpu or cuda.")
    allow_duplicate: StrictBool = Field(False, description="Merge a file with itself.")
    stages: tuple[Stage, ...] = Field((), description="Several merges in a row; the last is the result.")
    made_with: dict[str, Any] | None = Field(
        None, description="In a recipe.lock.yaml: versions and hashes of the run that wrote it."
    )

    @property
    def steps(self) -> tuple[tuple[str, Recipe], ...]:
        """Every merge with its name, as a recipe of its own."""
        if not self.stages:
            return (("merge", self),)
        return tuple((s.name, self._step(s)) for s in self.stages)

    def _step(self, stage: Stage) -> Recipe:
        own = {n: getattr(stage, n) for n in stage.model_fields_set - {"name"}}
        return self.model_copy(update={"stages": (), **own})

    @model_validator(mode="after")
    def _complete(self, info: ValidationInfo) -> Self:
        if info.context == UNFINISHED:
            return self
        if self.points == 1:
            raise ValueError("points: a curve needs at least 2 points (0 draws none)")
        names: list[str] = []
        for name, step in self.steps:
            which = f"stage {name}: " if self.stages else ""
            if name in names:
                raise ValueError(f"{which}there are two stages of this name")
            try:
                require_step(step)
            except UsageError as error:
                raise ValueError(which + str(error)) from error
            later = {s.name for s in self.stages} - set(names)
            used = (*step.inputs, *([step.base] if step.base else []))
            if early := [f.path for f in used if f.path in later]:
                raise ValueError(f"{which}its input {early[0]!r} is not made by an earlier stage")
            names.append(name)
        require_measures(self, self.steps[-1][1])
        return self


def require_measures(recipe: Recipe, last: Recipe) -> None:
    """ValueError unless the measures of a report can be taken between the models of its last merge."""
    try:
        chosen(recipe.measures, len(last.inputs), recipe.measure_options, recipe.loss_name)
    except UsageError as error:
        raise ValueError(str(error)) from error
    hungry = [n for n in recipe.measures if MEASURES[n].data]
    if hungry and not (last.data or last.test):
        raise ValueError(f"--measure {hungry[0]} needs data (--data or --test): batches (inputs, targets)")


def require_step(step: Recipe) -> None:
    """UsageError unless a merge has all that its methods need."""
    if len(step.inputs) < 2 and not step.base:
        seen = step.inputs[0].path if step.inputs else "none"
        raise UsageError(f"inputs: expected two checkpoints to merge, or more; seen: {seen}")
    require_call(
        step.merge.method, len(step.inputs), step.merge_options, step.weights, step.base, step.data,
        step.own_data or None, step.loss_name,
    )  # fmt: skip
    require_reference(step.match.all_options, len(step.inputs))
    require_fitting(step.repair.method, step.loss_name)
    lacking = [f"{m} matching" for m in step.match.lacking(step.data) if step.match.method != "auto"]
    lacking += [f"repair by {step.repair.method}"] if step.repair.needs_data and not step.data else []
    if lacking:
        raise UsageError(f"{lacking[0]} needs data (--data): batches (inputs, targets)")
    for row in (step.merge.weights, *(r.weights for r in step.rules)):
        if row is not None:
            check_weights(row, len(step.inputs), MERGING[step.merge.method].weights)
    for k, rule in enumerate(step.rules):
        if rule.match in [r.match for r in step.rules[:k]]:
            raise UsageError(f"there are two rules for {rule.match!r}; leave one out")
        if rule.weights is not None and len(rule.weights) != len(step.inputs):
            raise UsageError(
                f"rule {rule.match!r}: {len(step.inputs)} models but {len(rule.weights)} weights"
            )
        if rule.kept is not None and rule.kept >= len(step.inputs):
            raise UsageError(f"rule {rule.match!r}: {rule.action}, but there are {len(step.inputs)} models")
