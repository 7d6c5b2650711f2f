"""The tables of tools/merge_zoo.py, and the cells that other tools share."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Sequence
from typing import NamedTuple, TypedDict

from graphmerge.evaluate import Score
from graphmerge.match import METHODS
from models_zoo.registry import ZOO


class Measured(NamedTuple):
    """Accuracy in percent and loss in nats on test data."""

    accuracy: float
    loss: float


class Found(TypedDict):
    """What one merge gave; ``midpoints`` by matching and repair, seconds of matching by matching.

    ``method`` is how was matched, ``merge`` how was merged.
    """

    name: str
    seeds: tuple[int, int]
    method: str
    merge: str
    samples: tuple[int, int]
    endpoints: list[Measured]
    ensemble: Measured
    midpoints: dict[str, dict[str, Measured]]
    kept: tuple[str, str]
    matching_seconds: dict[str, float]
    seconds: float


def measured(score: Score | None) -> Measured:
    """A score as it is logged."""
    if score is None:
        raise ValueError("a zoo entry without test data")
    return Measured(round(100 * score.accuracy, 3), round(score.loss, 5))


def cell(score: Measured | None) -> str:
    """Accuracy in percent and loss in nats."""
    return f"{score.accuracy:.2f} ({score.loss:.3f})" if score else "-"


def mean(scores: Sequence[Measured | None]) -> str:
    """The same, over several pairs, with the standard deviation of the accuracy."""
    there = [s for s in scores if s]
    if len(there) < len(scores):
        return "-"
    spread = f" ± {statistics.stdev(s.accuracy for s in there):.2f}" if len(there) > 1 else ""
    return (
        f"{statistics.fmean(s.accuracy for s in there):.2f}{spread}"
        f" ({statistics.fmean(s.loss for s in there):.3f})"
    )


def best(row: Found, matching: str, repaired: bool) -> Measured | None:
    """The score of lowest loss of a way of matching, with or without repair."""
    scores = [s for r, s in row["midpoints"].get(matching, {}).items() if (r != "none") == repaired]
    return min(scores, key=lambda s: s.loss) if scores else None


def kept(row: Found) -> Measured:
    """The score of what the pipeline chose on held-out training data."""
    matching, repair = row["kept"]
    return row["midpoints"][matching][repair]


def barrier_gone(row: Found) -> float:
    """Part of the naive midpoint's loss barrier, in percent, that is gone in the model that was kept."""
    ends = statistics.fmean(e.loss for e in row["endpoints"])
    return 100 * (1 - (kept(row).loss - ends) / (row["midpoints"]["none"]["none"].loss - ends))


COLUMNS: dict[str, Callable[[Found], Measured | None]] = {
    "a": lambda r: r["endpoints"][0],
    "b": lambda r: r["endpoints"][1],
    "naive": lambda r: best(r, "none", False),
    "weight": lambda r: best(r, "weight", False),
    "weight + repair": lambda r: best(r, "weight", True),
    "activation": lambda r: best(r, "activation", False),
    "activation + repair": lambda r: best(r, "activation", True),
    "ensemble": lambda r: r["ensemble"],
    "kept": kept,
}


def named(of_one: tuple[str, str]) -> str:
    """A matching and a repair in words."""
    matching, repair = of_one
    return ("naive" if matching == "none" else matching) + ("" if repair == "none" else f" + {repair}")


def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A Markdown table."""
    lines = ["| " + " | ".join(head) + " |", "|---" * len(head) + "|"]
    return "\n".join([*lines, *("| " + " | ".join(r) + " |" for r in rows)]) + "\n"


def by_name(rows: Sequence[Found]) -> dict[str, list[Found]]:
    """Rows of the default method, by network."""
    usual = [r for r in rows if r["method"] == "auto"]
    return {n: [r for r in usual if r["name"] == n] for n in ZOO if any(r["name"] == n for r in usual)}


def pairs_table(rows: Sequence[Found]) -> str:
    """A row for each pair, and one for the mean of a network's pairs."""
    lines = []
    for name, own in by_name(rows).items():
        for r in own:
            seeds = "-".join(map(str, r["seeds"]))
            cells = [cell(of(r)) for of in COLUMNS.values()]
            lines.append(
                [
                    f"{name} {seeds}",
                    *cells,
                    " + ".join(r["kept"]).replace("none + ", ""),
                    f"{barrier_gone(r):.0f}",
                ]
            )
        if len(own) > 1:
            cells = [mean([of(r) for r in own]) for of in COLUMNS.values()]
            gone = statistics.fmean(map(barrier_gone, own))
            lines.append([f"**{name}**, {len(own)} pairs", *cells, "", f"{gone:.0f}"])
    return table(["pair", *COLUMNS, "which", "barrier gone, %"], lines)


def repairs_table(rows: Sequence[Found]) -> str:
    """A row for each network and matching: the mean over pairs after each repair."""
    usual = by_name(rows)
    names = dict.fromkeys(
        n for own in usual.values() for r in own for m in r["midpoints"].values() for n in m
    )
    singles = [n for n in names if "+" not in n]
    lines = []
    for name, own in usual.items():
        for matching in own[0]["midpoints"]:
            cells = [mean([r["midpoints"][matching].get(n) for r in own]) for n in singles]
            lines.append([name, str(len(own)), "naive" if matching == "none" else matching, *cells])
    return table(["network", "pairs", "matching", *singles], lines)


def merges_table(rows: Sequence[Found]) -> str:
    """A row for each network and matching: the average beside what other merges give."""
    usual = by_name([r for r in rows if r["merge"] == "average"])
    other = by_name([r for r in rows if r["merge"] != "average"])
    lines = []
    for name, theirs in other.items():
        seeds = [r["seeds"] for r in theirs]
        own = [r for r in usual.get(name, []) if r["seeds"] in seeds]
        ends = mean([e for r in theirs for e in r["endpoints"]])
        for matching in theirs[0]["midpoints"]:
            averages = [mean([best(r, matching, repaired) for r in own]) for repaired in (False, True)]
            solved = mean([best(r, matching, False) for r in theirs])
            named_so = "naive" if matching == "none" else matching
            lines.append([name, str(len(theirs)), ends, named_so, *averages, solved])
    head = ["network", "pairs", "endpoints", "matching", "average", "average + repair", "least squares"]
    return table(head, lines)


def methods_table(rows: Sequence[Found]) -> str:
    """Every matching method on the first pair of each network that was merged by others than the usual."""
    lines = []
    for name in dict.fromkeys(r["name"] for r in rows if r["method"] != "auto"):
        own = [r for r in rows if r["name"] == name and r["seeds"] == by_name(rows)[name][0]["seeds"]]
        ends = " / ".join(cell(e) for e in own[0]["endpoints"])
        lines.append([name, "*endpoints*", ends, "", ""])
        lines.append([name, "*none*", *(cell(best(own[0], "none", x)) for x in (False, True)), ""])
        for method in METHODS:
            for r in own:
                if method in r["matching_seconds"]:
                    cells = [cell(best(r, method, repaired)) for repaired in (False, True)]
                    lines.append([name, method, *cells, f"{r['matching_seconds'][method]:.1f}"])
    return table(["network", "matching", "midpoint", "with the best repair", "seconds"], lines)
