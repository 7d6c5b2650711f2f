"""The ``graphmerge`` command."""

from __future__ import annotations

from importlib.metadata import version
from typing import Annotated

import typer

from graphmerge.cli import commands, evaluating, inspecting, merging, planning, zoo
from graphmerge.cli.console import INTERRUPTED, err, out
from graphmerge.cli.demo import demo

PAIR = "--model net:make --input 2x3x32x32"

EXAMPLES = {
    "inspect": f"Example: graphmerge inspect {PAIR} --graph net.svg",
    "verify": f"Example: graphmerge verify {PAIR}",
    "explain": f"Example: graphmerge explain conv1.weight:0 fc.weight:1 {PAIR}",
    "match": f"Example: graphmerge match a.safetensors b.safetensors {PAIR} --out alignment.safetensors",
    "plan": "Example: graphmerge plan recipe.yaml",
    "merge": "Examples:\n\n"
    f"graphmerge merge a.safetensors b.safetensors {PAIR} --data net:batches --out merged\n\n"
    "graphmerge merge bert-one bert-two --out merged (Hugging Face folders)\n\n"
    "graphmerge merge recipe.yaml --seed 3 --out merged",
    "evaluate": "Example: graphmerge evaluate a.safetensors --model net:make --data net:test",
    "export": f"Example: graphmerge export {PAIR} --weights a.safetensors --out a.onnx",
    "schema": "Example: graphmerge schema > recipe.schema.json",
    "demo": "Example: graphmerge demo --out demo",
}
"""What a user could type, for the help text of each command."""

app = typer.Typer(
    name="graphmerge",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
)

TABLES = {merging.merge: merging.tables, evaluating.evaluate: evaluating.measures_table}
"""What stands below the help text of a command."""

for command in (
    inspecting.inspect, commands.verify, inspecting.explain, merging.match, planning.plan, merging.merge,
    evaluating.evaluate, commands.export, planning.schema, demo,
):  # fmt: skip
    below = [EXAMPLES[command.__name__], *([TABLES[command]()] if command in TABLES else [])]
    app.command(epilog="\n\n".join(below))(command)


app.add_typer(zoo.app, name="zoo")


def _version(wanted: bool) -> None:
    if wanted:
        out.print(version("graphmerge"))
        raise typer.Exit


@app.callback()
def options(
    _version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version.")
    ] = False,
    no_color: Annotated[
        bool, typer.Option("--no-color", help="No colours; the environment variable NO_COLOR says the same.")
    ] = False,
) -> None:
    """Merge neural networks of any one architecture: derive, prove, align, merge, repair, export."""
    for console in (out, err):
        console.no_color = console.no_color or no_color


def main() -> None:
    """Run the command line."""
    try:
        app()
    except KeyboardInterrupt as error:  # before a command has begun
        raise SystemExit(INTERRUPTED) from error
