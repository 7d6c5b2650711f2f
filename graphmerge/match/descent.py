"""Coordinate descent over the symmetry groups: one assignment problem at a time.

A plain group is one assignment over its units (one for each fibre). A group whose units contain
others (heads with their dimensions) is solved on two levels: the best inner order for *every* pair
of units, all in one batch, then an assignment of units with those values. Where that would be too much
(experts with their hidden units) pairs are compared by what no inner order changes. A step is taken only when
the true objective rises, which it need not for units that stand on both sides of one tensor (the
hidden units of an LSTM), where the assignment sees just a linearisation.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Mapping, Sequence, Set
from typing import Protocol

import numpy as np
import torch

from graphmerge.axes.units import IntArray
from graphmerge.match.alignment import Step
from graphmerge.match.assign import assign, gap, solve
from graphmerge.match.exchange import highest, mutual
from graphmerge.match.layout import Plan, Site, owners
from graphmerge.match.task import Keep, forget
from graphmerge.progress import Progress, silent
from graphmerge.symmetry import Transform
from graphmerge.symmetry.structure import Structure

RISE = 1e-8
"""Smallest relative rise of the objective that counts, above the rounding of float32 sums."""


PAIRS = 1 << 25
"""Pairs of child units over all pairs of units from which on circuits take the place of inner orders.

