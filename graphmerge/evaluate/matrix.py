"""Barriers between all pairs of a set of models, and the clusters that they form.

Models on one side of a barrier generalise alike. Source: Juneja et al. 2023, arXiv 2205.12411.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy.cluster.hierarchy import fcluster, leaves_list, linkage
from scipy.spatial.distance import squareform
from torch import nn

from graphmerge.errors import UsageError
from graphmerge.evaluate.barrier import barrier
from graphmerge.metrics import Scorer, evaluate
from graphmerge.progress import Progress, silent
from graphmerge.symmetry import ModelGraph
from graphmerge.trace.run import State


@dataclass(frozen=True)
class BarrierMatrix:
    """Loss barriers ``values`` [model][model] in nats, symmetric (max above line); NaN stays NaN.

    ``clusters`` [model] are numbers from 0, in the order of the models: average linkage, cut where clusters
    are more than ``threshold`` nats apart. ``order`` puts models of one cluster side by side.
    """

    names: tuple[str, ...]
    values: tuple[tuple[float, ...], ...]
    clusters: tuple[int, ...]
    order: tuple[int, ...]
    threshold: float

    def to_json(self) -> dict[str, Any]:
        """All of it as plain data."""
        return {
            "names": list(self.names),
            "barrier": [list(r) for r in self.values],
            "clusters": list(self.clusters),
            "order": list(self.order),
            "threshold": self.threshold,
        }


def barrier_matrix(
    graph: ModelGraph,
    models: Sequence[nn.Module | State],
    data: Iterable[Any],
    points: int = 11,
    threshold: float | None = None,
    *,
    names: Sequence[str] = (),
    score: Scorer = evaluate,
    progress: Progress = silent,
) -> BarrierMatrix:
    """The barrier of every pair of models (in one frame), and clusters at ``threshold`` nats.

    By default the threshold is half of the largest barrier. Raises UsageError for fewer than 2 models.
    """
    count = len(models)
    if count < 2:
        raise UsageError(f"a matrix of barriers needs at least 2 models, got {count}")
    values = np.zeros((count, count))
    pairs = list(itertools.combinations(range(count), 2))
    for k, (i, j) in enumerate(pairs, 1):
        progress(f"barrier matrix: pair {k} of {len(pairs)}")
        curve = barrier(graph, models[i], models[j], data, points, score=score, progress=progress)
        values[i, j] = values[j, i] = curve.loss_above_line
    names = tuple(names) or tuple(str(k) for k in range(count))
    return clustered(names, values, threshold)


def clustered(names: Sequence[str], values: np.ndarray[Any, Any], threshold: float | None) -> BarrierMatrix:
    """Cluster a symmetric matrix of barriers; what is not finite is farther than any cut."""
    finite = values[np.isfinite(values)]
    largest = max(float(finite.max()), 0.0)
    cut = largest / 2 if threshold is None else threshold
    far = 2 * max(largest, cut) or 1.0
    apart = squareform(np.where(np.isfinite(values), values, far).clip(min=0), checks=False)
    tree = linkage(apart, "average", optimal_ordering=True)
    labels = fcluster(tree, cut, "distance").tolist()
    number = {label: k for k, label in enumerate(dict.fromkeys(labels))}
    return BarrierMatrix(
        tuple(names),
        tuple(map(tuple, values.tolist())),
        tuple(number[x] for x in labels),
        tuple(leaves_list(tree).tolist()),
        cut,
    )
