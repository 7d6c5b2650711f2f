"""What passes and what fails beside a baseline, by hand."""

from __future__ import annotations

import math
from typing import Any

import pytest

from graphmerge.zoo import Entry, Measured, judge

GOOD: dict[str, dict[str, Any]] = {
    "invariance": {"error": 1e-12, "tolerance": 1e-9, "failed": [], "hidden": []},
    "planted": {"units": 4, "recovered": 4, "distance": 1e-9},
    "accuracy": {"accuracy": [0.9, 0.8], "loss": [0.3, 0.4]},
    "match": {"objective": [100.0]},
    "merged": {"accuracy": 0.85, "loss": 0.5},
    "barrier": {"loss": 0.1, "error": 0.05},
    "time": {"trace": 3.0, "match": 9.0},
    "memory": {"match": 2.0},
}
ENTRY = Entry.model_validate({"model": "n:m", "inputs": ["a", "b"], "data": "n:d", "onnx": "none"})


def failing(what: str, baseline: dict[str, Any] | None = None, **facts: Any) -> bool:
    """Whether a check fails where the facts differ so from the baseline."""
    rest = dict.fromkeys(("weights", "trace", "groups"), "not of interest")
    found = Measured("a", GOOD | {what: GOOD[what] | facts}, waiting=rest)
    (check,) = [c for c in judge(found, ENTRY, GOOD if baseline is None else baseline) if c.name == what]
    return check.outcome == "FAIL"


BOUNDS: list[tuple[str, str, Any, Any]] = [
    ("invariance", "error", 1e-9, 2e-9),
    ("planted", "distance", 1e-6, 2e-6),
    ("accuracy", "accuracy", [0.904, 0.796], [0.9, 0.81]),
    ("match", "objective", [99.95], [99.8]),
    ("merged", "accuracy", 0.846, 0.84),
    ("barrier", "loss", 0.115, 0.13),
    ("time", "match", 27.9, 28.1),
    ("memory", "match", 3.9, 4.1),
]


@pytest.mark.parametrize(("what", "key", "within", "beyond"), BOUNDS)
def test_bounds_and_what_is_not_a_number(what: str, key: str, within: Any, beyond: Any) -> None:
    nothing: Any = [math.nan] * len(within) if isinstance(within, list) else math.nan
    assert not failing(what)
    assert not failing(what, **{key: within})
    assert failing(what, **{key: beyond})
    assert failing(what, **{key: nothing})
    assert failing(what, {}) == (what != "invariance")


@pytest.mark.parametrize("what", ["accuracy", "match"])
def test_another_number_of_models_fails(what: str) -> None:
    (key, found) = next(iter(GOOD[what].items()))
    assert failing(what, **{key: [*found, 0.9]})
