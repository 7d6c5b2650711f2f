"""Commands on two models: match and merge."""

from __future__ import annotations

import json
from collections.abc import Mapping
from importlib.metadata import version
from pathlib import Path
from typing import Annotated, Any

import torch
import typer
from torch import nn

from graphmerge.cli import options
from graphmerge.cli.commands import load_weights, prepare
from graphmerge.cli.console import Talk, exit_codes, out, table
from graphmerge.cli.spec import load_data
from graphmerge.errors import InputError, UsageError
from graphmerge.evaluate import BarrierCurve, Score, barrier, save_barrier_plot
from graphmerge.export import export_onnx
from graphmerge.files import same_bytes, save_checkpoint, sha256, staged_output
from graphmerge.match import match as match_models
from graphmerge.pipeline import MergeResult, merge_models, repairs
from graphmerge.symmetry import trace
from graphmerge.symmetry.verify import verify as verify_graph

First = Annotated[str, typer.Argument(metavar="A", help="First checkpoint; the result is in its frame.")]
Second = Annotated[str, typer.Argument(metavar="B", help="Second checkpoint.")]


def _refuse_same(a: str, b: str, allowed: bool) -> None:
    if not allowed and Path(a).exists() and Path(b).exists() and same_bytes(a, b):
        raise InputError(
            f"{a} and {b} hold the same bytes: merging them gives them back; pass --allow-duplicate to go on"
        )


def match(
    a: First,
    b: Second,
    model: options.Model,
    inputs: options.Inputs,
    target: Annotated[str, typer.Option("--out", "-o", help="The alignment file to write (.safetensors).")],
    method: Annotated[str, typer.Option("--method", help="weight or activation.")] = "weight",
    data: options.Data = None,
    restarts: options.Restarts = 3,
    force: options.Force = False,
    seed: options.Seed = 0,
    as_json: options.Json = False,
    quiet: options.Quiet = False,
    debug: options.Debug = False,
    device: options.Device = "auto",
) -> None:
    """Find the symmetry that brings B into the frame of A, and save it."""
    with exit_codes(debug):
        talk = Talk(quiet, as_json)
        if Path(target).exists() and not force:
            raise UsageError(f"{target} exists; pass --force to replace it")
        module, args, kwargs = prepare(model, inputs, None, device, seed, talk)
        states = [load_weights(module, path, talk) for path in (a, b)]
        graph = trace(module, args, kwargs)
        verify_graph(graph, module, seed).require()
        found = match_models(
            graph, states[0], states[1], method, load_data(data) if data else None, seed,
            restarts=restarts, progress=talk.ticker("matching"),
        )  # fmt: skip
        found.save(target)
        rows = [(g, str(n)) for g, n in found.transform.moved_units().items()]
        title = f"objective {found.start:.4f} -> {found.objective:.4f} in {found.seconds:.1f} s"
        talk.result(found.to_json(), lambda: table(title, ("group", "units moved"), rows))


def merge(
    a: First,
    b: Second,
    model: options.Model,
    inputs: options.Inputs,
    target: options.Out,
    method: Annotated[
        str, typer.Option("--method", help="auto (both, the better is kept), weight or activation.")
    ] = "auto",
    weight: Annotated[float, typer.Option("--weight", min=0, max=1, help="Share of B in the average.")] = 0.5,
    data: options.Data = None,
    test: options.Test = None,
    points: Annotated[
        int, typer.Option("--points", min=0, help="Points of the barrier curves (0: none).")
    ] = 11,
    onnx: Annotated[bool, typer.Option(help="Also write merged.onnx.")] = True,
    restarts: options.Restarts = 3,
    allow_duplicate: Annotated[
        bool, typer.Option("--allow-duplicate", help="Merge a file with itself.")
    ] = False,
    strict: options.Strict = False,
    force: options.Force = False,
    seed: options.Seed = 0,
    as_json: options.Json = False,
    quiet: options.Quiet = False,
    debug: options.Debug = False,
    device: options.Device = "auto",
) -> None:
    """Merge two checkpoints: check, trace, verify, match, merge, repair, evaluate, export."""
    with exit_codes(debug):
        talk = Talk(quiet, as_json)
        methods = {
            "auto": ("weight", "activation"),
            "weight": ("weight",),
            "activation": ("activation",),
        }.get(method)
        if methods is None:
            raise UsageError(f"unknown --method {method!r}; there are: auto, weight, activation")
        if method == "activation" and not data:
            raise UsageError("--method activation needs --data")
        _refuse_same(a, b, allow_duplicate)
        with staged_output(
            target, force, inputs=[a, b], needed_bytes=4 * Path(a).stat().st_size if Path(a).exists() else 0
        ) as folder:
            module, args, kwargs = prepare(model, inputs, None, device, seed, talk)
            states = [load_weights(module, path, talk) for path in (a, b)]
            batches = load_data(data) if data else None
            tests = load_data(test) if test else None
            result = merge_models(
                module, states[0], states[1], args, kwargs, data=batches, test=tests, methods=methods,
                weights=(1 - weight, weight), seed=seed, restarts=restarts, strict=strict, say=talk.say,
            )  # fmt: skip
            recipe = _recipe(a, b, model, inputs, seed, result)
            report = recipe | {"rows": [{"name": n, **_score(s)} for n, s in rows_of(result)]}
            curves = _curves(result, states, batches, tests, points, talk)
            if curves:
                save_barrier_plot(
                    curves, result.ensemble, folder / "barrier.png", "Loss along the path from A to B"
                )
                report["barrier"] = {n: c.to_json() for n, c in curves.items()}
            _write(folder, result, module, args, kwargs, recipe, report, onnx, talk)
        talk.result(report, lambda: _show(result, target))


