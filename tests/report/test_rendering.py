"""One report, rendered as a page and as Markdown: complete, self-contained, the same each time."""

from __future__ import annotations

import json
import re
import xml.etree.ElementTree as ET
from collections import Counter

import pytest

from graphmerge.evaluate.measures import Table
from graphmerge.evaluate.plot import layer_figure, matrix_figure
from graphmerge.report import Document, Section, json_text, markdown, page
from graphmerge.report.page import LONG

HOSTILE = "<script>alert('1')</script>&amp;|`*x*`[a](b) \x1b[31m\x00\u202e $\\frac{$ {{7*7}} --> </svg>"
SVG = "{http://www.w3.org/2000/svg}"
HTML = "{http://www.w3.org/1999/xhtml}"


def report(name: str) -> Document:
    """A report in which every text is ``name``."""
    bars = layer_figure([name, "two"], {name: [1, 2], "other": [2, 1]}, "value", name)
    matrix = matrix_figure([[0, 1], [1, 0]], ["a", "b"], [name, "b"], "value", name)
    short = Table(name, (name, "n"), ((name, "0.1250"),))
    long = Table(name, (name, "n"), tuple((f"{name} {k}", str(k)) for k in range(LONG + 1)))
    return Document(
        name,
        name,
        (
            Section("First", (name,), (short,), {"bars": bars}, brief=True),
            Section("Alarm", (name, name), alarm=True, brief=True),
            Section("Deeper", (), (long,), {"matrix": matrix}, code=name),
        ),
    )  # fmt: skip


@pytest.fixture(scope="module")
def text() -> str:
    return page(report(HOSTILE))


def test_the_page_is_well_formed_and_no_name_becomes_markup(text: str) -> None:
    root = ET.fromstring(text)
    tags = Counter(e.tag.removeprefix(HTML) for e in root.iter())
    assert tags["script"] == 0
    assert tags[f"{SVG}svg"] == 2
    seen = root.findtext(f".//{HTML}h1") or ""
    assert seen == "".join(c if c.isprintable() else "\N{REPLACEMENT CHARACTER}" for c in HOSTILE)
    assert "{{7*7}}" in seen


def test_the_page_asks_for_nothing_outside_itself(text: str) -> None:
    assert not re.search(r"<(script|link|iframe|object|img)\b|@import|javascript:", text)
    for e in ET.fromstring(text).iter():
        for name, value in e.attrib.items():
            if name.rpartition("}")[2] in {"href", "src"}:
                assert value.startswith(("#", "data:image/png;base64,"))
    assert all(target.startswith("#") for target in re.findall(r"url\(([^)]*)\)", text))


def test_every_id_is_there_once_and_every_reference_leads_to_one(text: str) -> None:
    root = ET.fromstring(text)
    ids = Counter(e.attrib["id"] for e in root.iter() if "id" in e.attrib)
    assert set(ids.values()) == {1}
    led = re.findall(r'href="#([^"]*)"', text) + re.findall(r"url\(#([^)]*)\)", text)
    assert led
    assert set(led) <= set(ids)


def test_long_tables_are_folded_and_short_ones_are_not(text: str) -> None:
    root = ET.fromstring(text)
    folded = [len(d.findall(f".//{HTML}tbody/{HTML}tr")) for d in root.iter(f"{HTML}details")]
    assert folded == [LONG + 1, 0]  # the long table, and the text that is shown as it stands
    assert len(list(root.iter(f"{HTML}table"))) == 2


def test_the_same_report_gives_the_same_bytes() -> None:
    document = report(HOSTILE)
    assert page(document) == page(document) == page(report(HOSTILE))
    assert markdown(document) == markdown(report(HOSTILE))


def test_the_card_holds_the_brief_sections_with_the_same_cells() -> None:
    short = markdown(report("plain"))
    assert (
        "# plain\n\nplain\n\n## First\n\nplain\n\nplain:\n\n| plain | n |\n|---|---:|\n| plain | 0.1250 |"
        in short
    )
    assert "## Alarm\n\n- plain\n\n- plain\n" in short
    assert "Deeper" not in short


def test_names_cannot_break_out_of_markdown() -> None:
    short = markdown(report(HOSTILE))
    rows = [line for line in short.splitlines() if line.startswith("|")]
    assert all(line.count("|") == 3 for line in rows)
    assert not set("<>`*[]\x1b\x00") & set(short)


def test_json_has_null_for_what_is_not_finite_and_sorted_keys() -> None:
    made = json_text({"b": [float("nan"), 1.5], "a": {"x": float("inf")}})
    assert json.loads(made) == {"a": {"x": None}, "b": [None, 1.5]}
    assert made.index('"a"') < made.index('"b"')
