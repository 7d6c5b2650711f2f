"""What a recipe will do, and every fault that can be seen before it runs; only headers are read."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ParamSpec, TypeVar

import torch
from torch import Tensor, nn

from graphmerge.errors import GraphMergeError
from graphmerge.files import header_faults, require_free, shapes_of
from graphmerge.files.staging import require_space
from graphmerge.match.data import dry_run
from graphmerge.merge.job import fitting
from graphmerge.pipeline import require_repairs, split
from graphmerge.progress import Progress, silent
from graphmerge.recipe import Recipe, echo
from graphmerge.run.estimate import Estimate, estimate
from graphmerge.run.inputs import checkpoints, data_files, require_different
from graphmerge.run.open import open_model
from graphmerge.sources import (
    Batches,
    batches_of,
    check_data_file,
    example_inputs,
    import_object,
    is_import,
    load_loss,
    pick_device,
)
from graphmerge.sources.converted import reference
from graphmerge.sources.huggingface import is_folder, require_alike
from graphmerge.symmetry import ModelGraph, trace

P = ParamSpec("P")
T = TypeVar("T")


@dataclass(frozen=True)
class Plan:
    """What will happen: the recipe with all that follows from it, groups, costs; or what is in the way.

    ``graph`` and ``estimate`` are None where faults kept the model from being traced.
    """

    recipe: Recipe
    faults: tuple[GraphMergeError, ...]
    graph: ModelGraph | None
    estimate: Estimate | None
    output_bytes: int
    seconds: float

    def to_json(self) -> dict[str, Any]:
        """All of it as plain data."""
        groups = self.graph.groups if self.graph else ()
        return {
            "recipe": echo(self.recipe),
            "faults": [{"exit_code": f.exit_code, "text": str(f)} for f in self.faults],
            "groups": [{"name": g.name, "size": g.size, "units": g.units} for g in groups],
            "output_bytes": self.output_bytes,
            "estimate": self.estimate.to_json() if self.estimate else None,
            "seconds": self.seconds,
        }


class Faults(list[GraphMergeError]):
    """Refusals, collected."""

    def of(self, check: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T | None:
        """What ``check`` gives; None where it refused."""
        try:
            return check(*args, **kwargs)
        except GraphMergeError as error:
            self.append(error)
            return None


def plan_recipe(
    recipe: Recipe, out: str | Path | None = None, *, force: bool = False, say: Progress = silent
) -> Plan:
    """Look at all that a recipe names without reading weights or data, and trace the model without memory.

    The hashes of inputs, their values and ties are looked at when the merge runs.
    """
    since, faults = time.perf_counter(), Faults()
    say("reading headers")
    shapes = _read_headers(recipe, faults)
    size = max((_bytes(s, recipe) for s in shapes.values()), default=0)
    _check_output(recipe, out or recipe.out, force, size, faults)
    data = _check_data(recipe, faults)
    faults.of(pick_device, recipe.device)
    opened = faults.of(open_model, recipe, torch.device("meta"))
    graph = found = None
    if opened:
        recipe, module = opened
        for path, own in shapes.items():
            faults.extend(header_faults(own, reference(module, own), path))
        say("tracing the model without its weights")
        begun = time.perf_counter()
        graph = faults.of(_traced, recipe, module)
        if graph:
            found = estimate(recipe, graph, time.perf_counter() - begun, size)
            _check_rules(recipe, graph, faults)
            _check_repairs(recipe, graph, data, faults)
            _check_inputs(graph, data, faults)
    return Plan(recipe, tuple(faults), graph, found, size, time.perf_counter() - since)


def _read_headers(recipe: Recipe, faults: Faults) -> dict[str, Mapping[str, Tensor]]:
    found: dict[str, Mapping[str, Tensor]] = {}
    for path in checkpoints(recipe):
        if own := faults.of(shapes_of, path):
            found[path] = own
    faults.of(require_alike, [p for p in found if is_folder(p)])
    faults.of(require_different, recipe)
    return found


def _bytes(state: Mapping[str, Tensor], recipe: Recipe) -> int:
    """The size of a state dict as it will be written."""
    width = None if recipe.out_dtype == "same" else getattr(torch, recipe.out_dtype).itemsize
    return sum(
        t.numel() * (width if width and t.is_floating_point() else t.element_size()) for t in state.values()
    )


def _check_output(recipe: Recipe, out: str | Path | None, force: bool, size: int, faults: Faults) -> None:
    if out is None:
        return
    faults.of(require_free, out, force, inputs=[p for p in checkpoints(recipe) if Path(p).exists()])
    parents = [p for p in (Path(out).absolute(), *Path(out).absolute().parents) if p.exists()]
    faults.of(require_space, parents[0] / "model", 3 * size)


def _check_data(recipe: Recipe, faults: Faults) -> dict[str, Batches]:
    """The batches in every data file, without their values."""
    found = {path: faults.of(check_data_file, path) for path in data_files(recipe)}
    used = [f.path for _, s in recipe.steps for f in (s.data, s.test, *s.own_data) if f]
    for spec in sorted({p for p in used if is_import(p)}):
        faults.of(import_object, spec)
    faults.of(load_loss, recipe.loss)
    batches = {path: batches_of(arrays) for path, arrays in found.items() if arrays}
    for path in sorted({s.data.path for _, s in recipe.steps if s.data} & batches.keys()):
        faults.of(split, batches[path])
    return batches


def _traced(recipe: Recipe, module: nn.Module) -> ModelGraph:
    args, kwargs = example_inputs(recipe.example_inputs, torch.device("meta"), recipe.seed)
    return trace(module, args, kwargs, strict=recipe.strict, freeze=recipe.freeze, cache=recipe.cache)


def _check_rules(recipe: Recipe, graph: ModelGraph, faults: Faults) -> None:
    names = {n: n for n in graph.model.state_dict()}
    for rule in [r for _, step in recipe.steps for r in step.rules]:
        faults.of(fitting, graph, names, rule.match)


def _check_repairs(recipe: Recipe, graph: ModelGraph, data: Mapping[str, Batches], faults: Faults) -> None:
    """Those that were asked for apply to the network, and files of data have enough samples for them."""
    for _, step in recipe.steps:
        if step.data:
            batches = data.get(step.data.path, [])
            parts = split(batches) if len(batches) > 1 else (None, None)
            faults.of(require_repairs, graph, step, *parts)


def _check_inputs(graph: ModelGraph, data: Mapping[str, Batches], faults: Faults) -> None:
    """Run the model on data without values, if it can be run so: then it runs on its example."""
    state, example = graph.model.state_dict(), graph.program.example
    args, kwargs = example
    if data and Faults().of(dry_run, graph.model, state, [(kwargs or args, None)]) is not None:
        for batches in data.values():
            faults.of(dry_run, graph.model, state, batches, example)
