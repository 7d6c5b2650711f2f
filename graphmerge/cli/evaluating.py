"""The command that measures: one model, several, and what lies between them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import nullcontext
from functools import partial
from pathlib import Path
from typing import Annotated, Any

import torch
import typer
from torch import nn
from torch.utils import _pytree as pytree

from graphmerge.candidates import repairs
from graphmerge.cli import options
from graphmerge.cli.console import Talk, table
from graphmerge.cli.shared import Net, Tracing, on_model, talking, traced
from graphmerge.cli.spec import parse_options
from graphmerge.errors import InputError, UsageError
from graphmerge.evaluate import check_batches, require_unmoved
from graphmerge.evaluate.measures import MEASURES, Findings, Table, Task, chosen
from graphmerge.evaluate.measures.measure import Way
from graphmerge.evaluate.plot import save_figure
from graphmerge.files import hash_of, staged_output
from graphmerge.losses import Loss
from graphmerge.match import METHODS as MATCHING
from graphmerge.match import match
from graphmerge.metrics import Metric
from graphmerge.pipeline import prove
from graphmerge.repair import require_applies, require_fitting
from graphmerge.report import Document, Section, finite, json_text, measured, page
from graphmerge.run.summary import letter
from graphmerge.sources import (
    Batches,
    example_inputs,
    import_object,
    load_data,
    load_loss,
)
from graphmerge.sources.weights import load_weights
from graphmerge.symmetry import ModelGraph
from graphmerge.trace.run import State, device_of, split_batch, to_device

FEW = 3
"""Samples of the first batch to trace with, where no --input is given."""


def measures_table() -> str:
    """The measures as lines for the help text: options with their defaults, what they need, source."""
    lines = ["Measures:"]
    for name, m in MEASURES.items():
        given = "".join(f" {n}={o.default} ({o.expected})" for n, o in m.options.items())
        low, high = m.models
        needs = "" if low == 1 else f"; {low} models" + ("" if high == low else " or more")
        source = f" [{m.source}]" if m.source else ""
        lines.append(f"{name}:{given and given + ';'} {m.text}{needs}{source}")
    return "\n\n".join(lines)


@talking
@on_model
@traced
def evaluate(
    checkpoints: Annotated[
        list[str], typer.Argument(metavar="A [B]...", help="Checkpoints (.safetensors, .pt); A is the frame.")
    ],
    net: Net,
    tracing: Tracing,
    data: Annotated[
        str,
        typer.Option(
            "--data", "-d", help="Batches (inputs, targets): module:loader, an .npz or a .safetensors."
        ),
    ],
    measure: Annotated[
        list[str] | None,
        typer.Option(
            "--measure",
            metavar="<str>",
            help="What to measure (score by default); the table is below; repeats.",
        ),
    ] = None,
    option: Annotated[
        list[str] | None,
        typer.Option(
            "--option",
            metavar="<str>",
            help="An option of the measures that have it, e.g. points=11; repeats.",
        ),
    ] = None,
    train: Annotated[
        str | None,
        typer.Option("--train", help="Training batches: to match and repair with, and for train curves."),
    ] = None,
    align: Annotated[
        str, typer.Option("--align", help="How to bring all models into the frame of A: none, or as `match`.")
    ] = "weight",
    repair: Annotated[
        str,
        typer.Option("--repair", help="Repair of what is merged, such as repair+temperature."),
    ] = "none",
    loss: options.Loss = "cross-entropy",
    metric: Annotated[
        list[str] | None,
        typer.Option(
            "--metric",
            metavar="<str>",
            help="module:name of a function of (outputs, targets), or of a class with update and compute.",
        ),
    ] = None,
    layers: Annotated[
        list[str] | None,
        typer.Option(
            "--layers", metavar="<str>", help="Pattern of layers to look at, e.g. 'layer1.*'; repeats."
        ),
    ] = None,
    target: Annotated[
        str | None, typer.Option("--out", "-o", help="Folder for the figures and evaluation.json.")
    ] = None,
    force: options.Force = False,
    *,
    talk: Talk,
) -> None:
    """Measure checkpoints, their merge, and what lies between them."""
    wanted = chosen(measure or ["score"], len(checkpoints), parse_options(option or ()), loss)
    _require_known(align, repair, train, loss)
    with staged_output(target, force, inputs=checkpoints) if target else nullcontext() as folder:
        module = net.module()
        states = [load_weights(module, path, talk.say).state for path in checkpoints]
        judged = load_loss(loss)
        batches, training = load_data(data), load_data(train) if train else None
        if not batches:
            raise InputError(f"--data {data} holds no batch")
        for each in filter(None, (batches, training)):
            check_batches(module, states[0], each, say=talk.say, loss=judged)
        facts = [MEASURES[name] for name in wanted]
        graph = aligned = None
        if len(states) > 1 and align != "none" and any(m.frames for m in facts):
            aligned = _aligned(
                tracing, module, states, align, net.inputs or (), training, batches, judged, net.seed, talk
            )
        if any(m.traced for m in facts) or repair != "none":
            graph = _graph(tracing, module, split_batch(batches[0]), talk)
        task = Task(
            module, graph, _names(checkpoints), tuple(states), batches,
            aligned=aligned, train=training, repair=repair,
            repairs=_repairs(graph, training, repair, judged), seed=net.seed, layers=layers or (),
            loss=judged, metrics=_metrics(metric or []), progress=talk.tick,
        )  # fmt: skip
        found = {}
        for name, settings in wanted.items():
            talk.say(f"measuring {name}")
            found[name] = MEASURES[name].run(task, **settings)
        report = _report(task, checkpoints, align, found)
        if folder:
            write(folder, found, report)
    talk.result(report, lambda: show(found))


def _report(task: Task, paths: Sequence[str], align: str, found: dict[str, Findings]) -> dict[str, Any]:
    """Everything that was found, and on what, as plain data."""
    files = zip(task.names, paths, strict=True)
    made_by = {
        "models": [{"name": n, "path": Path(p).name, "sha256": hash_of(p)} for n, p in files],
        "align": align if task.aligned else "none",
        "repair": task.repair,
        "loss": task.loss.name,
        "seed": task.seed,
    }
    return made_by | {name: finite(f.data) for name, f in found.items()}


def write(folder: Path, found: dict[str, Findings], data: dict[str, Any]) -> None:
    """evaluation.json, the same as a page, and every figure as .svg and .png."""
    (folder / "evaluation.json").write_text(json_text(data), encoding="utf-8")
    (folder / "evaluation.html").write_text(page(document(found, data)), encoding="utf-8")
    for findings in found.values():
        for name, figure in findings.figures.items():
            for ending in ("svg", "png"):
                save_figure(figure, folder / f"{name}.{ending}")


def document(found: dict[str, Findings], data: dict[str, Any]) -> Document:
    """Everything that was found as a report."""
    models = tuple((m["name"], m["path"], m["sha256"]) for m in data["models"])
    files = Section(
        "Models",
        (f"Aligned: {data['align']}. Repair: {data['repair']}. Loss: {data['loss']}. Seed: {data['seed']}.",),
        (Table("", ("model", "file", "SHA-256"), models, words=True),),
    )
    lead = f"Measured: {', '.join(found)}."
    sections = [measured(name, f) for name, f in found.items()]
    return Document(f"Evaluation of {', '.join(m[0] for m in models)}", lead, (*sections, files))


def show(found: dict[str, Findings]) -> None:
    """All tables."""
    for findings in found.values():
        for t in findings.tables:
            table(t.title, t.columns, t.rows)


def _require_known(align: str, repair: str, train: str | None, loss: str) -> None:
    require_fitting(repair, loss)
    if align != "none" and align not in MATCHING:
        raise UsageError(f"unknown --align {align!r}; there are: none, {', '.join(MATCHING)}")
    if align != "none" and MATCHING[align].needs_data and not train:
        raise UsageError(f"--align {align} needs --train: batches (inputs, targets) to match with")
    if repair != "none" and not train:
        raise UsageError(f"--repair {repair} needs --train: batches to measure activations on")


def _graph(tracing: Tracing, module: nn.Module, inputs: Any, talk: Talk) -> ModelGraph:
    """The graph of the model at inputs of these shapes."""
    talk.say("tracing")
    args, kwargs = to_device(inputs, device_of(module.state_dict()))
    return tracing.graph(module, args, kwargs, talk)


def _few(batches: Batches) -> Any:
    """The inputs of the first samples: every tensor that is as long as the first one is cut."""
    inputs = split_batch(batches[0])
    lengths = [len(t) for t in pytree.tree_leaves(inputs) if isinstance(t, torch.Tensor) and t.ndim]
    return pytree.tree_map(
        lambda t: t[:FEW] if isinstance(t, torch.Tensor) and t.ndim and len(t) == lengths[0] else t, inputs
    )


def _aligned(
    tracing: Tracing, module: nn.Module, states: Sequence[State], align: str, inputs: Sequence[str],
    data: Batches | None, test: Batches, loss: Loss, seed: int, talk: Talk,
) -> tuple[State, ...]:  # fmt: skip
    """All models in the frame of the first; proved, and seen, to compute what they did."""
    device = device_of(module.state_dict())
    example = example_inputs(inputs, device, seed) if inputs else _few(test)
    graph, _ = prove(_graph(tracing, module, example, talk), module, seed, talk.say, talk.tick)
    moved = []
    for state in states[1:]:
        talk.say(f"matching by {align}")
        moved.append(
            match(graph, states[0], state, align, data, seed, loss=loss, progress=talk.tick).apply(state)
        )
        change = require_unmoved(graph, state, moved[-1], test[:1])
        talk.say(f"aligned; outputs change by {change:.1e}")
    return (states[0], *moved)


def _repairs(
    graph: ModelGraph | None, train: Batches | None, name: str, loss: Loss
) -> Callable[[Sequence[State]], Way] | None:
    """From models in one frame to the repair of what lies between them; None where none was asked for."""
    if graph is None or train is None or name == "none":
        return None
    require_applies(graph, name)

    def way(endpoints: Sequence[State]) -> Way:
        return repairs(graph, endpoints, train, [name], loss=loss)[name]

    return way


def _names(paths: Sequence[str]) -> tuple[str, ...]:
    """File names without endings where they tell the models apart, else letters."""
    stems = [Path(p).stem for p in paths]
    distinct = len(set(stems)) == len(stems) and "merged" not in stems
    return tuple(stems if distinct else map(letter, range(len(stems))))


def _metrics(specs: Sequence[str]) -> dict[str, Metric]:
    """The metrics that were named."""
    metrics: dict[str, Metric] = {}
    for spec in specs:
        found, arguments = import_object(spec)
        name = spec.partition("(")[0].rpartition(":")[2]
        metrics[name] = found(**arguments) if isinstance(found, type) else partial(found, **arguments)
    return metrics
