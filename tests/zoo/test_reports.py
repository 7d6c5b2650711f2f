"""The reports: one line a check, JUnit, JSON, HTML and Markdown, whatever the names in them."""

from __future__ import annotations

import json
from html.parser import HTMLParser
from pathlib import Path
from xml.etree import ElementTree

import pytest

from graphmerge.errors import UsageError
from graphmerge.zoo import Check
from graphmerge.zoo.reports import FILES, counted, lines_of, summary, write_reports

HOSTILE = "<script>alert(1)</script>\\|`x`\x1b[31m"
CHECKS = [
    Check("mlp", "trace", "PASS", "8 operators, 0 without a rule", (), 0.5),
    Check("mlp", "groups", "FAIL", "2 groups  baseline 3 groups", ("group one: gone", HOSTILE), 0.25),
    Check(HOSTILE, "onnx", "SKIP", "not run, for trace failed"),
]


class Tags(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.opened: list[str] = []
        self.open: list[str] = []
        self.text = ""

    def handle_starttag(self, tag: str, _attributes: object) -> None:
        self.opened.append(tag)
        self.open.append(tag)

    def handle_startendtag(self, tag: str, _attributes: object) -> None:
        self.opened.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text += data


@pytest.fixture
def reports(tmp_path: Path) -> Path:
    write_reports(tmp_path / "out", tmp_path / "toys", CHECKS)
    assert {p.name for p in (tmp_path / "out").iterdir()} == FILES
    return tmp_path / "out"


def test_a_line_tells_check_measurement_and_outcome() -> None:
    first, *details = lines_of(CHECKS[1])
    assert first == "zoo/mlp  groups      2 groups  baseline 3 groups  FAIL"
    assert details[0] == "    group one: gone"
    assert counted(CHECKS) == "1 passed, 1 failed, 1 not run"


def test_a_long_story_is_cut_on_the_screen() -> None:
    long = Check("mlp", "groups", "FAIL", "", tuple(map(str, range(20))))
    *_, last = lines_of(long)
    assert last == "    and 12 more"
    assert "<br>7<br>and 12 more |" in summary("", [long])


def test_junit_counts_and_tells_what_moved(reports: Path) -> None:
    root = ElementTree.parse(reports / "junit.xml").getroot()
    assert [root.get(k) for k in ("tests", "failures", "skipped")] == ["3", "1", "1"]
    case = root.findall("testsuite/testcase")[1]
    assert (case.get("classname"), case.get("name"), case.get("time")) == ("zoo.mlp", "groups", "0.250")
    failure = case.find("failure")
    assert failure is not None
    assert failure.get("message") == "2 groups  baseline 3 groups"
    assert "group one: gone\n<script>" in str(failure.text)


def test_json_has_everything(reports: Path) -> None:
    found = json.loads((reports / "report.json").read_text())
    assert found["passed"] is False
    assert found["checks"][1]["details"] == list(CHECKS[1].details)
    assert "torch" in found["versions"]


def test_the_page_stands_alone_and_runs_nothing(reports: Path) -> None:
    text = (reports / "report.html").read_text()
    page = Tags()
    page.feed(text)
    assert page.open == []
    assert not {"script", "link", "img", "iframe"} & set(page.opened)
    assert text.count("http") == 1
    assert "http://www.w3.org/1999/xhtml" in text
    assert page.opened.count("tr") == 2 + len(CHECKS)
    assert page.text.index("group one: gone") < page.text.index("8 operators")
    assert "<script>alert(1)</script>" in page.text


def test_the_summary_is_a_table_that_names_cannot_break(reports: Path) -> None:
    text = (reports / "summary.md").read_text()
    assert text.startswith("## zoo toys: 1 passed, 1 failed, 1 not run\n")
    assert "<script>" not in text
    rows = [line for line in text.splitlines() if line.startswith("|")]
    assert [r.count("|") for r in rows] == [5] * 7
    assert "\\" not in text


def test_reports_replace_reports_and_nothing_else(reports: Path, tmp_path: Path) -> None:
    write_reports(reports, tmp_path / "again", CHECKS[:1])
    assert json.loads((reports / "report.json").read_text())["passed"] is True
    (reports / "mine.txt").write_text("")
    with pytest.raises(UsageError, match="--force"):
        write_reports(reports, tmp_path / "again", CHECKS)
    assert (reports / "mine.txt").exists()


def test_reports_never_take_the_place_of_the_zoo(tmp_path: Path) -> None:
    (tmp_path / "zoo").mkdir()
    (tmp_path / "zoo" / "zoo.yml").write_text("")
    for out in (tmp_path, tmp_path / "zoo"):
        with pytest.raises(UsageError):
            write_reports(out, tmp_path / "zoo", CHECKS, force=True)
    assert (tmp_path / "zoo" / "zoo.yml").exists()
