"""Traces kept on disk: a .pt2 archive per model, found again by all that the trace depends on."""

from __future__ import annotations

import json
import operator
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.export import ExportedProgram

from graphmerge.errors import InputError, TraceError, refusal
from graphmerge.files.checkpoint import sha256
from graphmerge.files.output import staged_output
from graphmerge.progress import Progress, silent
from graphmerge.trace.export import exported, program_of, quiet_eval
from graphmerge.trace.fingerprint import file_hash, fingerprint, local_sources
from graphmerge.trace.program import Program

ARCHIVE, SEAL = "program.pt2", "seal.json"


def cached_program(
    model: nn.Module,
    args: Sequence[Any],
    kwargs: Mapping[str, Any] | None,
    cache: str | Path,
    progress: Progress = silent,
) -> Program:
    """``export_program``, or its result as it was kept below the folder ``cache`` by an earlier call.

    A trace is found by the hash of the model's code and settings, of shapes, inputs and versions
    (``trace.fingerprint``), and used only while every source file outside of installed packages is as it
    was; else the model is traced anew, and ``progress`` is told why. What is not seen: a global
    variable that was changed at run time. Weights are not kept, only shapes.

    Reading a .pt2 archive can run code. So none is read but those that were written here: each has its
    SHA-256 beside it, and must still have it. That guards against damage and mix-ups, not against
    somebody who may write into the folder: keep it where only you can write.

    Raises
    ------
    InputError
        The kept trace is damaged.
    TraceError
        The model cannot be traced, or torch cannot write its trace to a file.
    """
    args, kwargs = tuple(args), dict(kwargs or {})
    folder = Path(cache) / fingerprint(model, args, kwargs)
    if folder.exists():
        seal = _checked(folder)
        changed = [p for p, was in seal["sources"].items() if file_hash(p) != was]
        if not changed:
            progress(f"reading the trace kept in {folder}")
            return program_of(model, _load(folder / ARCHIVE), (args, kwargs))
        progress(f"traced anew, for {changed[0]} has changed")
    fresh = exported(model, args, kwargs, progress)
    program = program_of(model, fresh, (args, kwargs))
    if program.held:  # an archive does not tell in whose memory a constant lies
        progress("the trace is not kept, for a tensor of the model cannot move alone")
    else:
        progress(f"keeping the trace in {folder}")
        _save(fresh, model, folder)
    return program


def _checked(folder: Path) -> dict[str, Any]:
    """The seal of a kept trace; InputError unless the archive is the one that was written with it."""
    try:
        seal = json.loads((folder / SEAL).read_text(encoding="utf-8"))
        seen = sha256(folder / ARCHIVE)
        whole = seal["sha256"] == seen and isinstance(seal["sources"], dict)
    except (OSError, ValueError, KeyError, TypeError) as error:
        whole, seen = False, str(error)
    if not whole:
        raise InputError(
            refusal(
                f"The kept trace {str(folder)!r} is damaged.",
                expected=f"{ARCHIVE} with the SHA-256 that {SEAL} beside it tells",
                seen=seen,
                means="the file is not the one that was written; reading it could run foreign code",
                fix="delete that folder; the model is then traced anew",
            )
        )
    return dict(seal)


def _load(archive: Path) -> ExportedProgram:
    """A kept trace as torch.export left it: reading adds results nobody asked for."""
    program = torch.export.load(archive)
    graph = program.graph_module.graph
    for node in reversed(graph.nodes):
        if node.target is operator.getitem and not node.users:
            graph.erase_node(node)
    graph.output_node().meta.pop("val", None)
    program.graph_module.recompile()
    return program


def _save(program: ExportedProgram, model: nn.Module, folder: Path) -> None:
    """Archive and seal as one folder, complete or not at all; of weights the shapes alone."""
    program.state_dict.update({n: _without_data(t) for n, t in program.state_dict.items()})
    with staged_output(folder, force=True) as part:
        try:
            with quiet_eval(model):
                torch.export.save(program, part / ARCHIVE)
        except Exception as error:
            raise TraceError(
                f"the trace of {type(model).__name__} cannot be kept: {type(error).__name__}: {error}\n"
                "  To do: trace without a cache."
            ) from error
        seal = {"sha256": sha256(part / ARCHIVE), "model": type(model).__name__, "sources": local_sources()}
        (part / SEAL).write_text(json.dumps(seal, indent=2, sort_keys=True) + "\n", encoding="utf-8")


def _without_data(t: torch.Tensor) -> torch.Tensor:
    empty = t.detach().to("meta")
    return nn.Parameter(empty, t.requires_grad) if isinstance(t, nn.Parameter) else empty
