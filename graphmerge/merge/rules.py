"""Rules by parameter: the values of one model are kept instead of merged ones."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch

from graphmerge.errors import UsageError
from graphmerge.merge.job import fitting
from graphmerge.symmetry import ModelGraph
from graphmerge.trace.memory import ties
from graphmerge.trace.run import State


def keep_from(
    graph: ModelGraph, merged: State, models: Sequence[State], kept: Mapping[str, int | None]
) -> dict[str, torch.Tensor]:
    """``merged`` with the tensors that fit a pattern taken from one model.

    ``models`` are state dicts in one frame, ``kept`` maps patterns of parameter or group names to
    numbers of models, from 0 (None: as merged); the first pattern that fits counts. Names of one tied
    tensor go together.
    Raises UsageError for a pattern that fits nothing.
    """
    twins = ties(graph.model.state_dict())
    names = {n: n for n in merged}
    source: dict[str, int | None] = {}
    for pattern, k in kept.items():
        if k is not None and not 0 <= k < len(models):
            raise UsageError(f"rule {pattern!r} keeps model {k + 1} of {len(models)}")
        for name in fitting(graph, names, pattern):
            for twin in twins[name]:
                source.setdefault(twin, k)
    return {n: t if (k := source.get(n)) is None else models[k][n].to(t.dtype) for n, t in merged.items()}
