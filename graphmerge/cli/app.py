"""The ``graphmerge`` command."""

from __future__ import annotations

from importlib.metadata import version
from typing import Annotated

import typer

from graphmerge.cli import commands, evaluating, inspecting, merging, planning, zoo
from graphmerge.cli.console import INTERRUPTED, err, examples, out
from graphmerge.cli.demo import demo

PAIR = "--model net:make --input 2x3x32x32"

EXAMPLES = {
    "inspect": (f"inspect {PAIR} --graph net.svg",),
    "verify": (f"verify {PAIR}",),
    "explain": (f"explain conv1.weight:0 fc.weight:1 {PAIR}",),
    "match": (f"match a.safetensors b.safetensors {PAIR} -o alignment.safetensors",),
    "plan": ("plan recipe.yaml", f"plan a.safetensors b.safetensors {PAIR}"),
    "merge": (
        f"merge a.safetensors b.safetensors {PAIR} -d net:batches -o merged",
        "merge bert-one bert-two --out merged",
        "merge recipe.yaml --seed 3 --out merged",
    ),
    "evaluate": ("evaluate a.safetensors b.safetensors --model net:make --data net:test --measure barrier",),
    "export": (f"export {PAIR} --weights a.safetensors --out a.onnx",),
    "schema": ("schema > recipe.schema.json",),
    "demo": ("demo --out demo",),
}
"""What a user could type, for the help text of each command."""

CODES = """\b
Exit codes:
  0    fine
  1    a gate failed: verification, ONNX parity, a check of a zoo
  2    the call or the recipe is wrong
  3    an input file or the data are bad
  4    the model cannot be traced, merged or exported
  5    the system failed: no space, no permission, no memory
  130  interrupted"""

app = typer.Typer(
    name="graphmerge",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,  # plain help: rich's cuts long flags, and leaves the text a narrow column
    epilog=CODES,
)

TABLES = {
    merging.match: merging.matching_table,
    merging.merge: merging.tables,
    evaluating.evaluate: evaluating.measures_table,
}
"""What stands below the help text of a command."""

for command in (
    inspecting.inspect, commands.verify, inspecting.explain, merging.match, planning.plan, merging.merge,
    evaluating.evaluate, commands.export, planning.schema, demo,
):  # fmt: skip
    below = [examples(*EXAMPLES[command.__name__]), *([TABLES[command]()] if command in TABLES else [])]
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
