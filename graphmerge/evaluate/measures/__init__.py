"""The table of measures: how each is run, what it says, its options, its source, what it needs."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from graphmerge.errors import UsageError
from graphmerge.evaluate.measures.landscape import (
    measure_barrier,
    measure_matrix,
    measure_path,
    measure_plane,
    measure_random_plane,
)
from graphmerge.evaluate.measures.layerwise import (
    measure_cka,
    measure_distance,
    measure_lewc,
    measure_llfc,
    measure_stitch,
    measure_variance,
)
from graphmerge.evaluate.measures.measure import Findings, Measure, Table, Task
from graphmerge.evaluate.measures.predictions import (
    measure_agreement,
    measure_calibration,
    measure_robustness,
    measure_score,
)
from graphmerge.losses import CROSS_ENTROPY
from graphmerge.options import Option, read_options

__all__ = ["MEASURES", "Findings", "Measure", "Table", "Task", "chosen"]

_SEVERAL = (2, math.inf)
_AT = Option(0.5, "place on the path (0: a, 1: b)", 0, 1)


def _points(default: int) -> Option:
    return Option(default, "points of a line, or of a side", 2)


MEASURES: dict[str, Measure] = {
    "score": Measure(
        measure_score,
        "loss, accuracy, perplexity of texts, and the metrics given, of the models and of their merge",
        "",
        traced=False,
    ),
    "barrier": Measure(
        measure_barrier,
        "loss and error barriers from the first model to each other, with ensemble and repair",
        "Git Re-Basin, Ainsworth et al. 2022, arXiv 2209.04836, definition 2.1",
        _SEVERAL,
        {"points": _points(25)},
    ),
    "path": Measure(
        measure_path,
        "the loss along straight lines through all models in order",
        "Garipov et al. 2018, arXiv 1802.10026",
        _SEVERAL,
        {"points": _points(11)},
    ),
    "llfc": Measure(
        measure_llfc,
        "whether features of the merged model are mixtures of the features, by layer",
        "Zhou et al. 2023, arXiv 2307.08286",
        (2, 2),
        {"at": _AT},
    ),
    "lewc": Measure(
        measure_lewc,
        "the same with shares that fall exponentially with depth",
        "Ito 2025, arXiv 2510.08023",
        (2, 2),
        {"at": _AT},
    ),
    "variance": Measure(
        measure_variance,
        "how much variance activations lose between two models, by layer",
        "REPAIR, Jordan et al. 2022, arXiv 2211.08403",
        (2, 2),
        {"points": _points(5)},
    ),
    "cka": Measure(
        measure_cka,
        "similarity of the representations of two models and of their merge, layer by layer",
        "Kornblith et al. 2019, arXiv 1905.00414; Nguyen et al. 2021, arXiv 2010.15327",
        (2, 2),
    ),
    "stitch": Measure(
        measure_stitch,
        "the first part of one model with the rest of the other, cut at every layer that allows it",
        "Lenc and Vedaldi 2015, arXiv 1411.5908",
        (2, 2),
    ),
    "plane": Measure(
        measure_plane,
        "the loss on the plane through three models",
        "Garipov et al. 2018, arXiv 1802.10026",
        (3, 3),
        {"points": _points(11), "margin": Option(0.25, "how far beyond the models, in their extent", 0)},
    ),
    "random-plane": Measure(
        measure_random_plane,
        "the loss around each model in two random filter-normalised directions",
        "Li et al. 2018, arXiv 1712.09913",
        options={"points": _points(11), "reach": Option(1.0, "how far, in directions", 1e-6)},
    ),
    "matrix": Measure(
        measure_matrix,
        "barriers of all pairs, and the clusters that they form",
        "Juneja et al. 2023, arXiv 2205.12411",
        _SEVERAL,
        {
            "points": _points(11),
            "threshold": Option(None, "nats between clusters (none: half of the largest barrier)"),
        },
    ),
    "distance": Measure(
        measure_distance,
        "distances and angles by parameter, before and after alignment",
        "",
        (2, 2),
        data=False,
    ),
    "calibration": Measure(
        measure_calibration,
        "whether the models and their merge are right as often as they are sure",
        "Guo et al. 2017, arXiv 1706.04599",
        options={"bins": Option(15, "bins of confidence", 1)},
        traced=False,
        classes=True,
    ),
    "agreement": Measure(
        measure_agreement,
        "on how much of the data the models and their merge predict the same class",
        "",
        _SEVERAL,
        traced=False,
        classes=True,
    ),
    "robustness": Measure(
        measure_robustness,
        "scores of the models and of their merge under growing disturbance",
        "FGSM: Goodfellow et al. 2015, arXiv 1412.6572",
        options={
            "kind": Option("weights", "what is disturbed", choices=("weights", "inputs", "fgsm")),
            "largest": Option(0.2, "size of the last step", 0),
            "steps": Option(4, "steps from none to the largest", 1),
        },
        traced=False,
    ),
}
"""All measures. What "merged" stands for is the mean of the models in one frame, repaired if asked for."""


def chosen(
    names: Sequence[str], models: int, given: Mapping[str, object], loss: str = CROSS_ENTROPY.name
) -> dict[str, dict[str, Any]]:
    """The measures asked for, each with all its options; an option counts for every measure that has it.

    UsageError for a measure that there is not, one that cannot take so many models or that loss, an option
    of none.
    """
    for name in names:
        if name not in MEASURES:
            raise UsageError(f"unknown --measure {name!r}; there are: {', '.join(MEASURES)}")
        MEASURES[name].require(name, models, loss)
    own = {n: MEASURES[n].options for n in names}
    for option in given:
        if not any(option in options for options in own.values()):
            known = ", ".join(sorted({o for options in own.values() for o in options})) or "none"
            raise UsageError(f"no measure asked for has option {option!r}; there are: {known}")
    return {n: read_options(n, o, {k: v for k, v in given.items() if k in o}) for n, o in own.items()}
