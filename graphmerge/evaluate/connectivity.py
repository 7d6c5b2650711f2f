"""Layerwise connectivity: whether features between two models are mixtures of the features of both.

LLFC (Zhou et al. 2023, arXiv 2307.08286) says that at every layer f(mix of weights) points where the mix
of features points: f_l((1-t)A + tB) ~ (1-t) f_l(A) + t f_l(B). LEWC (Ito 2025, arXiv 2510.08023) says it of
wide networks that were not permuted, with shares that fall with the depth l: (1-t)^l and t^l.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import nn

from graphmerge.evaluate.layers import Layer, features, layers
from graphmerge.merge import average
from graphmerge.symmetry import ModelGraph
from graphmerge.trace.run import State, device_of, program_for, state_of


@dataclass(frozen=True)
class LayerConnectivity:
    """Of one layer, each a mean over the samples.

    ``deviation`` is 1 - cos of the features of the merged model and the mixture of features,
    ``baseline`` that of the features of the two models. ``coefficient`` is the length of the merged
    features along the mixture, relative to the mixture: 1 where they are equal, less where they shrink.
    """

    layer: str
    deviation: float
    baseline: float
    coefficient: float


@dataclass(frozen=True)
class Connectivity:
    """``rows`` [layer] of LLFC or LEWC at the place ``at`` (0: a, 1: b)."""

    kind: Literal["LLFC", "LEWC"]
    at: float
    rows: tuple[LayerConnectivity, ...]

    def to_json(self) -> dict[str, Any]:
        """All of it as plain data."""
        return {"kind": self.kind, "at": self.at, "layers": [asdict(r) for r in self.rows]}


Pair = nn.Module | State


def llfc(
    graph: ModelGraph, a: Pair, b: Pair, data: Iterable[Any], at: float = 0.5, *, only: Sequence[str] = ()
) -> Connectivity:
    """Layerwise linear feature connectivity of ``a`` and (aligned) ``b`` on the inputs of ``data``.

    ``only`` are patterns of layer names. Features are flattened [sample, feature]; where both sides of a
    cosine are 0 it counts as 1, where one is as 0; so does the coefficient.
    """
    return Connectivity("LLFC", at, _measure(graph, a, b, data, at, lambda _: (1 - at, at), only))


def lewc(
    graph: ModelGraph, a: Pair, b: Pair, data: Iterable[Any], at: float = 0.5, *, only: Sequence[str] = ()
) -> Connectivity:
    """Layerwise exponentially weighted connectivity; the depth is the most affine operators on a way."""

    def shares(layer: Layer) -> tuple[float, float]:
        return (1 - at) ** layer.depth, at**layer.depth

    return Connectivity("LEWC", at, _measure(graph, a, b, data, at, shares, only))


def _measure(
    graph: ModelGraph,
    a: Pair,
    b: Pair,
    data: Iterable[Any],
    at: float,
    shares: Callable[[Layer], tuple[float, float]],
    only: Sequence[str],
) -> tuple[LayerConnectivity, ...]:
    first, second = state_of(a), state_of(b)
    merged = average([first, second], [1 - at, at])
    program = program_for(graph.model, data, graph.program)
    found = layers(program, only)
    place = device_of(first)
    sums = {x.name: torch.zeros(3, dtype=torch.float64, device=place) for x in found}
    count = dict.fromkeys(sums, 0)
    with torch.no_grad():
        for layer, values in features(program, [first, second, merged], data, found):
            fa, fb, fm = (_rows(v) for v in values)
            v, w = shares(layer)
            mixed = v * fa + w * fb  # in float64, for in float32 the shares of a deep layer are 0
            own, apart = _cosine(fm, mixed), _cosine(fa, fb)
            length = own * _ratio(fm.norm(dim=1), mixed.norm(dim=1))
            sums[layer.name] += torch.stack([(1 - own).sum(), (1 - apart).sum(), length.sum()])
            count[layer.name] += len(fa)
    return tuple(LayerConnectivity(n, *(s / count[n]).tolist()) for n, s in sums.items())


def _rows(value: torch.Tensor) -> torch.Tensor:
    """Features [sample, feature] (float64)."""
    return (value.flatten(1) if value.ndim > 1 else value[:, None]).double()


def _cosine(x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
    """Cosines [sample] of rows."""
    p, q = (F.normalize(t, dim=1, eps=_TINY) for t in (x, y))
    both_zero = (x == 0).all(1) & (y == 0).all(1)
    return torch.where(both_zero, 1.0, torch.linalg.vecdot(p, q).clamp(-1, 1))


_TINY = 1e-300


def _ratio(x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
    return torch.where((x == 0) & (y == 0), 1.0, x / y.clamp_min(_TINY))
