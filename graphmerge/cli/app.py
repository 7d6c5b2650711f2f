"""The ``graphmerge`` command."""

from __future__ import annotations

from importlib.metadata import version
from typing import Annotated

import typer

from graphmerge.cli import commands, inspecting, merging, planning
from graphmerge.cli.console import out
from graphmerge.cli.demo import demo

app = typer.Typer(
    name="graphmerge",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
)

for command in (
    inspecting.inspect, commands.verify, inspecting.explain, merging.match, planning.plan, merging.merge,
    commands.evaluate, commands.export, planning.schema, demo,
):  # fmt: skip
    app.command(epilog=merging.methods_table() if command is merging.merge else None)(command)


def _version(wanted: bool) -> None:
    if wanted:
        out.print(version("graphmerge"))
        raise typer.Exit


@app.callback()
def options(
    _version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    """Merge neural networks of any one architecture: derive, prove, align, merge, repair, export."""


def main() -> None:
    """Run the command line."""
    app()
