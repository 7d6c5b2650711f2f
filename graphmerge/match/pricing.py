"""Exact assignment of many units through few of their pairs: pricing.

Sinkhorn scaling at falling temperatures gives potentials close to the optimal duals. Pairs whose
reduced similarity is high under them make a sparse problem, which is solved exactly; its duals then
price all other pairs. Those that would pay for themselves are let in, until there are none: by linear
programming duality the assignment is optimal among all (column generation; Jonker and Volgenant 1987,
A shortest augmenting path algorithm, section 5, for sparse problems inside dense ones).
On 1000 units and more this is several times faster than the dense solver, most where that is slowest.
"""

from __future__ import annotations

import math
from collections.abc import Iterator

import numpy as np
import torch
from scipy.optimize import linear_sum_assignment
from scipy.sparse import csr_matrix
from scipy.sparse.csgraph import min_weight_full_bipartite_matching

from graphmerge.axes.units import IntArray

EDGES = 12
"""Pairs per unit to begin with."""

COOLING = ((1.0, 3), (0.3, 3), (0.1, 3), (0.03, 6), (0.01, 6))
"""Temperatures, in standard deviations of the entries, and rounds of scaling at each."""

WARM = 3
"""Temperatures that are passed before the first sparse problem."""

BLOCK = 1 << 18
"""Entries that are priced at once, in float64: they stay in the cache of a core."""

TRIES = 8
"""Sparse problems that are solved at one temperature."""

EXACT = 1e-10
"""What a pair may be worth beyond its potentials, relative to the largest of these: rounding."""

MOST = 100
"""Pairs per unit beyond which nothing is gained over the dense solver."""


def assign_large(s: torch.Tensor) -> tuple[IntArray, float]:
    """The permutation that maximises sum_i s[i, p(i)] for one matrix [n, n], as columns [n]; exact.

    Second, how far below the duals' bound it is, which no other assignment is above. Where few pairs do
    not decide it (many ties) the dense solver does, on what the potentials leave: it tells no duals (inf).
    """
    n = len(s)
    wanted = s.argmax(1)
    if int(torch.bincount(wanted, minlength=n).max()) == 1:
        return wanted.cpu().numpy(), 0.0
    scale = float(s.std()) or 1.0
    v = s.new_zeros(n)
    u = v
    for step, (temperature, rounds) in enumerate(COOLING):
        u, v = _scaled(s, v, temperature * scale, rounds)
        if step + 1 < WARM:
            continue
        keys = _likely(s, u, v)
        for _ in range(TRIES):
            if len(keys) > MOST * n:
                break
            columns, offers, prices = _solve(s, u, v, keys)
            least = EXACT * float(u.abs().amax() + v.abs().amax())
            missing = _paying(s, u + offers, v + prices, least)
            if not len(missing):
                return columns, n * least
            if len(missing) > n and step + 1 < len(COOLING):
                break
            keys = _distinct(keys, missing)
    rest = torch.cat([block for _, block in _reduced(s, u, v)])
    return linear_sum_assignment(rest.cpu().numpy(), maximize=True)[1].astype(np.int64), math.inf


def _scaled(
    s: torch.Tensor, v: torch.Tensor, temperature: float, rounds: int
) -> tuple[torch.Tensor, torch.Tensor]:
    """Potentials of rows and columns after some rounds of Sinkhorn scaling with absorbed potentials."""
    k = s - v
    u = k.amax(1)
    k = k.sub_(u[:, None]).div_(temperature).exp_()
    a, b = torch.ones_like(u), torch.ones_like(v)
    for _ in range(rounds):
        a = 1 / (k @ b).clamp_min(1e-30)
        b = 1 / (k.T @ a).clamp_min(1e-30)
    return u - temperature * a.log(), v - temperature * b.log()


def _reduced(s: torch.Tensor, u: torch.Tensor, v: torch.Tensor) -> Iterator[tuple[int, torch.Tensor]]:
    """s_ij - u_i - v_j in blocks of rows (float64), each with its first row."""
    step = max(1, BLOCK // len(s))
    u, v = u.double(), v.double()
    for k in range(0, len(s), step):
        yield k, (s[k : k + step] - v).sub_(u[k : k + step, None])


def _likely(s: torch.Tensor, u: torch.Tensor, v: torch.Tensor) -> torch.Tensor:
    """About ``EDGES`` pairs a row of highest reduced similarity, and the pairs (i, i); as keys i n + j."""
    n = len(s)
    some = torch.arange(0, n, max(1, n // 64), device=s.device)
    sample = (s[some] - v - u[some, None]).flatten()
    least = sample.kthvalue(max(1, sample.numel() - EDGES * len(some))).values
    found = [torch.arange(n, device=s.device) * (n + 1)]
    for k in range(0, n, step := max(1, BLOCK // n)):
        rows = slice(k, k + step)
        found.append((s[rows] - v > (u + least)[rows, None]).flatten().nonzero()[:, 0] + k * n)
    return _distinct(*found)


def _distinct(*keys: torch.Tensor) -> torch.Tensor:
    found: torch.Tensor = torch.cat(keys).sort().values
    return found[torch.cat([found[:1] >= 0, found[1:] != found[:-1]])]


def _solve(
    s: torch.Tensor, u: torch.Tensor, v: torch.Tensor, keys: torch.Tensor
) -> tuple[IntArray, torch.Tensor, torch.Tensor]:
    """The best assignment among the pairs, as columns [n], and its duals beyond ``u`` and ``v`` (float64).

    Prices of columns are raised until no row would rather have another one, which at an optimum ends:
    they are longest paths (Bellman and Ford).
    """
    n = len(s)
    rows, columns = (x.cpu().numpy() for x in (keys // n, keys % n))
    left = s.flatten()[keys].double() - v.double()[keys % n] - u.double()[keys // n]
    values = left.cpu().numpy()
    spread = float(values.max() - values.min()) or 1.0
    costs = csr_matrix((values.max() + spread - values, (rows, columns)), shape=(n, n))
    chosen: IntArray = min_weight_full_bipartite_matching(costs)[1].astype(np.int64)
    own = np.empty(n)
    taken = chosen[rows] == columns
    own[rows[taken]] = values[taken]
    order = np.argsort(columns, kind="stable")
    excess, source = (values - own[rows])[order], chosen[rows][order]
    first = np.searchsorted(columns[order], np.arange(n))
    prices = np.zeros(n)
    for _ in range(n):
        raised = np.maximum.reduceat(excess + prices[source], first)
        if (raised <= prices + 1e-12 * spread).all():
            break
        prices = np.maximum(prices, raised)
    offers = torch.from_numpy(own - prices[chosen]).to(s.device)
    return chosen, offers, torch.from_numpy(prices).to(s.device)


def _paying(s: torch.Tensor, u: torch.Tensor, v: torch.Tensor, least: float) -> torch.Tensor:
    """Keys of the pairs worth more by ``least`` than ``u`` and ``v`` ask, the best few for each row."""
    n = len(s)
    found = []
    for k, block in _reduced(s, u, v):
        rows = (block.amax(1) > least).nonzero()[:, 0]
        best = block[rows].topk(min(EDGES, n), 1)
        found.append(((rows + k)[:, None] * n + best.indices)[best.values > least])
    return torch.cat(found)
