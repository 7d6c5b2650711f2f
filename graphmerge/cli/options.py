"""Options that several commands share."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from graphmerge.losses import LOSSES

Model = Annotated[
    str,
    typer.Option(
        "--model",
        "-m",
        help="The architecture: module:factory or module:factory(width=2), a Hugging Face folder, or a .pt2.",
    ),
]
Inputs = Annotated[
    list[str] | None,
    typer.Option(
        "--example-inputs",
        "--input",
        "-i",
        metavar="<str>",
        help="Example input [name=]SHAPE[:dtype], e.g. 2x3x32x32 or ids=2x7:int64; repeats.",
    ),
]
Weights = Annotated[
    str | None, typer.Option("--weights", "-w", help="Checkpoint of the model: a file or a folder.")
]
Data = Annotated[
    str | None,
    typer.Option(
        "--data",
        "-d",
        help="Batches (inputs, targets): module:loader or an .npz. To match, repair and choose by; best not"
        " those that the models were trained on.",
    ),
]
Loss = Annotated[
    str,
    typer.Option(
        "--loss",
        help=f"What counts on data: {', '.join(LOSSES)}, or module:function of (outputs, targets).",
    ),
]
Device = Annotated[str, typer.Option("--device", help="auto, cpu or cuda.")]
Seed = Annotated[int, typer.Option("--seed", help="Fixes every random choice.")]
Json = Annotated[bool, typer.Option("--json", help="Print one JSON object instead of tables.")]
Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="No progress.")]
Debug = Annotated[bool, typer.Option("--debug", help="Show tracebacks.")]
Strict = Annotated[bool, typer.Option("--strict", help="Operators without a rule are an error.")]
Freeze = Annotated[
    list[str] | None,
    typer.Option(
        "--freeze", metavar="<str>", help="Group or parameter to keep in place, e.g. 'layer3.*'; repeats."
    ),
]
Force = Annotated[bool, typer.Option("--force", help="Replace an output that exists.")]
Cache = Annotated[
    Path | None,
    typer.Option("--cache", help="Folder to keep traces in; a model that has not changed is found there."),
]
Trust = Annotated[
    bool, typer.Option("--trust", help="Read a .pt2 as MODEL, which can run code that is in it.")
]
