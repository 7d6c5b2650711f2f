"""baseline.json: what a hand may have done to it, and what is refused with its place."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from graphmerge.errors import InputError
from graphmerge.zoo import Entry, Measured, read_baseline
from graphmerge.zoo.baseline import updated

Edit = Callable[[Any], object]


def edited(folder: Path, edit: Edit) -> None:
    content = json.loads((folder / "baseline.json").read_text())
    edit(content["models"]["pair"])
    (folder / "baseline.json").write_text(json.dumps(content))


@pytest.mark.parametrize(
    ("edit", "said"),
    [
        (lambda e: e["trace"].pop("unknown"), "models.pair.trace.unknown: Field required"),
        (lambda e: e["accuracy"].update(accuracy="0.9"), "models.pair.accuracy.accuracy"),
        (lambda e: e["merged"].update(accuracy="0.9"), "models.pair.merged.accuracy"),
        (lambda e: e["barrier"].clear(), "models.pair.barrier.loss: Field required"),
        (lambda e: e.update(time=[1.0]), "models.pair.time"),
        (lambda e: e["memory"].update(match=None), "models.pair.memory.match"),
        (lambda e: e["groups"]["groups"][0].pop("copies"), "models.pair.groups.groups.0.copies"),
        (lambda e: e["groups"]["groups"][0].update(within=["x"]), "within 'x', and no group is called so"),
        (lambda e: e["groups"].update(fixed={"a:0": [1]}), "models.pair.groups.fixed"),
        (lambda e: e["planted"].update(units=1.5), "models.pair.planted.units"),
    ],
)
def test_a_file_edited_by_hand_is_refused_with_the_place(folder: Path, edit: Edit, said: str) -> None:
    edited(folder, edit)
    with pytest.raises(InputError) as refused:
        read_baseline(folder)
    assert said in str(refused.value)
    assert "graphmerge zoo update" in str(refused.value)


@pytest.mark.parametrize(
    "text", ["", "[]", "{}", '{"models": []}', '{"models": {"a": 1}}', "\ud800", "[" * 9999]
)
def test_what_is_no_baseline_at_all(folder: Path, text: str) -> None:
    (folder / "baseline.json").write_bytes(text.encode("utf-8", "surrogatepass"))
    with pytest.raises(InputError, match="is not a baseline"):
        read_baseline(folder)


def test_less_and_more_than_is_known_do_no_harm(folder: Path) -> None:
    edited(folder, lambda e: (e.pop("barrier"), e.update(later={"figure": 1.0})))
    found = read_baseline(folder)["pair"]
    assert "barrier" not in found
    assert found["later"] == {"figure": 1.0}


@pytest.mark.parametrize(("now", "written"), [(38.0, 38.0), (90.0, 97.0), (110.0, 97.0), (200.0, 200.0)])
def test_noise_is_not_written_down_but_a_gain_is(now: float, written: float) -> None:
    """Else what has once become better could become as bad as it was, and no check would fail."""
    entry = Entry(model="nets:net")
    found = updated({"memory": {"match": 97.0}}, Measured("a", {"memory": {"match": now}}), entry)
    assert found == {"memory": {"match": written}}


def test_a_loss_that_was_no_number_can_be_read(folder: Path) -> None:
    """No later one is within its tolerance."""
    edited(folder, lambda e: e["merged"].update(loss=float("nan")))
    assert math.isnan(read_baseline(folder)["pair"]["merged"]["loss"])
