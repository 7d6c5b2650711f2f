"""Commands on several models: match and merge."""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import Annotated

import typer

from graphmerge.cli import options, report
from graphmerge.cli.commands import load_weights, prepare
from graphmerge.cli.console import Talk, exit_codes
from graphmerge.cli.spec import load_data, parse_dtype, parse_options, parse_weights
from graphmerge.errors import InputError, UsageError
from graphmerge.evaluate import save_descent_plot
from graphmerge.files import same_bytes, staged_output
from graphmerge.match import METHODS as MATCHING
from graphmerge.match import load_alignment
from graphmerge.match import match as match_models
from graphmerge.match.methods import described
from graphmerge.match.methods import settings as check_settings
from graphmerge.merge import METHODS, require_call
from graphmerge.pipeline import merge_models, prove
from graphmerge.symmetry import trace

First = Annotated[str, typer.Argument(metavar="A", help="First checkpoint; the result is in its frame.")]
Second = Annotated[str, typer.Argument(metavar="B", help="Second checkpoint.")]


def methods_table() -> str:
    """The merge methods as lines for the help text: options with their defaults, needs, source."""
    lines = ["Merge methods:"]
    for name, m in METHODS.items():
        given = "".join(f" {n}={o.default} ({o.expected})" for n, o in m.options.items())
        needs = [w for w, wanted in (("--base", m.base), ("--data", m.data and m.data != "own"),
                 ("--own-data", m.data == "own")) if wanted]  # fmt: skip
        needed = f"; needs {', '.join(needs)}" if needs else ""
        lines.append(f"{name}:{given and given + ';'} {m.text}{needed} [{m.source}]")
    return "\n\n".join(lines)


def _refuse_same(a: str, b: str, allowed: bool) -> None:
    if not allowed and Path(a).is_file() and Path(b).is_file() and same_bytes(a, b):
        raise InputError(
            f"{a} and {b} hold the same bytes: merging them gives them back; pass --allow-duplicate to go on"
        )


