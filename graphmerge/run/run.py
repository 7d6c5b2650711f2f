"""A recipe from what it names to an output folder."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import torch

from graphmerge.errors import GateError, GraphMergeError, TraceError, UsageError
from graphmerge.files import sha256, staged_output, weight_bytes
from graphmerge.files.staging import system_faults
from graphmerge.pipeline import (
    Batches,
    MergeResult,
    State,
    Supply,
    check_supply,
    merge_traced,
    trace_and_prove,
)
from graphmerge.progress import Progress, silent
from graphmerge.recipe import Recipe, echo, portable
from graphmerge.run.clock import Log, noted
from graphmerge.run.curves import curves
from graphmerge.run.facts import warnings
from graphmerge.run.inputs import checkpoints, in_memory, verified
from graphmerge.run.measured import take
from graphmerge.run.open import Opened, described_by, open_recipe
from graphmerge.run.report import compared, of_merge, report_of
from graphmerge.run.sections import document
from graphmerge.run.write import carry_over, figures, write_merge, write_onnx, write_texts
from graphmerge.sources import load_data, parse_dtype
from graphmerge.sources.huggingface import is_folder, require_alike

COPIES = 3
"""Of the weights, on disk while the output is written: safetensors, ONNX, alignments."""


@dataclass(frozen=True)
class Outcome:
    """What a run gave: the merge (the last of several), its report, and the folder.

    ``not_exported`` says why there is no merged.onnx though one was wanted; all else was written.
    """

    result: MergeResult
    report: Mapping[str, Any]
    folder: Path
    not_exported: GraphMergeError | None


@dataclass(frozen=True)
class Merged:
    """The last merge of a recipe and what it was made from; what there is to tell of those before it."""

    earlier: Mapping[str, Mapping[str, Any]]
    result: MergeResult
    supply: Supply


def run_recipe(
    recipe: Recipe, out: str | Path | None = None, *, force: bool = False,
    say: Progress = silent, progress: Progress = silent,
) -> Outcome:  # fmt: skip
    """Read models and data, merge, and write the output folder as a whole or not at all.

    ``out`` counts before the recipe's own; a folder that holds something is replaced with ``force`` only.
    ``say`` is told of every stage, ``progress`` of every step within one. Raises what the stages raise;
    an earlier output is then as it was. Where ONNX alone fails, the outcome says so.
    """
    target = out or recipe.out
    if target is None:
        raise UsageError("tell where to write: --out FOLDER, or out: in the recipe")
    say, log = noted(say)
    say("checking the inputs")
    hashes = verified(recipe)
    for note in require_alike([p for p in checkpoints(recipe) if is_folder(p)]):
        say(note)
    paths = list(checkpoints(recipe))
    room = COPIES * max(map(weight_bytes, paths))
    with staged_output(target, force, inputs=list(hashes), needed_bytes=room) as folder:
        opened = open_recipe(recipe, paths, say)
        merged = merge_all(recipe, opened, say, progress)
        with system_faults("write", Path(target)):
            report, fault = write_all(folder, Path(target), hashes, opened, merged, log, say, progress)
    return Outcome(merged.result, report, Path(target), fault)


def write_all(
    folder: Path, target: Path, hashes: Mapping[str, str], opened: Opened, merged: Merged, log: Log,
    say: Progress, progress: Progress,
) -> tuple[dict[str, Any], GraphMergeError | None]:  # fmt: skip
    """Everything in ``folder``, which will be ``target``; the report, and why ONNX failed if it did."""
    recipe, result, supply = opened.recipe, merged.result, merged.supply
    drawn = curves(result, supply.states, supply.data, supply.test, recipe.points, say, progress)
    found = take(recipe, result, supply, say, progress)
    echoed = echo(recipe, hashes)
    report = report_of(echoed, merged.earlier, result, supply, drawn, found)
    made_by = portable(echoed)
    dtypes = out_dtypes(recipe, opened)
    files = write_merge(folder, result, dtypes, made_by, recipe.shard_size, drawn, recipe.allow_nonfinite)
    fault = None
    if recipe.onnx:
        say("writing merged.onnx and comparing it with torch")
        try:
            report["onnx"] = write_onnx(folder, result, opened, made_by)
        except (TraceError, GateError) as error:
            fault, report["onnx"] = error, {"error": str(error)}
    report["files"] = {f.name: sha256(f) for f in files}
    if recipe.made_with:
        report["compared"] = compared(recipe.made_with, report["made_with"], report["files"])
        say(report["compared"])
    say("writing the report")
    report |= {"log": log, "warnings": warnings(report)}
    write_texts(folder, report, target, document(report, figures(result, drawn), found))
    if described := described_by(recipe):
        carry_over(described, folder, recipe.out_dtype)
    return report, fault


def out_dtypes(recipe: Recipe, opened: Opened) -> dict[str, torch.dtype]:
    """The dtype of every tensor of the output: names and dtypes of the first model, unless told otherwise."""
    if recipe.out_dtype == "same":
        return dict(opened.stored)
    wanted = parse_dtype(recipe.out_dtype)
    return {n: wanted if d.is_floating_point else d for n, d in opened.stored.items()}


def merge_all(recipe: Recipe, opened: Opened, say: Progress = silent, progress: Progress = silent) -> Merged:
    """Every merge of the recipe in order; the model is traced once.

    What no later merge names is taken out of ``opened.states``, and so are the candidates of earlier merges.
    """
    read, states, told = cache(load_data), opened.states, dict[str, Mapping[str, Any]]()
    _check_data(recipe, opened, read, say)
    proved = trace_and_prove(opened.model, opened.args, opened.kwargs, recipe, say, progress)

    def run(name: str, step: Recipe, held: set[str]) -> tuple[MergeResult, Supply]:
        if recipe.stages:
            say(f"stage {name}: {', '.join(f.path for f in step.inputs)}")
        for path in states.keys() - held:
            del states[path]
        supply = _supply(step, states, read)
        return merge_traced(*proved, supply, step, say, progress), supply

    def run_through(name: str, step: Recipe, held: set[str]) -> None:
        result, supply = run(name, step, held)
        told[name], states[name] = of_merge(result, supply), result.kept.state

    *earlier, last = [(*step, held) for step, held in zip(recipe.steps, in_memory(recipe), strict=True)]
    for step in earlier:
        run_through(*step)
    return Merged(told, *run(*last))


def _check_data(recipe: Recipe, opened: Opened, read: Callable[[str], Batches], say: Progress) -> None:
    """The data of all steps, before anything takes long."""
    first, example = next(iter(opened.states.values())), (opened.args, opened.kwargs)
    for _, step in recipe.steps:
        check_supply(opened.model, first, _supply(step, {}, read), step, example, say)


def _supply(step: Recipe, states: Mapping[str, State], read: Callable[[str], Batches]) -> Supply:
    """What a merge is made from, as far as its models are there already."""
    return Supply(
        [states[f.path] for f in step.inputs if f.path in states],
        states[step.base.path] if step.base and step.base.path in states else None,
        read(step.data.path) if step.data else None,
        [read(d.path) for d in step.own_data] or None,
        read(step.test.path) if step.test else None,
    )
