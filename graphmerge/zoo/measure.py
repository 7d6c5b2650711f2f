"""What is measured of an entry: a row of named measurements, each plain data that JSON can hold."""

from __future__ import annotations

import tempfile
import time
import traceback
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from graphmerge.errors import GraphMergeError
from graphmerge.evaluate import barrier, evaluate
from graphmerge.export import export_onnx
from graphmerge.match import match
from graphmerge.progress import Progress, silent
from graphmerge.sources.weights import put_weights
from graphmerge.symmetry import trace
from graphmerge.zoo.config import Entry
from graphmerge.zoo.cost import in_steps, peak_bytes, reference_step, seconds
from graphmerge.zoo.groups import record
from graphmerge.zoo.subject import Subject

BATCHES = (1, 2, 7)
"""Batch sizes at which onnxruntime and torch must agree."""

DIGITS = 6
"""Significant digits that are kept of a measurement."""

Facts = dict[str, Any]


@dataclass(frozen=True)
class Measured:
    """Of one entry: ``facts`` by measurement, ``errors`` of those that failed (what was refused and why),
    ``waiting`` those that could not be made after such a failure, with its name; wall ``seconds`` of each."""

    entry: str
    facts: Mapping[str, Facts]
    errors: Mapping[str, str] = field(default_factory=dict)
    waiting: Mapping[str, str] = field(default_factory=dict)
    seconds: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class Measurement:
    """A way to measure, when it applies to an entry, and what must have worked before."""

    take: Callable[[Subject], Facts]
    applies: Callable[[Entry], bool] = lambda _: True
    after: tuple[str, ...] = ()


def _hashes(s: Subject) -> Facts:
    return {"files": s.require_hashes()}


def _trace(s: Subject) -> Facts:
    graph = s.traced
    return {
        "operators": sum(n.op == "call_function" for n in graph.program.graph.graph.nodes),
        "unknown": sorted(f"{why} ({where})" for where, why in graph.pinned),
        "tried": sorted(f"{rule} ({where})" for where, rule in graph.probed),
    }


def _groups(s: Subject) -> Facts:
    return dict(record(s.traced))


def _invariance(s: Subject) -> Facts:
    found = s.verification
    return {
        "error": found.max_error,
        "tolerance": found.tolerance,
        "failed": list(found.failed),
        "hidden": list(found.unobservable),
    }


def _planted(s: Subject) -> Facts:
    """A random symmetry put into the first model is found again by weight matching, from the weights alone.

    Units without a twin have one way back; the distance of the parameters tells whether all went it.
    """
    first, planted = s.states[0], s.graph.random_transform(s.entry.seed)
    found = match(s.graph, first, planted.inverse().apply(first), seed=s.entry.seed, restarts=1)
    back, right = found.transform.targets(), planted.targets()
    units = sum(t.numel() for t in right.values())
    again = (found.transform @ planted.inverse()).apply(first)
    moved = [n for n, t in first.items() if t.is_floating_point()]
    off = sum(float((again[n].double() - first[n].double()).square().sum()) for n in moved)
    size = sum(float(first[n].double().square().sum()) for n in moved)
    return {
        "units": units,
        "recovered": sum(int((back[n] == t).sum()) for n, t in right.items()),
        "distance": (off / max(size, 1e-300)) ** 0.5,
    }


def _accuracy(s: Subject) -> Facts:
    scores = [evaluate(s.model, state, s.test or ()) for state in s.states]
    return {"accuracy": [x.accuracy for x in scores], "loss": [x.loss for x in scores]}


def _match(s: Subject) -> Facts:
    return {"objective": [a.objective for a in s.alignments]}


def _merged(s: Subject) -> Facts:
    score = evaluate(s.model, s.merged, s.test or ())
    return {"accuracy": score.accuracy, "loss": score.loss}


def _barrier(s: Subject) -> Facts:
    a, b = s.aligned[:2]
    repaired = s.repair((a, b))
    curve = barrier(s.graph, a, b, s.test or (), s.entry.points, lambda x, at: repaired(x, [1 - at, at]))
    return {"loss": curve.loss, "error": curve.error}


