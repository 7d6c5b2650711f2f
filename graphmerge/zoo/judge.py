"""Whether what was measured is what the baseline says, and if not, what moved.

Bounds are written so that what is not a number (NaN) fails them.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from graphmerge.zoo.config import Entry, Tolerances
from graphmerge.zoo.groups import difference
from graphmerge.zoo.measure import Facts, Measured, names_of

NO_BASELINE = "no baseline: run `graphmerge zoo update`"

RECOVERED = 1e-6
"""Relative distance of the parameters at which a planted symmetry counts as undone."""


@dataclass(frozen=True)
class Check:
    """One line of the report. SKIP: it could not be made, for another check of the entry failed.

    ``text`` is the measurement beside the baseline, ``details`` are what moved or what was refused.
    """

    entry: str
    name: str
    outcome: Literal["PASS", "FAIL", "SKIP"]
    text: str
    details: tuple[str, ...] = ()
    seconds: float = 0.0


Verdict = tuple[str, Sequence[str]]
"""The text of a check, and its complaints; none where it passes."""


def passed(checks: Sequence[Check]) -> bool:
    """Whether nothing failed."""
    return all(c.outcome != "FAIL" for c in checks)


def unsound(measured: Measured, entry: Entry) -> list[Check]:
    """What no baseline could excuse: the checks that fail against the very facts that were measured."""
    return [c for c in judge(measured, entry, measured.facts) if c.outcome == "FAIL"]


def judge(measured: Measured, entry: Entry, baseline: Mapping[str, Facts] | None) -> list[Check]:
    """The checks of one entry; ``baseline`` holds its facts, None where it has none."""
    return [_judged(what, measured, entry, baseline) for what in names_of(entry)]


def _judged(what: str, measured: Measured, entry: Entry, baseline: Mapping[str, Facts] | None) -> Check:
    spent = measured.seconds.get(what, 0.0)
    if what in measured.waiting:
        return Check(measured.entry, what, "SKIP", f"not run, for {measured.waiting[what]} failed")
    if what in measured.errors:
        lines = measured.errors[what].splitlines()
        return Check(measured.entry, what, "FAIL", lines[0], tuple(lines[1:]), spent)
    now, was = measured.facts[what], (baseline or {}).get(what)
    text, complaints = JUDGES[what](now, was, entry.tolerances)
    missing = was is None and what in GATED
    text += f"  {NO_BASELINE}" if missing else ""
    failed = missing or bool(complaints)
    return Check(measured.entry, what, "FAIL" if failed else "PASS", text, tuple(complaints), spent)


def _weights(now: Facts, _was: Facts | None, _t: Tolerances) -> Verdict:
    return f"{now['files']} files, SHA-256 as told", ()


def _trace(now: Facts, was: Facts | None, _t: Tolerances) -> Verdict:
    """Fewer operators without a rule are better, and pass."""
    without = len(now["unknown"]) + len(now["tried"])
    new = {k: [x for x in now[k] if was is not None and x not in was[k]] for k in ("unknown", "tried")}
    complaints = [f"no longer understood, so fixed: {x}" for x in new["unknown"]]
    complaints += [f"has a rule no more, so tried out: {x}" for x in new["tried"]]
    return f"{now['operators']} operators, {without} without a rule", complaints


def _groups(now: Facts, was: Facts | None, _t: Tolerances) -> Verdict:
    units = sum(g["size"] * g["copies"] for g in now["groups"])
    text = f"{len(now['groups'])} groups, {units} units"
    return (f"{text}  baseline {len(was['groups'])} groups", difference(was, now)) if was else (text, ())


def _invariance(now: Facts, was: Facts | None, _t: Tolerances) -> Verdict:
    text = f"max change {now['error']:.1e}  tol {now['tolerance']:.0e}"
    complaints = [f"group {g}: outputs change when its units move" for g in now["failed"]]
    if not now["error"] <= now["tolerance"] and not complaints:
        complaints = ["each group holds alone, all together do not"]
    hidden = [g for g in now["hidden"] if was is not None and g not in was["hidden"]]
    return text, [*complaints, *(f"group {g}: no longer shows in the outputs" for g in hidden)]


def _planted(now: Facts, was: Facts | None, _t: Tolerances) -> Verdict:
    """What the baseline did not recover need not be recovered now (units that are twins)."""
    text = f"recovered {now['recovered']} of {now['units']} units  distance {now['distance']:.1e}"
    allowed = max(RECOVERED, 2 * was["distance"] if was else 0.0)
    if now["distance"] <= allowed:
        return text, ()
    return text, [f"a planted symmetry is no longer undone: parameters are off by {now['distance']:.1e}"]


def _accuracy(now: Facts, was: Facts | None, t: Tolerances) -> Verdict:
    """The same weights on the same data: better is as strange as worse."""
    return _all_within("model", now["accuracy"], was["accuracy"] if was else None, t.accuracy)


def _all_within(what: str, now: Sequence[float], was: Sequence[float] | None, tol: float) -> Verdict:
    text = " / ".join(f"{x:.3f}" for x in now)
    if was is None:
        return text, ()
    text += f"  baseline {' / '.join(f'{x:.3f}' for x in was)}  tol {tol:g}"
    if len(now) != len(was):
        return text, [f"{len(was)} models before, now {len(now)}"]
    off = [
        f"{what} {k}: {b:.4f} before, now {a:.4f}"
        for k, (a, b) in enumerate(zip(now, was, strict=True), 1)
        if not abs(a - b) <= tol
    ]
    return text, off


def _match(now: Facts, was: Facts | None, t: Tolerances) -> Verdict:
    """A higher objective is better, and passes."""
    text = "objective " + " / ".join(f"{x:.5g}" for x in now["objective"])
    if was is None:
        return text, ()
    text += f"  baseline {' / '.join(f'{x:.5g}' for x in was['objective'])}  tol {t.objective:g} relative"
    if len(now["objective"]) != len(was["objective"]):
        return text, [f"{len(was['objective'])} matchings before, now {len(now['objective'])}"]
    pairs = enumerate(zip(now["objective"], was["objective"], strict=True), 2)
    return text, [
        f"matching of model {k} ends lower: {b:.6g} before, now {a:.6g}"
        for k, (a, b) in pairs
        if not a >= b - t.objective * abs(b)
    ]


def _merged(now: Facts, was: Facts | None, t: Tolerances) -> Verdict:
    """A higher accuracy is better, and passes."""
    return _no_worse("the merged model", "accuracy", now, was, t.accuracy, 1)


def _barrier(now: Facts, was: Facts | None, t: Tolerances) -> Verdict:
    """A lower barrier is better, and passes."""
    return _no_worse("the barrier", "loss", now, was, t.barrier, -1)


def _no_worse(what: str, unit: str, now: Facts, was: Facts | None, tol: float, sign: int) -> Verdict:
    """``sign`` tells whether more is better (1) or worse (-1)."""
    text = f"{unit} {now[unit]:.3f}"
    if was is None:
        return text, ()
    text += f"  baseline {was[unit]:.3f}  tol {tol:g}"
    if sign * now[unit] >= sign * was[unit] - tol:
        return text, ()
    return text, [f"{what} is worse: {unit} {was[unit]:.4f} before, now {now[unit]:.4f}"]


def _onnx(now: Facts, _was: Facts | None, _t: Tolerances) -> Verdict:
    """Beyond the tolerance the export has refused."""
    sizes = ",".join(now["max_error"])
    return f"max|d| {max(now['max_error'].values()):.1e} (batch {sizes})  tol {now['tolerance']:g}", ()


def _time(now: Facts, was: Facts | None, t: Tolerances) -> Verdict:
    return _costs(now, was, t.time, "time")


def _memory(now: Facts, was: Facts | None, t: Tolerances) -> Verdict:
    return _costs(now, was, t.memory, "memory")


def _costs(now: Facts, was: Facts | None, factor: float, what: str) -> Verdict:
    """So many times the baseline is allowed, and one step more, for what is tiny varies."""
    text = ", ".join(f"{stage} {x:.1f}" for stage, x in now.items()) + " reference steps"
    if was is None:
        return text, ()
    text += f"  baseline {', '.join(f'{was[s]:.1f}' for s in now if s in was)}  tol x{factor:g}"
    return text, [
        f"{stage} takes {x / max(was[stage], 1e-9):.1f} times the {what} that it took"
        for stage, x in now.items()
        if stage in was and not x <= factor * was[stage] + 1
    ]


JUDGES: Mapping[str, Callable[[Facts, Any, Tolerances], Verdict]] = {
    "weights": _weights,
    "trace": _trace,
    "groups": _groups,
    "invariance": _invariance,
    "planted": _planted,
    "accuracy": _accuracy,
    "match": _match,
    "merged": _merged,
    "barrier": _barrier,
    "onnx": _onnx,
    "time": _time,
    "memory": _memory,
}

ABSOLUTE = ("weights", "invariance", "onnx")
"""These hold without a baseline, and no baseline can excuse them."""

GATED = tuple(name for name in JUDGES if name not in ABSOLUTE)
"""These are held against the baseline."""
