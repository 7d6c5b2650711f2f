"""Linear CKA: how similar the representations of two models are, layer by layer.

Source: Kornblith et al. 2019, arXiv 1905.00414; with the unbiased estimator of HSIC summed over batches, as
in Nguyen, Raghu and Kornblith 2021, arXiv 2010.15327, so that the size of the batches does not matter.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from graphmerge.errors import InputError
from graphmerge.evaluate.layers import features, layers
from graphmerge.symmetry import ModelGraph
from graphmerge.trace.run import State, device_of, program_for, state_of

LEAST = 4
"""The unbiased estimator needs so many samples in a batch."""


@dataclass(frozen=True)
class LayerSimilarity:
    """CKA ``values`` [layer of the first][layer of the second]: 1 where they are alike, about 0 by chance."""

    layers: tuple[str, ...]
    values: tuple[tuple[float, ...], ...]

    @property
    def diagonal(self) -> tuple[float, ...]:
        """The similarity of each layer with the same layer of the other model."""
        return tuple(row[k] for k, row in enumerate(self.values))

    def to_json(self) -> dict[str, Any]:
        """All of it as plain data."""
        return {"layers": list(self.layers), "cka": [list(r) for r in self.values]}


def cka(
    graph: ModelGraph,
    first: nn.Module | State,
    second: nn.Module | State,
    data: Iterable[Any],
    *,
    only: Sequence[str] = (),
) -> LayerSimilarity:
    """Linear CKA of every layer of one model with every layer of another, on the inputs of ``data``.

    Invariant to permutations, so the models need not be aligned. Layers that never vary have NaN.
    Raises InputError for batches of fewer than 4 samples.
    """
    program = program_for(graph.model, data, graph.program)
    found = layers(program, only)
    number = {x.node: k for k, x in enumerate(found)}
    size = len(found)
    place = device_of(state_of(first))
    sums = [torch.zeros(size, size, dtype=torch.float64, device=place) for _ in range(3)]
    grams: list[list[torch.Tensor]] = [[], []]
    with torch.no_grad():
        for layer, values in features(program, [state_of(first), state_of(second)], data, found):
            for rows, value in zip(grams, values, strict=True):
                rows.append(centred_gram(value))
            if number[layer.node] == size - 1:  # the batch is complete
                x, y = (torch.stack(rows).flatten(1) for rows in grams)
                for total, (left, right) in zip(sums, ((x, y), (x, x), (y, y)), strict=True):
                    total += left @ right.T
                grams = [[], []]
    scale = sums[1].diagonal()[:, None] * sums[2].diagonal()
    values_found = torch.where(scale > 0, sums[0] / scale.clamp_min(1e-300).sqrt(), torch.nan)
    return LayerSimilarity(tuple(x.name for x in found), tuple(map(tuple, values_found.tolist())))


def centred_gram(x: torch.Tensor) -> torch.Tensor:
    """The U-centred Gram matrix [sample, sample] (float64) of features [sample, ...].

    The inner product of two of them is n (n - 3) times the unbiased HSIC (Song et al. 2012).
    """
    n = len(x)
    if n < LEAST:
        raise InputError(f"the batches hold {n} samples; CKA needs at least {LEAST} in each")
    rows = x.flatten(1).double() if x.ndim > 1 else x[:, None].double()
    rows = rows - rows[0]  # what never varies is exactly 0, which a mean may miss by rounding
    rows = rows - rows.mean(0)
    gram = (rows @ rows.T).fill_diagonal_(0)
    means = gram.sum(1) / (n - 2)
    centred = gram - means - means[:, None] + gram.sum() / ((n - 1) * (n - 2))
    return centred.fill_diagonal_(0)
