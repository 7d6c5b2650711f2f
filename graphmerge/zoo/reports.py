"""The checks of a zoo as lines, JUnit XML, JSON and a Markdown summary."""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from itertools import groupby
from pathlib import Path
from xml.etree import ElementTree

from graphmerge.errors import UsageError
from graphmerge.files import require_free, staged_output
from graphmerge.zoo.baseline import versions
from graphmerge.zoo.judge import Check, passed
from graphmerge.zoo.page import page

SHOWN = 8
"""How many details a check has on the screen and in the summary; the other reports have them all."""

FILES = {"report.html", "report.json", "junit.xml", "summary.md"}

MARKUP = "&<>|\\*_`[]"
"""What means something in Markdown; as a reference to a character it does not, in a table neither."""

_UNPRINTABLE = re.compile(r"[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")
"""What XML 1.0 cannot hold."""


def lines_of(check: Check) -> Iterator[str]:
    """A check for the screen: one line, and below a failure what moved.

    >>> print(*lines_of(Check("mlp", "barrier", "PASS", "loss 0.031  baseline 0.030  tol 0.02")))
    zoo/mlp  barrier     loss 0.031  baseline 0.030  tol 0.02  PASS
    """
    yield f"zoo/{check.entry}  {check.name:<10}  {check.text}  {check.outcome}"
    yield from (f"    {line}" for line in _shown(check.details))


def _shown(details: Sequence[str]) -> list[str]:
    more = len(details) - SHOWN
    return [*details[:SHOWN], *([f"and {more} more"] if more > 0 else [])]


def counted(checks: Sequence[Check]) -> str:
    """How many passed, failed, and were not run.

    >>> counted([Check("a", "trace", "PASS", ""), Check("a", "groups", "FAIL", "")])
    '1 passed, 1 failed'
    """
    found = Counter(c.outcome for c in checks)
    skipped = f", {found['SKIP']} not run" if found["SKIP"] else ""
    return f"{found['PASS']} passed, {found['FAIL']} failed{skipped}"


def require_place(folder: str | Path, zoo: str | Path, force: bool = False) -> None:
    """UsageError unless reports on a zoo may be written to ``folder``, as ``write_reports`` does."""
    if Path(folder).is_dir() and not _ours(folder) and not force:
        raise UsageError(f"{folder} holds more than reports of a zoo; choose another --out, or pass --force")
    require_free(folder, force or _ours(folder), inputs=[zoo])


def _ours(folder: str | Path) -> bool:
    return Path(folder).is_dir() and {p.name for p in Path(folder).iterdir()} <= FILES


def write_reports(folder: str | Path, zoo: str | Path, checks: Sequence[Check], force: bool = False) -> None:
    """Put ``report.html``, ``report.json``, ``junit.xml`` and ``summary.md`` into a folder, all or none.

    Reports of an earlier run are replaced; a folder that holds anything else only with ``force``, and never
    one that holds the zoo.
    """
    require_place(folder, zoo, force)
    title = f"zoo {Path(zoo).resolve().name}"
    with staged_output(folder, force or _ours(folder), inputs=[zoo]) as new:
        texts = {
            "report.html": page(title, checks, counted(checks)),
            "report.json": as_json(checks),
            "junit.xml": junit(title, checks),
            "summary.md": summary(title, checks),
        }
        for name, text in texts.items():
            (new / name).write_text(text, encoding="utf-8")


def as_json(checks: Sequence[Check]) -> str:
    """Every check with all its details, and the versions that it ran with."""
    content = {"passed": passed(checks), "versions": versions(), "checks": [asdict(c) for c in checks]}
    return json.dumps(content, indent=1, sort_keys=True) + "\n"


def junit(title: str, checks: Sequence[Check]) -> str:
    """JUnit XML, as CI systems read it: an entry is a suite, a check a case."""
    root = ElementTree.Element("testsuites", _counts(checks) | {"name": _sound(title)})
    for entry, group in groupby(checks, lambda c: c.entry):
        found = list(group)
        suite = ElementTree.SubElement(root, "testsuite", _counts(found) | {"name": _sound(entry)})
        for c in found:
            case = ElementTree.SubElement(
                suite, "testcase", classname=f"zoo.{_sound(entry)}", name=c.name, time=f"{c.seconds:.3f}"
            )
            if c.outcome == "FAIL":
                failure = ElementTree.SubElement(case, "failure", message=_sound(c.text))
                failure.text = _sound("\n".join(c.details))
            elif c.outcome == "SKIP":
                ElementTree.SubElement(case, "skipped", message=_sound(c.text))
            else:
                ElementTree.SubElement(case, "system-out").text = _sound(c.text)
    ElementTree.indent(root)
    return '<?xml version="1.0" encoding="utf-8"?>\n' + ElementTree.tostring(root, encoding="unicode") + "\n"


def _counts(checks: Sequence[Check]) -> dict[str, str]:
    found = Counter(c.outcome for c in checks)
    numbers = {"tests": len(checks), "failures": found["FAIL"], "skipped": found["SKIP"], "errors": 0}
    return {k: str(n) for k, n in numbers.items()} | {"time": f"{sum(c.seconds for c in checks):.3f}"}


def _sound(text: str) -> str:
    return _UNPRINTABLE.sub("\N{REPLACEMENT CHARACTER}", text)


def summary(title: str, checks: Sequence[Check]) -> str:
    """Markdown for the summary of a CI step: what failed, with what moved, and a table of marks."""
    lines = [f"## {_cell(title)}: {counted(checks)}", ""]
    failed = [c for c in checks if c.outcome == "FAIL"]
    if failed:
        lines += ["| entry | check | measured | what moved |", "|---|---|---|---|"]
        lines += [
            f"| {_cell(c.entry)} | {c.name} | {_cell(c.text)} | {moved} |"
            for c in failed
            for moved in ["<br>".join(map(_cell, _shown(c.details)))]
        ]
        lines.append("")
    names = list(dict.fromkeys(c.name for c in checks))
    lines += [f"| | {' | '.join(names)} |", "|---" * (len(names) + 1) + "|"]
    for entry, group in groupby(checks, lambda c: c.entry):
        marks = {c.name: c.outcome for c in group}
        lines.append(f"| {_cell(entry)} | {' | '.join(marks.get(n, '') for n in names)} |")
    return "\n".join(lines) + "\n"


def _cell(text: str) -> str:
    """Text that stays in its cell and is no markup."""
    return "".join(f"&#{ord(c)};" if c in MARKUP else c for c in " ".join(text.split()))