def _recipe(a: str, b: str, model: str, inputs: list[str], seed: int, result: MergeResult) -> dict[str, Any]:
    """What made the result, with the hashes of its inputs; the same for the same inputs."""
    return {
        "graphmerge": version("graphmerge"),
        "torch": torch.__version__,
        "model": model,
        "inputs": [{"path": Path(p).name, "sha256": sha256(p)} for p in (a, b)],
        "example": inputs,
        "seed": seed,
        "weights": result.weights,
        "matching": result.kept.matching,
        "repair": result.kept.repair,
        "groups": len(result.graph.groups),
        "invariance error": result.verification.max_error,
    }


def _score(score: Score | None) -> dict[str, Any]:
    return {"loss": score.loss, "accuracy": score.accuracy, "samples": score.samples} if score else {}


def rows_of(result: MergeResult) -> list[tuple[str, Score | None]]:
    """Endpoints, every candidate, and the ensemble, for the table."""
    ends = [(f"model {n}", s) for n, s in zip("ab", result.endpoints, strict=False)]
    top = [("ensemble of a and b", result.ensemble)] if result.ensemble else []
    return [*ends, *((c.name, c.score) for c in result.candidates), *top]


def _curves(
    result: MergeResult, states: list[Any], data: Any, test: Any, points: int, talk: Talk
) -> dict[str, BarrierCurve]:
    """Barrier curves: naive, aligned, and aligned with the repair that was kept."""
    if not test and data:
        data, test = data[: -max(1, len(data) // 4)], data[-max(1, len(data) // 4) :]
    if not points or not test:
        return {}
    talk.say(f"barrier curves at {points} points")
    best = result.alignment or next(iter(result.alignments.values()))
    moved = best.apply(states[1])
    curves = {"naive": barrier(result.graph, states[0], states[1], test, points)}
    curves["aligned"] = barrier(result.graph, states[0], moved, test, points)
    way = repairs(result.graph, [states[0], moved], data).get(result.kept.repair) if data else None
    if way:
        curves[f"aligned + {result.kept.repair}"] = barrier(
            result.graph, states[0], moved, test, points, lambda state, at: way(state, (1 - at, at))
        )
    return curves


def _write(
    folder: Path, result: MergeResult, module: nn.Module, args: Any, kwargs: Any,
    recipe: Mapping[str, Any], report: dict[str, Any], onnx: bool, talk: Talk,
) -> None:  # fmt: skip
    metadata = {"recipe": json.dumps(recipe, sort_keys=True)}
    save_checkpoint(folder / "merged.safetensors", result.kept.state, metadata)
    if result.alignment:
        result.alignment.save(folder / "alignment.safetensors")
    if onnx:
        talk.say("writing merged.onnx and comparing it with torch")
        module.load_state_dict(dict(result.kept.state))
        written = export_onnx(
            module.cpu(), folder / "merged.onnx", _cpu(args), _cpu(kwargs), metadata=metadata
        )
        report["onnx"] = {
            "opset": written.opset,
            "max_error": dict(written.max_error),
            "dynamic": written.dynamic,
        }
    (folder / "report.json").write_text(json.dumps(report, indent=2, sort_keys=True, default=str) + "\n")


def _cpu(x: Any) -> Any:
    return torch.utils._pytree.tree_map(lambda t: t.cpu() if isinstance(t, torch.Tensor) else t, x)


def _show(result: MergeResult, target: str) -> None:
    rows = [
        (
            name + (" (kept)" if name == result.kept.name else ""),
            f"{s.loss:.4f}" if s else "",
            f"{100 * s.accuracy:.2f} %" if s else "",
        )
        for name, s in rows_of(result)
    ]
    table("Held-out data", ("", "loss (nats)", "accuracy"), rows)
    out.print(f"kept: {result.kept.name}; written to {target}", markup=False)
