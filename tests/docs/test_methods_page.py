"""The page about methods names every method that there is, and none that there is not."""

from __future__ import annotations

import re

import pytest
from pages import ROOT

from graphmerge.match import METHODS as MATCHING
from graphmerge.match import WAYS
from graphmerge.merge import METHODS as MERGING
from graphmerge.repair import METHODS as REPAIRS

HALF_A_DIGIT = 0.0501

PAGE = (ROOT / "docs" / "methods.md").read_text()


@pytest.mark.parametrize(
    ("flag", "known", "further"), [("--method", MATCHING, {"none", "auto"}), ("--merge", MERGING, set())]
)
def test_commands_name_methods_that_exist(flag: str, known: dict[str, object], further: set[str]) -> None:
    named = set(re.findall(rf"{flag} ([\w+-]+)", PAGE))
    assert named <= known.keys() | further
    assert known.keys() <= named


@pytest.mark.parametrize("name", [*WAYS, *REPAIRS])
def test_ways_of_many_and_repairs_are_on_the_page(name: str) -> None:
    assert f"`{name}`" in PAGE


def test_our_figures_stand_in_the_results() -> None:
    """Accuracies of our tables are those of RESULTS, to one decimal."""
    results = [float(x) for x in re.findall(r"\b\d\d?\.\d\d?\b", (ROOT / "RESULTS.md").read_text())]
    tables = PAGE[PAGE.index("## Matching") : PAGE.index("## Every published system")]
    shown = re.findall(r"(?<=[|*/ ])(\d\d?\.\d)(?=[ *|])", tables)
    assert len(shown) > 100
    gone = [x for x in shown if min(abs(float(x) - r) for r in results) > HALF_A_DIGIT]
    assert gone == [], "RESULTS.md has changed: bring docs/methods.md up to date"
