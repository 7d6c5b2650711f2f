"""What a stage costs: measured without what other work in the process would add."""

from __future__ import annotations

import gc

import pytest

from graphmerge.zoo.cost import seconds


def test_garbage_is_not_collected_while_time_is_measured() -> None:
    """Of the whole process: a sweep of it once made a trace take twice as long, on every second run."""
    seen: list[bool] = []
    assert seconds(lambda: seen.append(gc.isenabled())) >= 0
    assert seen == [False] * 3
    assert gc.isenabled()


def test_collection_goes_on_after_a_failure() -> None:
    with pytest.raises(ZeroDivisionError):
        seconds(lambda: 1 / 0)
    assert gc.isenabled()
