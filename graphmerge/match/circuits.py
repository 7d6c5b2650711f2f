"""How alike units are that contain others (heads, experts), whatever the order of what they contain.

The rows of a unit's tensors [inner, feature], multiplied over the inner units, are its circuit: for a
head the product of queries and keys, that of values and output, and the Gram matrix of each; for an
expert those of what its hidden units read and write. Another inner order leaves a circuit as it is, so
that units can be compared before that order is known, without an assignment for every pair of them.

Sources: heads by traces, without a feature x feature product, Theus et al. 2025, arXiv 2506.22712; experts
by Gram matrices, Linear mode connectivity of mixture-of-experts, arXiv 2509.11348. Their costs are distances
of circuits: in an assignment these come to inner products, for all else is the same whatever is chosen.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from itertools import combinations_with_replacement

import torch

ENTRIES = 1 << 26
"""Most entries of a product that is held at once."""

Rows = Sequence[torch.Tensor]


def circuits(a: Rows, b: Rows) -> torch.Tensor:
    """Inner products of the circuit of unit i of ``a`` and that of unit j of ``b``: [fibre, i, j].

    Both hold the rows of the same tensors, each [fibre, unit, inner, feature]. The result is brought to
    the scale of inner products of rows: for equal models its trace is the squared norm of all rows.
    """
    _, units, inner, _ = a[0].shape
    features = sum(x.shape[-1] for x in a)
    few = units * inner * inner * features <= (2 * inner + units) * features * features
    products = _by_traces(a, b) if few else _by_grams(a, b)
    size, own = 1.0, 1.0
    for x in (a, b):
        size *= sum(float(t.square().sum(dtype=torch.float64)) for t in x)
        own *= _squares(x)
    return products * math.sqrt(size / max(own, 1e-300))


def _by_traces(a: Rows, b: Rows) -> torch.Tensor:
    """tr(A'A B'B) = |A B'|^2, summed over tensors before it is squared: all pairs of circuits at once."""
    fibres, units, inner, _ = a[0].shape
    other = [x.flatten(1, 2).mT for x in b]
    found = []
    for k in range(0, units, step := max(1, ENTRIES // (fibres * units * inner * inner))):
        product = sum(x[:, k : k + step].flatten(1, 2) @ y for x, y in zip(a, other, strict=True))
        assert isinstance(product, torch.Tensor)
        found.append(product.reshape(fibres, -1, inner, units, inner).square().sum((2, 4)))
    return torch.cat(found, 1)


def _by_grams(a: Rows, b: Rows) -> torch.Tensor:
    """The same from the circuits themselves, block by block."""
    return torch.stack([n * (x @ y.mT) for (x, n), (y, _) in zip(_blocks(a), _blocks(b), strict=True)]).sum(0)


def _blocks(rows: Rows) -> Iterator[tuple[torch.Tensor, int]]:
    """Circuits [fibre, unit, entry] in blocks, each with how often its entries count."""
    width = max(1, int((ENTRIES // (rows[0].shape[0] * rows[0].shape[1])) ** 0.5))
    parts = [part for x in rows for part in torch.split(x, width, -1)]
    for (k, x), (m, y) in combinations_with_replacement(enumerate(parts), 2):
        yield (x.mT @ y).flatten(2), 1 if k == m else 2


def _squares(rows: Rows) -> float:
    """The squared norm of all circuits."""
    inner, features = rows[0].shape[2], sum(x.shape[-1] for x in rows)
    if inner > features:
        return sum(n * float(x.square().sum(dtype=torch.float64)) for x, n in _blocks(rows))
    grams = torch.stack([x @ x.mT for x in rows]).sum(0)
    return float(grams.square().sum(dtype=torch.float64))
