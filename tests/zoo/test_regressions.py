"""Regressions planted in the engine: `zoo check` catches each, and says what moved."""

from __future__ import annotations

import json
from collections import deque
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest
import torch
from toy import Zoo

from graphmerge.axes import RULES

exporting, repairing, starting, transforming = (
    import_module(f"graphmerge.{name}")
    for name in ("export.onnx", "repair.task", "match.start", "symmetry.transform")
)
"""The modules by name: functions that are called like them stand in their way."""


def failures(zoo: Zoo, folder: Path, entry: str) -> dict[str, str]:
    """What `zoo check` finds wrong with an entry: text and details of every check that failed."""
    done = zoo("check", folder, "-k", entry, "--quiet", "--force")
    report = json.loads(Path("zoo-report/report.json").read_text())
    found = {
        c["name"]: "\n".join([c["text"], *c["details"]]) for c in report["checks"] if c["outcome"] == "FAIL"
    }
    assert done.exit_code == (1 if found else 0), done.output
    assert all(f"zoo/{entry}  {name} " in done.output for name in found)
    return found


def test_without_a_regression_everything_passes(zoo: Zoo, folder: Path) -> None:
    assert failures(zoo, folder, "pair") == {}


def test_a_rule_that_is_deleted(zoo: Zoo, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The operator is then tried out, and the groups are the same: that too is told."""
    monkeypatch.delitem(RULES._rules, "aten.roll")
    found = failures(zoo, folder, "turned")
    assert list(found) == ["trace"]
    assert "has a rule no more, so tried out" in found["trace"]
    assert "aten.roll" in found["trace"]


def test_a_rule_that_fixes_what_moved(zoo: Zoo, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(RULES._rules, "aten.roll", (lambda call: call.fix_all("positions count"), "number"))
    found = failures(zoo, folder, "turned")
    assert "group one: 12 units now fixed by aten.roll at the top (positions count)" in found[
        "groups"
    ].replace("at roll", "at the top")


def test_a_permutation_that_is_off_by_one(zoo: Zoo, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of every tensor the last dimension that moves comes out one place further."""
    whole = transforming.reorder

    def off(t: torch.Tensor, sources: dict[int, Any]) -> torch.Tensor:
        moved = whole(t, sources)
        return moved.roll(1, max(sources)) if t.ndim > 1 and sources else moved

    monkeypatch.setattr(transforming, "reorder", off)
    found = failures(zoo, folder, "turned")
    assert "group one: outputs change when its units move" in found["invariance"]


def test_statistics_of_repair_that_are_swapped(
    zoo: Zoo, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Mean and standard deviation."""
    right = repairing.goal
    monkeypatch.setattr(repairing, "goal", lambda *given: right(*given)[::-1])
    found = failures(zoo, folder, "pair")
    assert set(found) == {"merged", "barrier"}
    assert "the merged model is worse: accuracy" in found["merged"]
    assert "the barrier is worse: loss" in found["barrier"]


def test_a_weight_of_the_onnx_file_that_is_changed(
    zoo: Zoo, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = exporting.convert

    def changed(*given: Any) -> Any:
        program = whole(*given)
        name, value = next(
            (n, v.const_value.numpy().copy()) for n, v in program.model.graph.initializers.items()
            if v.const_value.numpy().ndim == 2
        )  # fmt: skip
        value[0, 0] += 1
        program.apply_weights({name: torch.from_numpy(value)})
        return program

    monkeypatch.setattr(exporting, "convert", changed)
    found = failures(zoo, folder, "exported")
    assert list(found) == ["onnx"]
    assert "does not compute what the model computes" in found["onnx"]


def test_a_matching_that_is_slower(zoo: Zoo, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    text = (folder / "zoo.yml").read_text()
    (folder / "zoo.yml").write_text(text.replace("time: 100", "time: 3"))
    nearest = starting._one_to_one
    slow = lambda near: deque((nearest(near) for _ in range(30_000)), maxlen=1).pop()  # noqa: E731
    monkeypatch.setattr(starting, "_one_to_one", slow)
    found = failures(zoo, folder, "turned")
    assert list(found) == ["time"]
    assert "match takes" in found["time"]


def test_other_weights_than_those_of_the_zoo(zoo: Zoo, folder: Path) -> None:
    """Nothing is measured on them."""
    path = folder / "pair-1.safetensors"
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)
    found = failures(zoo, folder, "pair")
    assert list(found) == ["weights"]
    assert "pair-1.safetensors" in found["weights"]
