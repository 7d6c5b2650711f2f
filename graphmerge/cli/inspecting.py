"""Commands that show the symmetries of one model and the reasons: inspect and explain."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from graphmerge.cli import options
from graphmerge.cli.console import Talk, out
from graphmerge.cli.data import graph_json
from graphmerge.cli.picture import draw
from graphmerge.cli.shared import Net, Tracing, on_model, talking, traced
from graphmerge.cli.spec import parse_place
from graphmerge.cli.tree import show_tree
from graphmerge.errors import UsageError
from graphmerge.files import write_text


@talking
@on_model
@traced
def inspect(
    net: Net,
    tracing: Tracing,
    picture: Annotated[
        str | None,
        typer.Option("--graph", help="Draw the constraint graph coloured by group: an .svg or .html file."),
    ] = None,
    force: options.Force = False,
    *,
    talk: Talk,
) -> None:
    """Show a model's symmetry groups, and what stays fixed and why."""
    if picture:
        _require_picture(Path(picture), force)
    module, args, kwargs = net.load(talk)
    graph = tracing.graph(module, args, kwargs, talk)
    if picture:
        write_text(picture, draw(graph, html=Path(picture).suffix == ".html"))
        talk.say(f"drawn: {picture}")
    talk.result(graph_json(graph), lambda: show_tree(graph))


def _require_picture(target: Path, force: bool) -> None:
    if target.suffix not in (".svg", ".html"):
        raise UsageError(f"--graph {target}: expected a name that ends in .svg or .html")
    if target.exists() and not force:
        raise UsageError(f"{target} exists; pass --force to replace it")


@talking
@on_model
@traced
def explain(
    net: Net,
    tracing: Tracing,
    place: Annotated[
        str,
        typer.Argument(metavar="PARAMETER:DIM", help="A dimension, such as layer1.0.conv1.weight:0."),
    ],
    other: Annotated[
        str | None,
        typer.Argument(metavar="PARAMETER:DIM", help="Why it moves together with this one, or not."),
    ] = None,
    *,
    talk: Talk,
) -> None:
    """Say why a dimension moves with another, or why it is fixed.

    Every reason comes with the line of the model's code that it follows from.
    """
    module, args, kwargs = net.load(talk)
    graph = tracing.graph(module, args, kwargs, talk)
    text = graph.explain(*parse_place(place), parse_place(other) if other else None)
    talk.result({"explanation": text}, lambda: out.print(text, markup=False, soft_wrap=True))
