"""What there is to tell of one merge, as plain data: the choice, the alignments, the symmetries."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch.utils import _pytree as pytree

from graphmerge.candidates import MARGIN, Candidate
from graphmerge.evaluate import BarrierCurve
from graphmerge.pipeline import Batches, MergeResult
from graphmerge.run.summary import letter
from graphmerge.symmetry import ModelGraph
from graphmerge.trace.run import split_batch

FEW = 32
"""Samples to choose by below which a report warns of it."""


def choice(result: MergeResult) -> dict[str, Any]:
    """What the kept candidate was chosen by, and what it was chosen over."""
    first = result.candidates[0]
    seen = [c for c in result.candidates if c.held_out and math.isfinite(c.held_out.loss)]
    lowest = min(seen, key=_loss, default=None)
    return {
        "candidates": len(result.candidates),
        "margin": MARGIN,
        "samples": result.kept.held_out.samples if result.kept.held_out else None,
        "kept": _held_out(result.kept),
        "first": _held_out(first),
        "lowest": _held_out(lowest) if lowest else None,
    }


def _loss(candidate: Candidate) -> float:
    assert candidate.held_out
    return candidate.held_out.loss


def _held_out(candidate: Candidate) -> dict[str, Any]:
    score = candidate.held_out
    return {"name": candidate.name, "held-out loss": score.loss if score else None}


def alignments(result: MergeResult) -> list[dict[str, Any]]:
    """How each way of matching brought each model into the frame of the first."""
    return [
        {"model": letter(k), "kept": method == result.kept.matching, **found.to_json()}
        for method, several in result.alignments.items()
        for k, found in enumerate(several, 1)
    ]


def symmetry(result: MergeResult) -> dict[str, Any]:
    """The groups with what proved them, what stays in place and why, and how much of the model moves."""
    graph, proof = result.graph, result.verification
    checks = {c.name: c for c in proof.groups}
    groups = [
        {
            "name": g.name,
            "size": g.size,
            "copies": g.copies,
            "within": list(g.within),
            "members": len(g.members),
            "error": checks[g.name].error,
            "control": checks[g.name].control,
        }
        for g in graph.groups
    ]
    return {
        "groups": groups,
        "tolerance": proof.tolerance,
        "max error": proof.max_error,
        "frozen": list(graph.frozen),
        "unobservable": list(proof.unobservable),
        "fixed": fixed(graph),
        "entries": entries(graph),
        "pinned": [f"{reason} ({where})" for where, reason in graph.pinned],
        "probed": [f"{where}: {rule}" for where, rule in graph.probed],
    }


def fixed(graph: ModelGraph) -> list[dict[str, Any]]:
    """Why dimensions stay in place: how many of each cause, the most frequent first, and one of them."""
    causes: dict[str, list[str]] = {}
    for axis in graph.fixed:
        causes.setdefault(axis.cause, []).append(f"{axis.parameter}:{axis.dim}")
    found = [{"cause": c, "dimensions": len(names), "example": names[0]} for c, names in causes.items()]
    return sorted(found, key=lambda row: -int(str(row["dimensions"])))


def entries(graph: ModelGraph) -> dict[str, int]:
    """Entries of all parameters, and of those that a group moves."""
    moved = {name for g in graph.groups for name, _ in g.members}
    sizes = {t.name: math.prod(t.shape) for t in graph.program.tensors.values() if not t.is_buffer}
    return {"all": sum(sizes.values()), "moved": sum(n for name, n in sizes.items() if name in moved)}


def reductions(curves: Mapping[str, BarrierCurve]) -> dict[str, float | None]:
    """The part of the naive loss barrier that is gone; None where there was none to take away."""
    naive = curves["naive"].loss if "naive" in curves else 0.0
    return {n: 1 - c.loss / naive if naive > 0 else None for n, c in curves.items() if n != "naive"}


def is_text(batches: Batches | None) -> bool:
    """Whether inputs are numbers of tokens, with a target for each: then perplexity means something."""
    if not batches:
        return False
    tensors = [t for t in pytree.tree_leaves(split_batch(batches[0])) if isinstance(t, torch.Tensor)]
    return bool(tensors) and not tensors[0].is_floating_point() and batches[0][1].ndim > 1


def warnings(told: dict[str, Any]) -> list[str]:
    """What a reader of the report should not overlook."""
    found = [*_of_choice(told), *_of_symmetry(told["symmetry"]), *_of_matching(told["alignments"])]
    batches = told["batches"]
    if batches["left out"] > 1:  # one, the last, is as it should be
        found.append(
            f"{batches['left out']} of {batches['all']} batches have other shapes than the first:"
            " activations were measured without them."
        )
    for method, notes in told["repair_notes"].items():
        if dead := notes.get("dead units"):
            names = _some(list(dead))
            found.append(f"{method} left alone {sum(dead.values())} units that never vary: {names}.")
    if "error" in told.get("onnx", {}):
        found.append(f"There is no merged.onnx: {told['onnx']['error']}")
    return found


def _of_choice(told: dict[str, Any]) -> list[str]:
    rows = [r for r in told["rows"] if "loss" in r]
    if not rows:
        return ["No data to measure by was given: nothing was measured, nothing was repaired."]
    ends = [r["loss"] for r in rows if r["kind"] == "model"]
    kept = next(r for r in rows if r["kept"])
    found = []
    if not math.isfinite(kept["loss"]):
        found.append("The loss of the merged model is not a number.")
    elif kept["loss"] > max(ends):
        loss = f"{kept['loss']:.4f} {told['unit']}"
        found.append(f"The merged model ({loss}) is worse than each of its models.")
    if (samples := told["choice"]["samples"]) is not None and samples < FEW:
        found.append(f"It was chosen on {samples} samples held out: chance decides on so few.")
    if told["matching"] == "none" and told["alignments"]:
        found.append("Alignment did not help: the models were merged as they are.")
    return found


def _of_symmetry(found: dict[str, Any]) -> list[str]:
    texts = [] if found["groups"] else ["The architecture has no units that could move: nothing was aligned."]
    if found["unobservable"]:
        texts.append(f"Kept in place, for nothing shows when they move: {_some(found['unobservable'])}.")
    if found["pinned"]:
        texts.append(f"Operators without a rule, so that what they touch stays: {_some(found['pinned'])}.")
    return texts


def _of_matching(found: Sequence[dict[str, Any]]) -> list[str]:
    texts = []
    for a in found:
        which = f"{a['method']} matching of model {a['model']}"
        if not a["converged"]:
            texts.append(f"{which} stopped before it had converged.")
        if tables := a["notes"].get("tables"):
            kept = ", ".join(f"{group} ({name})" for group, name in tables.items())
            texts.append(f"{which}: kept in place, for all models share a table of these units: {kept}.")
        if ties := a["notes"].get("ambiguous"):
            texts.append(f"{which}: units with a twin, of which either could have been chosen: {ties}.")
    return [t[0].upper() + t[1:] for t in texts]


def _some(names: Sequence[str], most: int = 6) -> str:
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(names[:most]) + more
