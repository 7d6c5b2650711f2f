"""Barrier curves between the models of a merge."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

from graphmerge.candidates import repairs
from graphmerge.evaluate import BarrierCurve, barrier, evaluate
from graphmerge.pipeline import Batches, MergeResult, State, split
from graphmerge.progress import Progress


def curves(
    result: MergeResult,
    states: Sequence[State],
    data: Batches | None,
    test: Batches | None,
    points: int,
    say: Progress,
    progress: Progress,
) -> dict[str, BarrierCurve]:
    """Barrier curves between two models; none of more, or without data.

    They are naive, aligned, and aligned with the repair that was kept (less fine-tuning).
    """
    data, held_out = split(data)
    test = test or held_out
    if not points or not test or len(states) != 2:
        return {}
    graph, (first, second) = result.graph, states
    say(f"barrier curves at {points} points: naive")
    score = partial(evaluate, loss=result.loss)
    found = {"naive": barrier(graph, first, second, test, points, score=score, progress=progress)}
    best = result.kept_alignments or next(iter(result.alignments.values()), ())
    if not best:
        return found
    moved = best[0].apply(second)
    say("barrier curves: aligned")
    found["aligned"] = barrier(graph, first, moved, test, points, score=score, progress=progress)
    fix = repeated(result)
    if data and fix:
        way = repairs(graph, [first, moved], data, [fix], result.repair_options, loss=result.loss)[fix]
        name = f"aligned + {fix}"
        say(f"barrier curves: {name}")
        found[name] = barrier(
            graph, first, moved, test, points, lambda state, at: way(state, (1 - at, at)),
            score=score, progress=progress,
        )  # fmt: skip
    return found


def repeated(result: MergeResult) -> str:
    """The repair that was kept, as it is made again along a path: without fine-tuning; empty for none."""
    return "+".join(n for n in result.kept.repair.split("+") if n not in ("none", "finetune"))
