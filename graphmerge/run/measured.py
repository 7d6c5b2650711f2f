"""The deeper measures of a report, taken between the models of the last merge."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from graphmerge.candidates import repairs
from graphmerge.evaluate.measures import MEASURES, Findings, Task, chosen
from graphmerge.evaluate.measures.measure import Way
from graphmerge.pipeline import MergeResult, State, Supply, split
from graphmerge.progress import Progress
from graphmerge.recipe import Recipe
from graphmerge.run.curves import repeated
from graphmerge.run.summary import letter


def take(
    recipe: Recipe, result: MergeResult, supply: Supply, say: Progress, progress: Progress
) -> dict[str, Findings]:
    """What the measures of a recipe find between the models, the aligned ones and their repaired mean.

    Of two models that were aligned the distances by layer are always taken.
    """
    task = _task(recipe, result, supply, progress)
    always = ["distance"] if task.aligned and len(task.states) == 2 else []
    names = list(dict.fromkeys([*always, *recipe.measures]))
    wanted = chosen(names, len(task.states), recipe.measure_options, result.loss.name)
    found = {}
    for name, options in wanted.items():
        say(f"measuring {name}")
        found[name] = MEASURES[name].run(task, **options)
    return found


def _task(recipe: Recipe, result: MergeResult, supply: Supply, progress: Progress) -> Task:
    train, held_out = split(supply.data)
    first, *others = supply.states
    moves = aligned_by(result)
    aligned = (first, *(a.apply(s) for a, s in zip(moves, others, strict=True))) if moves else None
    fix = repeated(result)

    def way(endpoints: Sequence[State]) -> Way:
        made = repairs(result.graph, endpoints, train or (), [fix], result.repair_options, loss=result.loss)
        return made[fix]

    return Task(
        result.graph.model, result.graph, tuple(map(letter, range(len(supply.states)))),
        tuple(supply.states), supply.test or held_out or (), aligned=aligned, train=train,
        repair=fix or "none", repairs=way if fix and train else None, seed=recipe.seed, loss=result.loss,
        progress=progress,
    )  # fmt: skip


def aligned_by(result: MergeResult) -> Sequence[Any]:
    """The alignments to show: those that were kept, else the first that were tried; none without any."""
    tried: Mapping[str, Sequence[Any]] = result.alignments
    return result.kept_alignments or next(iter(tried.values()), ())
