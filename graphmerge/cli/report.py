"""What a merge leaves behind: its files, its report, its curves, its table."""

from __future__ import annotations

import itertools
import json
from collections.abc import Mapping, Sequence
from importlib.metadata import version
from pathlib import Path
from string import ascii_lowercase
from typing import Any

import torch
from torch import nn
from torch.utils import _pytree as pytree

from graphmerge.cli.console import Talk, out, table
from graphmerge.evaluate import BarrierCurve, Score, barrier, save_barrier_plot
from graphmerge.export import export_onnx
from graphmerge.files import check_finite, save_checkpoint, sha256
from graphmerge.match import Alignment
from graphmerge.match.alignment import START
from graphmerge.pipeline import Batches, MergeResult, State, repairs, split


def recipe(
    paths: Sequence[str], base: str | None, model: str, inputs: Sequence[str], seed: int,
    weights: Sequence[str] | None, result: MergeResult,
) -> dict[str, Any]:  # fmt: skip
    """What was merged and how, what was kept, with the hashes of the inputs."""
    files = [{"path": Path(p).name, "sha256": sha256(p)} for p in (*paths, *([base] if base else []))]
    return {
        "graphmerge": version("graphmerge"),
        "torch": torch.__version__,
        "model": model,
        "inputs": files[: len(paths)],
        "base": files[-1] if base else None,
        "example": list(inputs),
        "seed": seed,
        "merge": result.kept_merge.method,
        "options": dict(result.kept_merge.options),
        "weights": list(weights or ()),
        "matching": result.kept.matching,
        "repair": result.kept.repair,
        "groups": len(result.graph.groups),
        "invariance error": result.verification.max_error,
    }


def rows(result: MergeResult) -> list[tuple[str, Score | None]]:
    """Endpoints, every candidate, and the ensemble, for the table."""
    ends = [(f"model {letter(k)}", s) for k, s in enumerate(result.endpoints)]
    together = "a and b" if len(ends) == 2 else f"all {len(ends)}"
    top = [(f"ensemble of {together}", result.ensemble)] if result.ensemble else []
    return [*ends, *((c.name, c.score) for c in result.candidates), *top]


def letter(model: int) -> str:
    """What a model is called: a, b, ... z, then by number."""
    return ascii_lowercase[model] if model < len(ascii_lowercase) else str(model + 1)


def scores(result: MergeResult) -> list[dict[str, Any]]:
    """The same rows as plain data."""
    return [
        {"name": n, "loss": s.loss, "accuracy": s.accuracy, "samples": s.samples} if s else {"name": n}
        for n, s in rows(result)
    ]


def curves(
    result: MergeResult,
    states: Sequence[State],
    data: Batches | None,
    test: Batches | None,
    points: int,
    talk: Talk,
) -> dict[str, BarrierCurve]:
    """Barrier curves between two models; none of more, or without data.

    They are naive, aligned, and aligned with the repair that was kept.
    """
    data, held_out = split(data)
    test = test or held_out
    if not points or not test or len(states) != 2:
        return {}
    graph, (first, second) = result.graph, states
    talk.say(f"barrier curves at {points} points: naive")
    found = {"naive": barrier(graph, first, second, test, points, progress=talk.tick)}
    best = result.kept_alignments or next(iter(result.alignments.values()), ())
    if not best:
        return found
    moved = best[0].apply(second)
    talk.say("barrier curves: aligned")
    found["aligned"] = barrier(graph, first, moved, test, points, progress=talk.tick)
    way = repairs(graph, [first, moved], data).get(result.kept.repair) if data else None
    if way:
        name = f"aligned + {result.kept.repair}"
        talk.say(f"barrier curves: {name}")
        found[name] = barrier(
            graph, first, moved, test, points, lambda state, at: way(state, (1 - at, at)), progress=talk.tick
        )
    return found


def write(
    folder: Path, result: MergeResult, dtypes: Mapping[str, torch.dtype], made_by: Mapping[str, Any],
    report: Mapping[str, Any], drawn: Mapping[str, BarrierCurve],
) -> None:  # fmt: skip
    """The checkpoint in ``dtypes``, the alignment, the plot and the report."""
    state = {n: t.to(dtypes[n]) for n, t in result.kept.state.items()}
    check_finite(state, folder / "merged.safetensors")
    save_checkpoint(folder / "merged.safetensors", state, {"recipe": made_by})
    for k, alignment in enumerate(result.kept_alignments, 1):
        which = "" if len(result.kept_alignments) == 1 else f"-{letter(k)}"
        alignment.save(folder / f"alignment{which}.safetensors")
    if drawn:
        title = "Loss along the path from A to B"
        save_barrier_plot(drawn, result.ensemble, folder / "barrier.png", title)
    (folder / "report.json").write_text(json.dumps(report, indent=2, sort_keys=True, default=str) + "\n")


def write_onnx(
    folder: Path, result: MergeResult, module: nn.Module, args: Any, kwargs: Any, made_by: Mapping[str, Any]
) -> dict[str, Any]:
    """merged.onnx, compared with torch; what to report of it."""
    module.load_state_dict(dict(result.kept.state))
    args, kwargs = pytree.tree_map(lambda t: t.cpu() if isinstance(t, torch.Tensor) else t, (args, kwargs))
    metadata = {"recipe": json.dumps(made_by, sort_keys=True)}
    written = export_onnx(module.cpu(), folder / "merged.onnx", args, kwargs, metadata=metadata)
    return {"opset": written.opset, "max_error": dict(written.max_error), "dynamic": written.dynamic}


def show(result: MergeResult, target: str) -> None:
    """The summary table, and what was kept."""
    cells = [
        (
            name + (" (kept)" if name == result.kept.name else ""),
            f"{s.loss:.4f}" if s else "",
            f"{100 * s.accuracy:.2f} %" if s else "",
        )
        for name, s in rows(result)
    ]
    table(
        _measured_on(result),
        ("", "loss (nats)", "accuracy"),
        cells,
    )
    out.print(f"kept: {result.kept.name}; written to {target}", markup=False, soft_wrap=True)


def show_alignment(found: Alignment) -> None:
    """What moved, the course of the descent sweep by sweep, and how sure the end is."""
    moved = [(group, str(n)) for group, n in found.transform.moved_units().items()]
    table(f"{found.method} matching", ("group", "units moved"), moved)
    course = []
    for sweep, group in itertools.groupby(found.history, key=lambda s: s.sweep):
        steps = list(group)
        units = str(sum(s.moved for s in steps))
        name = "start" if sweep == START else str(sweep + 1)
        course.append((name, str(len(steps)), units, f"{steps[-1].objective:.6g}"))
    title = f"objective {found.start:.6g} -> {found.objective:.6g} in {found.seconds:.1f} s"
    table(title, ("sweep", "steps", "units moved", "objective"), course)
    out.print(", ".join(f"{stage} {s:.1f} s" for stage, s in found.stages.items()), markup=False)
    if found.gap is not None:
        sure = "certified: no other order of any one group is better" if found.certified else "not certified"
        out.print(f"{sure} (relative gap at most {found.gap:.1e})", markup=False)


def _measured_on(result: MergeResult) -> str:
    if not result.endpoints:
        return "No data: nothing was measured"
    same = all(c.score is c.held_out for c in result.candidates)
    return "Part of the data that was held out" if same else "Test data (chosen by a part of --data held out)"