16 experts of 512 units have twice as many: circuits solve them in a tenth of the time, to the same objective.
"""

Proved = dict[str, float]
"""Groups that are in their best order while all others stay: how far from it they can be, by their duals."""


class Similarity(Protocol):
    """What a step needs to know of the two models."""

    transform: Transform

    @property
    def objective(self) -> float: ...
    def total(self, sites: Sequence[Site], /) -> torch.Tensor: ...
    def across(self, site: Site, fibres: int) -> torch.Tensor: ...
    def circuits(self, sites: Sequence[Site], fibres: int) -> torch.Tensor: ...
    def room(self, names: Set[str], /) -> Mapping[str, float]: ...
    def bends(self, sites: Sequence[Site], /) -> torch.Tensor | None: ...
    def fork(self) -> Similarity: ...
    def put(self, delta: IntArray, names: set[str]) -> None: ...
    def move(self, delta: IntArray, names: set[str], least: float, gain: float | None, /) -> bool: ...


def descend(
    similarity: Similarity,
    plans: Mapping[str, Plan],
    seed: int,
    max_sweeps: int = 100,
    first_sweep: int = 0,
    progress: Progress = silent,
    keep: Keep = forget,
    proved: Proved | None = None,
) -> tuple[list[Step], bool]:
    """Sweep over the groups, in an order drawn anew each time, until none of them moves.

    Returns the accepted steps and whether the sweeps converged; ``keep`` is told of each step. Groups in
    ``proved`` are not visited until a neighbour moves; those that a visit proves are added to it.
    """
    rng = np.random.default_rng(seed)
    proved = {} if proved is None else proved
    stale = set(plans) - set(proved)
    steps: list[Step] = []
    for sweep in range(first_sweep, first_sweep + max_sweeps):
        if not stale:
            return steps, True
        for group in rng.permutation(sorted(stale)):
            stale.discard(group)
            moved = visit(similarity, plans, group, proved)
            if moved:
                steps.append(Step(sweep, str(group), moved, similarity.objective))
                keep(similarity.transform, similarity.objective)
                stale |= neighbours(plans, group)
            progress(f"matching: sweep {sweep + 1}, {group}, objective {similarity.objective:.4f}")
    return steps, not stale


def neighbours(plans: Mapping[str, Plan], group: str) -> set[str]:
    """The groups that share a tensor with ``group``."""
    names = plans[group].names
    return {g for g, p in plans.items() if g != group and p.names & names}


def visit(similarity: Similarity, plans: Mapping[str, Plan], group: str, proved: Proved) -> int:
    """``improve`` one group, and keep ``proved`` true."""
    moved, left = improve(similarity, plans[group])
    if moved:
        for other in neighbours(plans, group) & proved.keys():
            del proved[other]
    if left < math.inf:
        proved[group] = left
    return moved


def improve(similarity: Similarity, plan: Plan) -> tuple[int, float]:
    """A step on one group: how many units moved (0: nothing better was found), and what is left.

    That is how much another order of the group alone could raise the objective after it (inf: not known).
    For a group on both sides of a tensor one step opens the way for another: they are taken until none does.
    """
    delta, left = _step(similarity, plan)
    if delta is None:
        return 0, left
    while not plan.linear and (more := _step(similarity, plan)[0]) is not None:
        delta = more[delta]
    units = (similarity.transform.structure.sorts[k].units for k in (plan.atom, *plan.inner))
    return sum(int((delta[x] != x).sum()) for x in units), left


def _step(similarity: Similarity, plan: Plan) -> tuple[IntArray | None, float]:
    """The move that was made (None: nothing better was found), and what is left."""
    structure, left = similarity.transform.structure, math.inf
    ways: tuple[Best, ...] = (_two_level, _one_level) if plan.inner else (_one_level,)
    for best in ways if plan.linear else (*ways, _exchanges, _exchange):
        inner, gain, left = best(similarity, plan)
        if all((places == np.arange(places.shape[1])).all() for places in inner.values()):
            continue
        delta = structure.extend(inner)
        if similarity.move(delta, set(plan.names), RISE * abs(similarity.objective), gain):
            return delta, left if plan.linear else math.inf
        left = math.inf
    return None, left if plan.linear else math.inf


def gaps(similarity: Similarity, plans: Mapping[str, Plan], proved: Proved | None = None) -> Proved:
    """For each group how much another order of it alone could raise the objective at most.

    That is the ``gap`` of tensors in which the objective is linear in the order, and of tangled ones how
    much more alike they could be at all. What is ``proved`` already is not computed again.
    """
    known = proved or {}
    return {g: known[g] if g in known else _gap(similarity, p) for g, p in plans.items()}


def _gap(similarity: Similarity, plan: Plan) -> float:
    room = similarity.room(plan.tangled)
    rest = [s for s in plan.sites if s.name not in room]
    return sum(room.values()) + (float(gap(similarity.total(rest)).sum()) if rest else 0.0)


Best = Callable[[Similarity, Plan], tuple[dict[int, IntArray], float | None, float]]
"""Orders of a group and of those inside it, their gain where that is exact, what is left (inf: not known)."""


def _exchanges(similarity: Similarity, plan: Plan) -> tuple[dict[int, IntArray], None, float]:
    """Every exchange of two units that is the best one for both."""
    return {plan.atom: _exchanged(similarity, plan, mutual)}, None, math.inf


def _exchange(similarity: Similarity, plan: Plan) -> tuple[dict[int, IntArray], None, float]:
    """The exchange of two units that gains most."""
    return {plan.atom: _exchanged(similarity, plan, highest)}, None, math.inf


def _exchanged(
    similarity: Similarity, plan: Plan, chosen: Callable[[torch.Tensor], torch.Tensor]
) -> IntArray:
    """Places after some exchanges, chosen by what each of them alone would gain."""
    bends = similarity.bends(plan.sites)
    if bends is None:
        fibres, units, _ = plan.sites[0].rows.shape
        return np.tile(np.arange(units), (fibres, 1))
    total = similarity.total(plan.sites)
    own = total.diagonal(dim1=-2, dim2=-1)
    gains = total + total.mT - own[..., None] - own[..., None, :] + bends
    places: IntArray = chosen(gains).cpu().numpy()
    return places


def _places(columns: torch.Tensor) -> IntArray:
    """From "row i is filled by column p(i)" to "unit j goes to place p^-1(j)"."""
    inverse: IntArray = columns.argsort(-1).cpu().numpy()
    return inverse


def _one_level(similarity: Similarity, plan: Plan) -> tuple[dict[int, IntArray], float | None, float]:
    """The best order of the units, the units inside them keeping theirs.

    Second, its gain where that is exact, third how much better another could be (see ``solve``).
    """
    total = similarity.total(plan.sites)
    columns, left = solve(total)
    gain = None
    if plan.linear:
        chosen = total.gather(-1, columns[..., None])[..., 0] - total.diagonal(dim1=-2, dim2=-1)
        gain = float(chosen.sum(dtype=torch.float64))
    return {plan.atom: _places(columns)}, gain, left


def _two_level(similarity: Similarity, plan: Plan) -> tuple[dict[int, IntArray], None, float]:
    """The best order of the units as far as can be told, and for each the best order of what it contains."""
    structure = similarity.transform.structure
    compared = _by_circuits if _entries(structure, plan) > PAIRS else _by_orders
    outer, orders = compared(similarity, plan)
    found = {plan.atom: _places(outer)}
    for child, chosen in orders.items():
        found[child] = _inner_places(structure, plan.atom, child, outer, chosen)
    return found, None, math.inf


def _entries(structure: Structure, plan: Plan) -> int:
    """How many pairs of child units there are in all pairs of units, for the child that has most."""
    sort = structure.sorts[plan.atom]
    return max(sort.order * (sort.size * structure.sorts[j].size) ** 2 for j in plan.inner)


Orders = tuple[torch.Tensor, dict[int, torch.Tensor]]
"""The unit of b for each unit of a [fibre, unit], and inside of it [fibre, unit, child unit] per child."""


def _by_orders(similarity: Similarity, plan: Plan) -> Orders:
    """Each pair compared under its own best inner order."""
    fibres = similarity.transform.structure.sorts[plan.atom].order
    orders: dict[int, torch.Tensor] = {}
    values = [similarity.total(plan.own)] if plan.own else []
    for child, sites in plan.inner.items():
        pairs = functools.reduce(torch.add, (similarity.across(site, fibres) for site in sites))
        orders[child] = assign(pairs)
        values.append(pairs.gather(-1, orders[child][..., None])[..., 0].sum(-1))
    outer = assign(torch.stack(values).sum(0))
    index = outer[..., None, None]
    return outer, {
        j: x.gather(2, index.expand(*outer.shape, 1, x.shape[-1]))[:, :, 0] for j, x in orders.items()
    }


def _by_circuits(similarity: Similarity, plan: Plan) -> Orders:
    """Each pair compared whatever the inner order, which is then sought for the pairs chosen alone."""
    structure = similarity.transform.structure
    fibres = structure.sorts[plan.atom].order
    values = [similarity.total(plan.own)] if plan.own else []
    values += [similarity.circuits(sites, fibres) for sites in plan.inner.values()]
    outer = assign(torch.stack(values).sum(0))
    trial = similarity.fork()
    trial.put(structure.extend({plan.atom: _places(outer)}), set(plan.names))
    inner = {j: assign(trial.total(sites)) for j, sites in plan.inner.items()}
    return outer, {j: x.reshape(*outer.shape, -1) for j, x in inner.items()}


def _inner_places(
    structure: Structure, atom: int, child: int, outer: torch.Tensor, chosen: torch.Tensor
) -> IntArray:
    """Places of a child's units: unit ``outer[i]`` of b moves to i with inner order ``chosen[i]``."""
    fibre, size = outer.shape
    sources = (outer + torch.arange(fibre, device=outer.device)[:, None] * size).reshape(-1)
    places = torch.empty_like(chosen).reshape(fibre * size, -1)
    places[sources] = chosen.argsort(-1).reshape(fibre * size, -1)
    return places.cpu().numpy()[_unit_of_fibre(structure, atom, child)]


def _unit_of_fibre(structure: Structure, atom: int, child: int) -> IntArray:
    """For each fibre of a child the unit of the atom that contains it."""
    sort = structure.sorts[child]
    return owners(structure, atom)[sort.units[:: sort.size]]
