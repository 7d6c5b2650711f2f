"""Every example of the documentation runs and prints what the page shows; every link leads somewhere."""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from pages import FENCE, PAGES, ROOT, blocks, fits, run

from graphmerge.axes import RULES

LINK = re.compile(r"\]\((?!https?:)([^)#]*)(#[^)]*)?\)")


@pytest.fixture(autouse=True)
def _folder_of_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Files, modules and rules of one page are gone before the next."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setattr(RULES, "_rules", dict(RULES._rules))
    monkeypatch.setenv("COLUMNS", "100")
    names = [b.word.removesuffix(".py") for page in PAGES for b in blocks(page) if b.word.endswith(".py")]
    others = {n: sys.modules.pop(n) for n in names if n in sys.modules}  # other tests have modules, too
    yield
    for name in names:
        sys.modules.pop(name, None)
    sys.modules.update(others)


@pytest.mark.parametrize("page", PAGES, ids=lambda p: str(p.relative_to(ROOT)))
def test_examples_print_and_draw_what_the_page_shows(page: Path, tmp_path: Path) -> None:
    for x in run(page):
        assert fits(x.shown, x.printed, x.about), f"{x.where} shows\n{x.shown}\nand prints\n{x.printed}"
    for drawn in tmp_path.glob("*.svg"):
        shown = page.parent / drawn.name
        assert shown.read_text() == drawn.read_text(), f"{page.name} draws another {drawn.name}"


@pytest.mark.parametrize("page", PAGES, ids=lambda p: str(p.relative_to(ROOT)))
def test_links_lead_to_files_and_headings(page: Path) -> None:
    for link in LINK.finditer(FENCE.sub("", page.read_text())):
        target = page.parent / link[1] if link[1] else page
        assert target.exists(), f"{page.name} links to {link[1]}, which is not there"
        if link[2]:
            assert link[2][1:] in anchors(target), f"{page.name} links to {link[0]}: no such heading"


def anchors(page: Path) -> set[str]:
    """The headings of a page as links name them."""
    headings = re.findall(r"^#+ (.*)$", page.read_text(), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", h.lower()).replace(" ", "-") for h in headings}


def test_shown_text_may_leave_out_parts() -> None:
    assert fits("3 groups\n...\nend\n", "3 groups  \none\ntwo\nend\n")
    assert fits("took ... s", "took 1.2 s")
    assert not fits("3 groups", "3 groups\nmore")
    assert not fits("", "something")
    assert fits("error 1.2e-16", "error 3.4e-17")
    assert not fits("loss 0.51", "loss 0.52")
    assert fits("loss  0.51 |", "loss 10.52 |", about=True)
    assert not fits("loss 0.51, kept", "loss 0.52, left", about=True)


def test_the_index_links_every_page() -> None:
    index = (ROOT / "docs" / "README.md").read_text()
    assert [p.name for p in PAGES if p.name != "README.md" and f"]({p.name})" not in index] == []
