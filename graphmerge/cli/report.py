"""Tables for people: of a merge and of an alignment."""

from __future__ import annotations

import itertools
from collections.abc import Sequence

from graphmerge.cli.console import out, table
from graphmerge.evaluate.measures.measure import filled, percent
from graphmerge.match import Alignment
from graphmerge.match.alignment import START
from graphmerge.pipeline import MergeResult
from graphmerge.run.summary import rows


def show(result: MergeResult, target: str, warnings: Sequence[str]) -> None:
    """The summary table, what was kept, and what should not be overlooked."""
    cells = [
        (
            name + (" (kept)" if name == result.kept.name else ""),
            f"{s.loss:.4f}" if s else "",
            percent(s.accuracy) if s else "",
        )
        for name, s in rows(result)
    ]
    table(_measured_on(result), *filled(("", f"loss ({result.loss.unit})", "accuracy"), cells))
    out.print(f"kept: {result.kept.name}; written to {target}", markup=False, soft_wrap=True)
    for warning in warnings:
        out.print(f"warning: {warning}", markup=False, soft_wrap=True)


def show_alignment(found: Alignment) -> None:
    """What moved, the course of the descent sweep by sweep, and how sure the end is."""
    moved = [(group, str(n)) for group, n in found.transform.moved_units().items()]
    table(f"{found.method} matching", ("group", "units moved"), moved)
    course = []
    for sweep, group in itertools.groupby(found.history, key=lambda s: s.sweep):
        steps = list(group)
        units = str(sum(s.moved for s in steps))
        name = "start" if sweep == START else str(sweep + 1)
        course.append((name, str(len(steps)), units, f"{steps[-1].objective:.6g}"))
    title = f"objective {found.start:.6g} -> {found.objective:.6g} in {found.seconds:.1f} s"
    if course:
        table(title, ("sweep", "steps", "units moved", "objective"), course)
    else:
        out.print(f"{title}: nothing better was found", markup=False)
    out.print(", ".join(f"{stage} {s:.1f} s" for stage, s in found.stages.items()), markup=False)
    if found.gap is not None:
        sure = "certified: no other order of any one group is better" if found.certified else "not certified"
        out.print(f"{sure} (relative gap at most {found.gap:.1e})", markup=False)


def _measured_on(result: MergeResult) -> str:
    if not result.endpoints:
        return "Nothing was measured: there is no --data and no --test"
    if all(c.held_out is None for c in result.candidates):
        return "Test data (repairs and a choice between them would need --data)"
    same = all(c.score is c.held_out for c in result.candidates)
    return "Part of the data that was held out" if same else "Test data (chosen by a part of --data held out)"
