"""Measures of predictions: scores, calibration, agreement, robustness."""

from __future__ import annotations

from typing import Any

from graphmerge.evaluate.agreement import agreement
from graphmerge.evaluate.calibration import calibration
from graphmerge.evaluate.measures.measure import Findings, Table, Task, filled, headline, number, percent
from graphmerge.evaluate.plot import level_figure, matrix_figure, reliability_figure
from graphmerge.evaluate.robustness import Kind, robustness
from graphmerge.losses import CROSS_ENTROPY


def measure_score(task: Task) -> Findings:
    """Loss, accuracy and further metrics of every model and of their merge."""
    found = {n: task.score(task.model, s, task.data) for n, s in task.subjects().items()}
    tokens = task.loss is CROSS_ENTROPY and task.data[0][1].ndim > 1
    extra = tuple(next(iter(found.values())).extra)
    columns = ("model", f"loss ({task.loss.unit})", "perplexity", "accuracy", *extra, "samples")
    rows = tuple(
        (
            n,
            number(s.loss),
            number(s.perplexity, 2) if tokens else "",
            percent(s.accuracy),
            *(number(s.extra[e]) for e in extra),
            str(s.samples),
        )
        for n, s in found.items()
    )
    data: dict[str, Any] = {n: s.to_json() for n, s in found.items()}
    if tokens:
        data = {n: d | {"perplexity": found[n].perplexity} for n, d in data.items()}
    return Findings(data, (Table("Scores", *filled(columns, rows)),))


def measure_calibration(task: Task, bins: int) -> Findings:
    """Calibration of every model and of their merge."""
    found = {n: calibration(task.model, s, task.data, bins) for n, s in task.subjects().items()}
    rows = tuple((n, percent(c.ece), percent(c.mce)) for n, c in found.items())
    title = "Calibration"
    return Findings(
        {n: c.to_json() for n, c in found.items()},
        (Table(title, ("model", "expected error", "largest error of a bin"), rows),),
        {"calibration": reliability_figure(found, title)},
    )


def measure_agreement(task: Task) -> Findings:
    """On how much of the data the models and their merge predict the same class."""
    subjects = task.subjects()
    found = agreement(task.model, list(subjects.values()), task.data, names=list(subjects))
    rows = tuple((n, *map(percent, row)) for n, row in zip(found.names, found.values, strict=True))
    title = "Agreement of predictions"
    drawn = matrix_figure(found.values, found.names, found.names, "part that agrees", title, high=1)
    return Findings(found.to_json(), (Table(title, ("", *found.names), rows),), {"agreement": drawn})


_BELOW = {
    "weights": "noise on the weights (of their root mean square)",
    "inputs": "noise on the inputs (standard deviation)",
    "fgsm": "step of the inputs (FGSM)",
}


def measure_robustness(task: Task, kind: Kind, largest: float, steps: int) -> Findings:
    """Scores of every model and of their merge under growing disturbance."""
    sizes = [largest * k / steps for k in range(steps + 1)]
    found = {
        n: robustness(task.model, s, task.data, kind, sizes, task.seed, score=task.score, loss=task.loss)
        for n, s in task.subjects().items()
    }
    rows = tuple((n, *map(headline, r.scores)) for n, r in found.items())
    title = f"{'Accuracy' if task.loss.right else 'Loss'} under disturbance: {_BELOW[kind]}"
    return Findings(
        {n: r.to_json() for n, r in found.items()},
        (Table(title, ("model", *(f"{x:g}" for x in sizes)), rows),),
        {f"robustness-{kind}": level_figure(found, "Robustness", _BELOW[kind])},
    )
