"""Commands that run one model: verify, export."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from graphmerge.cli import options
from graphmerge.cli.console import Talk, table
from graphmerge.cli.shared import Net, Tracing, on_model, talking, traced
from graphmerge.errors import UsageError
from graphmerge.export import export_onnx
from graphmerge.symmetry.verify import verify as verify_graph


@talking
@on_model
@traced
def verify(
    net: Net,
    tracing: Tracing,
    weights: options.Weights = None,
    *,
    talk: Talk,
) -> None:
    """Prove every symmetry group by running the model.

    The exit code is 1 when one fails.
    """
    module, args, kwargs = net.load(talk, weights)
    graph = tracing.graph(module, args, kwargs, talk)
    talk.say(f"running the model with each of {len(graph.groups)} groups")
    result = verify_graph(graph, module, net.seed, progress=talk.tick)
    rows = [
        (
            g.name,
            f"{g.error:.1e}",
            f"{g.control:.1e}",
            ("holds" if g.passed else "FAILS") + ("" if g.observable else ", not observable"),
        )
        for g in result.groups
    ]
    data = {
        "passed": result.passed,
        "max_error": result.max_error,
        "tolerance": result.tolerance,
        "noise": result.noise,
        "groups": [
            {
                "name": g.name,
                "error": g.error,
                "control": g.control,
                "passed": g.passed,
                "observable": g.observable,
            }
            for g in result.groups
        ],
    }
    title = f"largest relative change of an output {result.max_error:.1e}, tolerance {result.tolerance:.1e}"
    talk.result(data, lambda: table(title, ("group", "moved", "control", ""), rows))
    result.require()


@talking
@on_model
def export(
    net: Net,
    weights: Annotated[str, typer.Option("--weights", "-w", help="Checkpoint (.safetensors, .pt).")],
    target: Annotated[str, typer.Option("--out", "-o", help="The .onnx file to write.")],
    static: Annotated[bool, typer.Option("--static", help="Fix the batch size to that of --input.")] = False,
    force: options.Force = False,
    *,
    talk: Talk,
) -> None:
    """Write an ONNX file and check it against torch.

    The exit code is 1, and nothing is written, when onnxruntime does not agree with torch.
    """
    if Path(target).exists() and not force:
        raise UsageError(f"{target} exists; pass --force to replace it")
    module, args, kwargs = net.load(talk, weights)
    talk.say("exporting and comparing with onnxruntime")
    report = export_onnx(module, target, args, kwargs, dynamic_batch=not static)
    found = {
        "path": str(report.path),
        "opset": report.opset,
        "nodes": report.nodes,
        "bytes": report.bytes,
    }
    found |= {"max_error": dict(report.max_error), "dynamic": report.dynamic}
    rows = [(str(n), f"{e:.1e}") for n, e in report.max_error.items()]
    talk.result(
        found, lambda: table(f"{target}: {report.nodes} nodes", ("batch", "largest difference"), rows)
    )