def _onnx(s: Subject) -> Facts:
    put_weights(s.model, s.states[0])
    atol = s.entry.tolerances.onnx
    args, kwargs = s.example
    with tempfile.TemporaryDirectory() as folder:
        report = export_onnx(
            s.model, Path(folder) / "model.onnx", args, kwargs, dynamic_batch=s.entry.onnx == "dynamic",
            batch_sizes=BATCHES, atol=atol, rtol=10 * atol,
        )  # fmt: skip
    return {"max_error": {str(n): e for n, e in report.max_error.items()}, "tolerance": atol}


def _time(s: Subject) -> Facts:
    """Tracing, and weight matching of a planted symmetry, in reference steps of processor time."""
    args, kwargs = s.example
    return {
        "trace": in_steps(seconds(lambda: trace(s.model, args, kwargs, freeze=s.entry.freeze))),
        "match": in_steps(seconds(lambda: _planted(s))),
    }


def _memory(s: Subject) -> Facts:
    """Peak of weight matching of a planted symmetry, in that of the reference step."""
    step, _ = peak_bytes(reference_step)
    return {"match": peak_bytes(lambda: _planted(s))[0] / step}


def _several(e: Entry) -> bool:
    return len(e.inputs) > 1


def _measured(e: Entry) -> bool:
    return bool(e.test or e.data)


MEASUREMENTS: Mapping[str, Measurement] = {
    "weights": Measurement(_hashes, lambda e: bool(e.inputs)),
    "trace": Measurement(_trace),
    "groups": Measurement(_groups, after=("trace",)),
    "invariance": Measurement(_invariance, after=("trace",)),
    "planted": Measurement(_planted, after=("weights", "invariance")),
    "accuracy": Measurement(_accuracy, lambda e: bool(e.inputs) and _measured(e), after=("weights", "trace")),
    "match": Measurement(_match, _several, after=("weights", "invariance")),
    "merged": Measurement(_merged, lambda e: _several(e) and _measured(e), after=("match",)),
    "barrier": Measurement(_barrier, lambda e: _several(e) and _measured(e), after=("match",)),
    "onnx": Measurement(_onnx, lambda e: e.onnx != "none", after=("weights", "trace")),
    "time": Measurement(_time, after=("planted",)),
    "memory": Measurement(_memory, after=("planted",)),
}
"""In the order in which they are taken."""


def names_of(entry: Entry) -> list[str]:
    """The measurements that apply to an entry."""
    return [name for name, m in MEASUREMENTS.items() if m.applies(entry)]


def measure(name: str, subject: Subject, progress: Progress = silent) -> Measured:
    """Take every measurement that applies to the entry called ``name``; none raises.

    A refusal of the engine is a result like another, and so is a defect: to find them is what for.
    """
    facts: dict[str, Facts] = {}
    errors: dict[str, str] = {}
    waiting: dict[str, str] = {}
    spent: dict[str, float] = {}
    for what in names_of(subject.entry):
        missing = [a for a in MEASUREMENTS[what].after if a in errors or a in waiting]
        if missing:
            waiting[what] = waiting.get(missing[0], missing[0])
            continue
        progress(f"{name}: {what}")
        start = time.perf_counter()
        try:
            facts[what] = _rounded(MEASUREMENTS[what].take(subject))
        except GraphMergeError as error:
            errors[what] = str(error)
        except Exception as error:  # noqa: BLE001 (told in full, and fails the check)
            errors[what] = f"{type(error).__name__}: {error}\n{traceback.format_exc()}"
        spent[what] = time.perf_counter() - start
    return Measured(name, facts, errors, waiting, spent)


def _rounded(value: Any) -> Any:
    """The same with all numbers at ``DIGITS`` significant digits."""
    if isinstance(value, float):
        return float(f"{value:.{DIGITS}g}")
    if isinstance(value, Mapping):
        return {k: _rounded(v) for k, v in value.items()}
    return [_rounded(v) for v in value] if isinstance(value, list | tuple) else value
