"""What a report warns of, and how it tells what was kept, worked by hand."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from graphmerge.run.facts import is_text, reductions, warnings
from graphmerge.run.sections import why

ROW = {"kept": False, "accuracy": 0.5, "samples": 9}
QUIET: dict[str, Any] = {
    "rows": [
        {**ROW, "name": "model a", "kind": "model", "loss": 1.0},
        {**ROW, "name": "model b", "kind": "model", "loss": 1.2},
        {**ROW, "name": "weight matching", "kind": "candidate", "loss": 1.1, "kept": True},
    ],
    "matching": "weight",
    "choice": {"samples": 500},
    "unit": "nats",
    "alignments": [{"method": "weight", "model": "b", "converged": True, "notes": {}}],
    "repair_notes": {},
    "batches": {"all": 9, "left out": 1},
    "symmetry": {"groups": [{"name": "fc"}], "unobservable": [], "pinned": []},
}


def changed(**parts: object) -> dict[str, Any]:
    return {**QUIET, **parts}


def test_nothing_is_warned_of_where_all_went_well() -> None:
    assert warnings(QUIET) == []


@pytest.mark.parametrize(
    ("told", "fragment"),
    [
        (changed(rows=[{**QUIET["rows"][0]}, {**QUIET["rows"][2], "loss": 1.3}]), "(1.3000 nats) is worse"),
        (changed(rows=[{**QUIET["rows"][2], "loss": float("nan")}, QUIET["rows"][0]]), "is not a number"),
        (changed(rows=[{"name": "naive"}]), "No data to measure by"),
        (changed(matching="none"), "did not help"),
        (changed(choice={"samples": 9}), "chosen on 9 samples"),
        (changed(symmetry={**QUIET["symmetry"], "groups": []}), "no units that could move"),
        (changed(symmetry={**QUIET["symmetry"], "unobservable": ["one"]}), "shows when they move: one."),
        (changed(symmetry={**QUIET["symmetry"], "pinned": ["sort (at node)"]}), "without a rule"),
        (changed(alignments=[{**QUIET["alignments"][0], "converged": False}]), "matching of model b stop"),
        (changed(alignments=[{**QUIET["alignments"][0], "notes": {"ambiguous": {"fc": 2}}}]), "with a twin"),
        (changed(alignments=[{**QUIET["alignments"][0], "notes": {"tables": {"fc": "mask"}}}]), "fc (mask)"),
        (changed(repair_notes={"repair": {"dead units": {"fc.weight": 3, "up.weight": 1}}}), "alone 4 units"),
        (changed(batches={"all": 9, "left out": 4}), "4 of 9 batches have other shapes than the first"),
        (changed(onnx={"error": "no rule"}), "There is no merged.onnx: no rule"),
    ],
)  # fmt: skip
def test_what_is_warned_of(told: dict[str, Any], fragment: str) -> None:
    (line,) = warnings(told)
    assert fragment in line


def test_why_says_the_loss_the_margin_and_what_was_passed_over() -> None:
    naive, matched, repaired = (
        {"name": n, "held-out loss": x}
        for n, x in (("naive", 2.0), ("matched", 0.5), ("matched + repair", 0.49))
    )
    choice = {"candidates": 3, "margin": 0.05, "samples": 40, "first": naive, "lowest": repaired}
    text = why({"unit": "nats", "choice": {**choice, "kept": matched}})
    assert "Kept: matched, with a held-out loss of 0.5000 nats over 40 predictions" in text
    assert "by 5 % at least" in text
    assert "The naive mean has 2.0000 nats" in text
    assert "matched + repair: 0.4900 nats" in text
    assert "lowest of all" not in why({"unit": "nats", "choice": {**choice, "kept": repaired}})


def test_texts_are_told_from_pictures_and_from_whole_sentences() -> None:
    tokens, labels = torch.zeros(2, 5, dtype=torch.int64), torch.zeros(2, dtype=torch.int64)
    assert is_text([(tokens, tokens)])
    assert not is_text([(tokens, labels)])
    assert not is_text([(torch.zeros(2, 5), tokens)])
    assert not is_text(None)


def test_no_reduction_where_there_was_no_barrier() -> None:
    from graphmerge.evaluate import BarrierCurve, Score

    def curve(top: float) -> BarrierCurve:
        return BarrierCurve((0, 0.5, 1), tuple(Score(x, 0.5, 9) for x in (1.0, top, 1.0)))

    assert reductions({"naive": curve(3.0), "aligned": curve(1.5)}) == {"aligned": 0.75}
    assert reductions({"naive": curve(1.0), "aligned": curve(1.5)}) == {"aligned": None}