def match(
    a: First,
    b: Second,
    model: options.Model,
    inputs: options.Inputs,
    target: Annotated[str, typer.Option("--out", "-o", help="The alignment file to write (.safetensors).")],
    method: Annotated[str, typer.Option("--method", help="\n\n".join(described()))] = "weight",
    settings: Annotated[
        list[str] | None, typer.Option("--option", help="An option of the method, e.g. restarts=3; repeats.")
    ] = None,
    data: options.Data = None,
    start: Annotated[
        str | None, typer.Option("--start", help="An alignment file to go on from instead of anew.")
    ] = None,
    plot: Annotated[
        str | None, typer.Option("--plot", help="Also draw the descent: a file .svg, .png or .pdf.")
    ] = None,
    freeze: options.Freeze = None,
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
        for path in filter(None, (target, plot)):
            if Path(path).exists() and not force:
                raise UsageError(f"{path} exists; pass --force to replace it")
        if plot and Path(plot).suffix not in (".svg", ".png", ".pdf"):
            raise UsageError(f"--plot {plot}: expected a file that ends in .svg, .png or .pdf")
        given = check_settings(method, parse_options(settings or ()))
        _require_data(method, data)
        module, args, kwargs = prepare(model, inputs, None, device, seed, talk)
        states = [load_weights(module, path, talk).state for path in (a, b)]
        graph, _ = prove(trace(module, args, kwargs, freeze=freeze or ()), module, seed, talk.say, talk.tick)
        found = match_models(
            graph, states[0], states[1], method, load_data(data) if data else None, seed,
            start=load_alignment(start, graph) if start else None, progress=talk.tick, **given,
        )  # fmt: skip
        found.save(target)
        if plot:
            save_descent_plot(found, plot)
        talk.result(found.to_json(), lambda: report.show_alignment(found))


def merge(
    a: First,
    b: Second,
    model: options.Model,
    inputs: options.Inputs,
    target: options.Out,
    more: Annotated[
        list[str] | None, typer.Argument(metavar="[C]...", help="Further ones, each aligned to A.")
    ] = None,
    method: Annotated[
        str,
        typer.Option("--method", help="Matching: auto (weight and activation), none, or one of `match`."),
    ] = "auto",
    merge_method: Annotated[
        str, typer.Option("--merge", help="How to merge; the methods are below.")
    ] = "average",
    option: Annotated[
        list[str] | None,
        typer.Option("--option", help="An option of the merge method, e.g. density=0.5; repeats."),
    ] = None,
    weights: Annotated[
        list[str] | None,
        typer.Option(
            "--weights",
            help="One per model, e.g. 0.3,0.7; 'layer1.*=1,0' for parameters or groups; repeats.",
        ),
    ] = None,
    base: Annotated[
        str | None, typer.Option("--base", help="The checkpoint that the models were fine-tuned from.")
    ] = None,
    data: options.Data = None,
    own_data: Annotated[
        list[str] | None,
        typer.Option("--own-data", help="Batches of one model, where they differ; once per model, in order."),
    ] = None,
    test: options.Test = None,
    points: Annotated[
        int, typer.Option("--points", min=0, help="Points of the barrier curves (0: none).")
    ] = 25,
    dtype: Annotated[
        str | None,
        typer.Option("--dtype", help="Of merged.safetensors, e.g. float16; else that of A."),
    ] = None,
    onnx: Annotated[bool, typer.Option(help="Also write merged.onnx.")] = True,
    restarts: options.Restarts = 2,
    allow_duplicate: Annotated[
        bool, typer.Option("--allow-duplicate", help="Merge a file with itself.")
    ] = False,
    strict: options.Strict = False,
    freeze: options.Freeze = None,
    force: options.Force = False,
    seed: options.Seed = 0,
    as_json: options.Json = False,
    quiet: options.Quiet = False,
    debug: options.Debug = False,
    device: options.Device = "auto",
) -> None:
    """Merge checkpoints: check, trace, verify, match, merge, repair, evaluate, export."""
    with exit_codes(debug):
        talk = Talk(quiet, as_json)
        methods, wanted = _methods(method, data), parse_dtype(dtype) if dtype else None
        if wanted and not wanted.is_floating_point:
            raise UsageError(f"--dtype {dtype}: expected a floating dtype, for weights are no whole numbers")
        if points == 1:
            raise UsageError("--points 1: a curve needs at least 2 points (0 draws none)")
        paths = [a, b, *(more or ())]
        for one, other in itertools.combinations(paths, 2):
            _refuse_same(one, other, allow_duplicate)
        chosen, shares = parse_options(option or ()), parse_weights(weights or ())
        require_call(merge_method, len(paths), chosen, shares, base, data, own_data)
        size = Path(a).stat().st_size if Path(a).exists() else 0
        inputs_read = [*paths, *([base] if base else [])]
        with staged_output(target, force, inputs=inputs_read, needed_bytes=4 * size) as folder:
            module, args, kwargs = prepare(model, inputs, None, device, seed, talk)
            first, *others = (load_weights(module, path, talk) for path in paths)
            states = [first.state, *(w.state for w in others)]
            start = load_weights(module, base, talk).state if base else None
            batches, tests = (load_data(d) if d else None for d in (data, test))
            result = merge_models(
                module, states, args, kwargs, data=batches, test=tests, methods=methods,
                merge_method=merge_method, options=chosen, weights=shares, base=start,
                own_data=[load_data(d) for d in own_data] if own_data else None, seed=seed,
                restarts=restarts, strict=strict, freeze=freeze or (), say=talk.say, progress=talk.tick,
            )  # fmt: skip
            made_by = report.recipe(paths, base, model, inputs, seed, weights, result)
            drawn = report.curves(result, states, batches, tests, points, talk)
            found = made_by | {"rows": report.scores(result), "notes": dict(result.kept_merge.notes)}
            found |= {"barrier": {n: c.to_json() for n, c in drawn.items()}} if drawn else {}
            if onnx:
                talk.say("writing merged.onnx and comparing it with torch")
                found["onnx"] = report.write_onnx(folder, result, module, args, kwargs, made_by)
            dtypes = {n: wanted if wanted and d.is_floating_point else d for n, d in first.stored.items()}
            report.write(folder, result, dtypes, made_by, found, drawn)
        talk.result(found, lambda: report.show(result, target))


def _methods(method: str, data: str | None) -> tuple[str, ...]:
    """The ways of matching to try."""
    known: dict[str, tuple[str, ...]] = {"auto": ("weight", "activation"), "none": ()}
    known |= {name: (name,) for name in MATCHING}
    if method not in known:
        raise UsageError(f"unknown --method {method!r}; there are: {', '.join(known)}")
    _require_data(method, data)
    return known[method]


def _require_data(method: str, data: str | None) -> None:
    if method in MATCHING and MATCHING[method].needs_data and not data:
        raise UsageError(f"--method {method} needs --data: batches (inputs, targets)")
