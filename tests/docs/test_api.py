"""The API reference says what the docstrings say."""

from __future__ import annotations

import runpy

import pytest
from pages import ROOT

import graphmerge as gm

TOOL = runpy.run_path(str(ROOT / "tools" / "api_docs.py"))


def test_the_reference_is_up_to_date(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "100")
    assert (ROOT / "docs" / "api.md").read_text() == TOOL["page"](), "run python tools/api_docs.py"


def test_every_public_name_is_described() -> None:
    described = (ROOT / "docs" / "api.md").read_text()
    missing = [n for n in gm.__all__ if f"### {n}\n" not in described and f"- `{n}` (exit" not in described]
    assert not missing
    bare = [n for n in gm.__all__ if not (getattr(gm, n).__doc__ or "").strip()]
    assert not bare


def test_signatures_are_laid_out() -> None:
    def short(a: int, b: str = "x, y") -> bool:
        raise NotImplementedError

    assert TOOL["signature"](short, "short") == "short(a: int, b: str = 'x, y') -> bool"
    assert TOOL["_split"]("a: dict[str, int], b: int = f(1, 2)") == ["a: dict[str, int]", "b: int = f(1, 2)"]


def test_docstrings_become_markdown() -> None:
    class Two:
        """Holds ``x``.

        Raises
        ------
        InputError
            It is bad.
        """

    assert TOOL["docstring"](Two) == "Holds `x`.\n\nRaises:\n\n- `InputError`: It is bad."
