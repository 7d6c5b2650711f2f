"""Commands on several models: match and merge."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated

import typer

from graphmerge.cli import options, report
from graphmerge.cli.console import Talk
from graphmerge.cli.flags import Paths, Values, recipe_of, with_recipe
from graphmerge.cli.shared import Net, Tracing, on_model, talking, traced
from graphmerge.cli.spec import parse_options
from graphmerge.errors import UsageError
from graphmerge.evaluate import check_batches, save_descent_plot
from graphmerge.match import METHODS as MATCHING
from graphmerge.match import MatchingInterrupted, load_alignment
from graphmerge.match import match as match_models
from graphmerge.match.methods import described
from graphmerge.match.methods import settings as check_settings
from graphmerge.merge import METHODS
from graphmerge.pipeline import prove
from graphmerge.recipe import Recipe
from graphmerge.repair import METHODS as REPAIRS
from graphmerge.run import run_recipe
from graphmerge.sources import load_data, load_loss
from graphmerge.sources.weights import load_weights

First = Annotated[str, typer.Argument(metavar="A", help="First checkpoint; the result is in its frame.")]
Second = Annotated[str, typer.Argument(metavar="B", help="Second checkpoint.")]


def matching_table() -> str:
    """The matching methods as lines for the help text."""
    return "\n\n".join(["Matching methods:", *described()])


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


def repairs_table() -> str:
    """The repairs as lines for the help text."""
    lines = ["Repairs:"]
    for name, m in REPAIRS.items():
        given = "".join(f" {n}={o.default} ({o.expected})" for n, o in m.options.items())
        lines.append(f"{name}:{given and given + ';'} {m.meaning} [{m.source}]")
    return "\n\n".join(lines)


def tables() -> str:
    """The text below the help of ``merge``."""
    return f"{methods_table()}\n\n{repairs_table()}"


@contextmanager
def _kept_on_interrupt(target: str) -> Iterator[None]:
    """Ctrl-C: what matching had reached is written beside the target, and the message says how to go on."""
    try:
        yield
    except MatchingInterrupted as stop:
        partial = Path(target).with_suffix(".partial.safetensors")
        stop.alignment.save(partial)
        raise KeyboardInterrupt(
            f"interrupted; what was reached is in {partial}: add --start {partial} to go on from there"
        ) from stop


@talking
@on_model
@traced
def match(
    a: First,
    b: Second,
    net: Net,
    tracing: Tracing,
    target: Annotated[str, typer.Option("--out", "-o", help="The alignment file to write (.safetensors).")],
    method: Annotated[str, typer.Option("--method", help="How to match; the methods are below.")] = "weight",
    settings: Annotated[
        list[str] | None,
        typer.Option("--option", metavar="<str>", help="An option of the method, e.g. restarts=3; repeats."),
    ] = None,
    data: options.Data = None,
    loss: options.Loss = "cross-entropy",
    start: Annotated[
        str | None, typer.Option("--start", help="An alignment file to go on from instead of anew.")
    ] = None,
    plot: Annotated[
        str | None, typer.Option("--plot", help="Also draw the descent: a file .svg, .png or .pdf.")
    ] = None,
    force: options.Force = False,
    *,
    talk: Talk,
) -> None:
    """Find the symmetry that brings B into the frame of A; save it."""
    for path in filter(None, (target, plot)):
        if Path(path).exists() and not force:
            raise UsageError(f"{path} exists; pass --force to replace it")
    if plot and Path(plot).suffix not in (".svg", ".png", ".pdf"):
        raise UsageError(f"--plot {plot}: expected a file that ends in .svg, .png or .pdf")
    given = check_settings(method, parse_options(settings or ()))
    _require_data(method, data)
    module, args, kwargs = net.load(talk)
    states = [load_weights(module, path, talk.say).state for path in (a, b)]
    judged, batches = load_loss(loss), load_data(data) if data else None
    if batches is not None:
        wanted = judged if MATCHING[method].targets else None
        check_batches(module, states[0], batches, (args, kwargs), talk.say, wanted)
    graph, _ = prove(tracing.graph(module, args, kwargs, talk), module, net.seed, talk.say, talk.tick)
    with _kept_on_interrupt(target):
        found = match_models(
            graph, states[0], states[1], method, batches, net.seed,
            start=load_alignment(start, graph) if start else None, loss=judged, progress=talk.tick,
            **given,
        )  # fmt: skip
    found.save(target)
    if plot:
        save_descent_plot(found, plot)
    talk.result(found.to_json(), lambda: report.show_alignment(found))


@talking
@with_recipe
def merge(
    paths: Paths,
    given: Values,
    force: options.Force = False,
    *,
    talk: Talk,
) -> None:
    """Merge checkpoints, or run a recipe.

    It checks the inputs, traces the model, proves its symmetries by running it, matches, merges, repairs,
    evaluates, and exports. Without data it matches by weights, and repairs and measures nothing.
    """
    run_and_show(recipe_of(paths, given), force, talk)


def run_and_show(recipe: Recipe, force: bool, talk: Talk) -> None:
    """Run a recipe and print what came out."""
    done = run_recipe(recipe, force=force, say=talk.say, progress=talk.tick)
    talk.result(done.report, lambda: report.show(done.result, str(done.folder), done.report["warnings"]))
    if done.not_exported:
        raise done.not_exported


def _require_data(method: str, data: str | None) -> None:
    if method in MATCHING and MATCHING[method].needs_data and not data:
        raise UsageError(f"--method {method} needs --data: batches (inputs, targets)")
