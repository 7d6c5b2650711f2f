"""The ``graphmerge`` command."""

from __future__ import annotations

from importlib.metadata import version
from typing import Annotated

import typer

from graphmerge.cli import commands, evaluating, inspecting, merging, planning
from graphmerge.cli.console import out
from graphmerge.cli.demo import demo

app = typer.Typer(
    name="graphmerge",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
)

TABLES = {merging.merge: merging.methods_table, evaluating.evaluate: evaluating.measures_table}
"""What stands below the help text of a command."""

for command in (
    inspecting.inspect, commands.verify, inspecting.explain, merging.match, planning.plan, merging.merge,
    evaluating.evaluate, commands.export, planning.schema, demo,
):  # fmt: skip
    app.command(epilog=TABLES[command]() if command in TABLES else None)(command)


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
