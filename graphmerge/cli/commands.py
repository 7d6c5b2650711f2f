"""Commands that run one model: verify, export."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import torch
import typer
from torch import nn

from graphmerge.cli import options
from graphmerge.cli.console import Talk, exit_codes, table
from graphmerge.errors import UsageError
from graphmerge.export import export_onnx
from graphmerge.sources import build_model, example_inputs, pick_device
from graphmerge.sources.weights import load_weights
from graphmerge.symmetry import trace
from graphmerge.symmetry.verify import verify as verify_graph


def prepare(
    model: str,
    inputs: Sequence[str] | None,
    weights: str | None,
    device: str,
    seed: int,
    talk: Talk,
    trust: bool = False,
) -> tuple[nn.Module, tuple[Any, ...], dict[str, Any]]:
    """The module with its weights, and its example inputs."""
    place = pick_device(device)
    torch.manual_seed(seed)
    built = build_model(model, place, trust)
    module = built.module
    if weights:
        module.load_state_dict(load_weights(module, weights, talk.say).state)
    args, kwargs = example_inputs(inputs or built.examples, place, seed)
    return module, args, kwargs


def verify(
    model: options.Model,
    inputs: options.Inputs = None,
    weights: options.Weights = None,
    strict: options.Strict = False,
    freeze: options.Freeze = None,
    cache: options.Cache = None,
    seed: options.Seed = 0,
    as_json: options.Json = False,
    quiet: options.Quiet = False,
    debug: options.Debug = False,
    device: options.Device = "auto",
    trust: options.Trust = False,
) -> None:
    """Prove every symmetry group by running the model.

    The exit code is 1 when one fails.
    """
    with exit_codes(debug):
        talk = Talk(quiet, as_json)
        module, args, kwargs = prepare(model, inputs, weights, device, seed, talk, trust)
        graph = trace(
            module, args, kwargs, strict=strict, freeze=freeze or (), cache=cache, progress=talk.tick
        )
        talk.say(f"running the model with each of {len(graph.groups)} groups")
        result = verify_graph(graph, module, seed, progress=talk.tick)
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
        title = (
            f"largest relative change of an output {result.max_error:.1e}, tolerance {result.tolerance:.1e}"
        )
        talk.result(data, lambda: table(title, ("group", "moved", "control", ""), rows))
        result.require()


def export(
    model: options.Model,
    weights: Annotated[str, typer.Option("--weights", "-w", help="Checkpoint (.safetensors, .pt).")],
    target: Annotated[str, typer.Option("--out", "-o", help="The .onnx file to write.")],
    inputs: options.Inputs = None,
    static: Annotated[bool, typer.Option("--static", help="Fix the batch size to that of --input.")] = False,
    force: options.Force = False,
    seed: options.Seed = 0,
    as_json: options.Json = False,
    quiet: options.Quiet = False,
    debug: options.Debug = False,
    device: options.Device = "cpu",
    trust: options.Trust = False,
) -> None:
    """Write an ONNX file and check it against torch.

    The exit code is 1, and nothing is written, when onnxruntime does not agree with torch.
    """
    with exit_codes(debug):
        talk = Talk(quiet, as_json)
        if Path(target).exists() and not force:
            raise UsageError(f"{target} exists; pass --force to replace it")
        module, args, kwargs = prepare(model, inputs, weights, device, seed, talk, trust)
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
