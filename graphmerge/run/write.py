"""The files of an output folder."""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from matplotlib.figure import Figure
from torch.utils import _pytree as pytree

from graphmerge.evaluate import BarrierCurve, save_barrier_plot
from graphmerge.evaluate.plot import barrier_figure, descent_figure
from graphmerge.export import export_onnx
from graphmerge.files import WHOLE, check_finite, save_model
from graphmerge.pipeline import MergeResult
from graphmerge.recipe import lock_text
from graphmerge.report import Document, json_text, page
from graphmerge.run.card import card
from graphmerge.run.measured import aligned_by
from graphmerge.run.open import Opened
from graphmerge.run.summary import letter
from graphmerge.sources.converted import as_in_file
from graphmerge.sources.huggingface import CONFIG, read_config, side_files
from graphmerge.sources.weights import put_weights

PATH = "Loss along the path from a to b"


def write_merge(
    folder: Path, result: MergeResult, dtypes: Mapping[str, torch.dtype], made_by: Mapping[str, Any],
    shard_size: int, drawn: Mapping[str, BarrierCurve], allow_nonfinite: bool = False,
) -> tuple[Path, ...]:  # fmt: skip
    """The checkpoint with the names in ``dtypes``, the alignments and the plot; the checkpoint's files."""
    state = {n: result.kept.state[n].to(dtype) for n, dtype in dtypes.items()}
    if not allow_nonfinite:
        check_finite(state, folder / WHOLE)
    stored = as_in_file(result.graph.model, state)
    files = save_model(folder, stored, {"recipe": made_by}, shard_size)
    for k, alignment in enumerate(result.kept_alignments, 1):
        which = "" if len(result.kept_alignments) == 1 else f"-{letter(k)}"
        alignment.save(folder / f"alignment{which}.safetensors")
    if drawn:
        save_barrier_plot(drawn, result.ensemble, folder / "barrier.png", PATH)
    return files


def write_onnx(
    folder: Path, result: MergeResult, opened: Opened, made_by: Mapping[str, Any]
) -> dict[str, Any]:
    """merged.onnx, compared with torch; what to report of it."""
    module, args, kwargs = opened.model, opened.args, opened.kwargs
    put_weights(module, result.kept.state)
    args, kwargs = pytree.tree_map(lambda t: t.cpu() if isinstance(t, torch.Tensor) else t, (args, kwargs))
    metadata = {"recipe": json.dumps(made_by, sort_keys=True)}
    written = export_onnx(
        module.cpu(),
        folder / "merged.onnx",
        args,
        kwargs,
        metadata=metadata,
        dynamic_batch=not opened.recipe.static,
    )
    return {"opset": written.opset, "max_error": dict(written.max_error), "dynamic": written.dynamic}


def figures(result: MergeResult, drawn: Mapping[str, BarrierCurve]) -> dict[str, Figure]:
    """The pictures of a merge: barrier curves, and the course of the (first) matching."""
    found = {"barrier": barrier_figure(drawn, result.ensemble, PATH)} if drawn else {}
    moves = aligned_by(result)
    return found | ({"descent": descent_figure(moves[0])} if moves and moves[0].history else {})


def write_texts(folder: Path, report: Mapping[str, Any], target: Path, shown: Document) -> None:
    """The report as data, as a page and as the model card, and the recipe that gives ``target`` again."""
    (folder / "report.json").write_text(json_text(report), encoding="utf-8")
    (folder / "report.html").write_text(page(shown), encoding="utf-8")
    (folder / "README.md").write_text(card(shown), encoding="utf-8")
    made = report["made_with"] | {"files": report["files"]}
    (folder / "recipe.lock.yaml").write_text(lock_text(report["recipe"], made, target), encoding="utf-8")


def carry_over(described: Path, folder: Path, out_dtype: str) -> None:
    """Config, tokenizer and other side files of a model's folder; the config tells the dtype."""
    for file in side_files(described):
        shutil.copyfile(file, folder / file.name)
    config = read_config(folder)
    said = next((k for k in ("dtype", "torch_dtype") if k in config), None)
    if said and out_dtype != "same":
        text = json.dumps(config | {said: out_dtype}, indent=2) + "\n"
        (folder / CONFIG).write_text(text, encoding="utf-8")
