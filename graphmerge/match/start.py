"""A start for the descent that does not presume where other units are.

The identity is a poor start for units that are tied to each other (a recurrent layer): their
similarities are then measured against neighbours in the wrong order. Two rows whose entries may yet
be reordered are at most as alike as their *sorted* entries, which is the bound of Gilmore and Lawler
for quadratic assignment (Lawler 1963, The quadratic assignment problem, section 4); an assignment
under that bound is exact where one model is the other in another order.

Groups are placed one after the other, the one of which most is known first: along the dimensions of
groups placed before, and those that never move, entries are compared in order.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping, Set
from itertools import chain

import numpy as np
import torch
from torch import nn

from graphmerge.axes.units import IntArray
from graphmerge.match.alignment import START, Step
from graphmerge.match.assign import assign
from graphmerge.match.descent import Proved, improve, neighbours
from graphmerge.match.layout import Plan, Site
from graphmerge.match.weights import Pair, WeightSimilarity, rows
from graphmerge.symmetry.structure import Structure

PART = 1 << 20
"""Entries of one model that are sorted at once."""

QUANTILES = 64
"""Sorted entries are compared by the means of at least as many runs of them, all as long."""

FEW = 64
"""Entries of a unit in one tensor by which it is recognised, where all of them are in order."""


def place(similarity: WeightSimilarity, plans: Mapping[str, Plan]) -> tuple[Step, Proved]:
    """Move every group of ``plans`` to where the bound says; what contains others goes before them.

    Returns what was done, and which groups are proved to be where the descent would put them.
    """
    structure = similarity.transform.structure
    proved: Proved = {}
    placed = set(structure.atoms) - {p.atom for p in plans.values()}
    waiting = dict(plans)
    alike = True
    while waiting:
        ready = [g for g, p in waiting.items() if _above(structure, p.atom) <= placed]
        free = _free(structure, placed)
        group = max(ready, key=lambda g: _known(structure, waiting[g], free))
        p = waiting.pop(group)
        left, alike = place_one(similarity, p, placed, alike)
        placed.add(p.atom)
        proved = {g: x for g, x in proved.items() if g not in neighbours(plans, group)}
        if left < math.inf:
            proved[group] = left
    moved = sum(similarity.transform.moved_units().values())
    return Step(START, "all groups", moved, similarity.objective), proved


def place_one(
    similarity: WeightSimilarity, plan: Plan, known: Set[int], alike: bool = False
) -> tuple[float, bool]:
    """Move one group to where the bound says when nothing is known of atoms other than ``known``.

    Where it does not meet others this is a step of the descent; what that leaves comes first (inf: not
    known). Where the models may be ``alike``, few entries of what is known are compared before all: units
    of the same model in another order, be it with some noise, are told by them. Second, whether they were.
    """
    structure = similarity.transform.structure
    plain, tangled = _sites(structure, plan, known)
    bound, size = _compared(chain(*(_in_order(similarity, site, plan.atom, known) for site in tangled)))
    if alike:
        near, more = _compared(similarity.some(site, FEW) for site in plain)
        order = _one_to_one(bound + near - (size + more) / 2)
        if order is not None:
            similarity.put(structure.extend({plan.atom: order.cpu().numpy()}), set(plan.names))
            return math.inf, True
    if not tangled:
        return improve(similarity, plan)[1], False
    total = bound + similarity.fresh(plain) if plain else bound
    delta = structure.extend({plan.atom: assign(total).argsort(-1).cpu().numpy()})
    similarity.put(delta, set(plan.names))
    return math.inf, False


def _compared(pairs: Iterable[Pair]) -> tuple[torch.Tensor, torch.Tensor]:
    """Inner products of units of a and of b [fibre, i, j], and squared norms of those of b [fibre, 1, j]."""
    products = norms = torch.zeros(())
    for a, b in pairs:
        products = torch.baddbmm(products.to(a), a, b.mT)
        norms = norms.to(b) + b.square().sum(-1)[:, None]
    return products, norms


def _one_to_one(nearness: torch.Tensor) -> torch.Tensor | None:
    """Where each unit of b goes [fibre, unit] if each one of a has another one nearest to it; None if not."""
    wanted = nearness.argmax(-1)
    order = wanted.argsort(-1)
    is_taken_twice = (wanted.gather(-1, order).diff(dim=-1) == 0).any()
    return None if is_taken_twice else order


def _sites(structure: Structure, plan: Plan, known: Set[int]) -> tuple[list[Site], list[Site]]:
    """Those of tensors that nothing else moves which is not known, and the others."""
    free, inside = _free(structure, known), _free(structure, known | {plan.atom})
    found: tuple[list[Site], list[Site]] = [], []
    for site in plan.sites:
        dims = enumerate(structure.labels[site.name])
        moves = (((inside if d in site.axes else free)[x] >= 0).any() for d, x in dims if x is not None)
        found[any(moves)].append(site)
    return found


def _above(structure: Structure, atom: int) -> set[int]:
    return structure.ancestors(atom) & set(structure.atoms) - {atom}


def _free(structure: Structure, placed: Set[int]) -> IntArray:
    """For each class its sort, or -1 where its place is known [class]; and -1 for no class at all."""
    open_ = [
        bool(structure.ancestors(k) & set(structure.atoms) - placed) for k in range(len(structure.sorts))
    ]
    sorts = np.where([*open_, False], np.arange(len(open_) + 1), -1)
    known: IntArray = sorts[structure.sort_of]
    return known


def _known(structure: Structure, plan: Plan, free: IntArray) -> float:
    """How much of a group's parameters lies where the other dimensions are known, from 0 to 1."""
    part, size = 0.0, 0.0
    for site in plan.sites:
        share = 1.0
        for d, classes in enumerate(structure.labels[site.name]):
            if classes is not None and d not in site.axes:
                share *= float((free[classes] < 0).mean())
        entries = math.prod(structure.shapes[site.name])
        part, size = part + share * entries, size + entries
    return part / size


def _in_order(similarity: WeightSimilarity, site: Site, atom: int, known: Set[int]) -> Iterator[Pair]:
    """Entries of units of a and of b [fibre, unit, entry] whose product is the most that these can be alike.

    Long rows of sorted entries are smooth: means of runs tell all but the last digits of it.
    """
    keys = _keys(similarity.transform.structure, site, atom, known)
    a, b = (rows(site, t).flatten(2) for t in similarity.pair(site.name))
    for columns, size in _alike(keys, PART // (a.shape[0] * a.shape[1])):
        yield _shortened(a, columns, size), _shortened(b, columns, size)


def _shortened(x: torch.Tensor, columns: IntArray, size: int) -> torch.Tensor:
    """Some columns of entries [.., unit, entry], every ``size`` of them in order and by means if many."""
    run = size // QUANTILES
    if run <= 1:
        return _sorted(x, columns, size)
    step = max(1, PART // len(columns))  # units, so that not all rows are copied at once
    return torch.cat([_means(_sorted(part, columns, size), size, run) for part in torch.split(x, step, 1)], 1)


def _means(x: torch.Tensor, size: int, run: int) -> torch.Tensor:
    """Every ``size`` entries by means of ``run`` of them, times the root of that many."""
    short = nn.functional.avg_pool1d(x.reshape(-1, 1, size), run, ceil_mode=True)
    return short.reshape(*x.shape[:2], -1).mul_(math.sqrt(run))


def _keys(structure: Structure, site: Site, atom: int, placed: Set[int]) -> IntArray:
    """For each entry of a unit, role by role, a number shared by those that may change places [entry]."""
    shape = structure.shapes[site.name]
    rest = [d for d in range(len(shape)) if d not in site.axes]
    roles = np.unravel_index(site.rows[0, 0], [shape[d] for d in site.axes])
    index: list[IntArray] = [np.empty(0, np.int64)] * len(shape)
    for d, places in zip(site.axes, roles, strict=True):
        index[d] = places.reshape(-1, *[1] * len(rest))
    for i, d in enumerate(rest):
        index[d] = np.arange(shape[d]).reshape(-1, *[1] * (len(rest) - 1 - i))
    role = np.arange(site.rows.shape[2]).reshape(-1, *[1] * len(rest))
    free = {False: _free(structure, placed), True: _free(structure, placed | {atom})}
    key = np.zeros((len(role), *[shape[d] for d in rest]), np.int64)
    for d, classes in enumerate(structure.labels[site.name]):
        mark = role if d in site.axes else index[d]
        if classes is not None:
            sort = free[d in site.axes][
                classes[tuple(i if n > 1 else 0 * i for i, n in zip(index, classes.shape, strict=True))]
            ]
            mark = np.where(sort >= 0, -1 - sort, mark)
        key = key * (len(structure.sorts) + mark.max() + 2) + mark + len(structure.sorts) + 1
        key = np.unique(key, return_inverse=True)[1].reshape(key.shape)
    return key.ravel()


def _alike(keys: IntArray, most: int) -> Iterator[tuple[IntArray, int]]:
    """Entries key by key, those of keys with as many entries together, about ``most`` at once; how many."""
    _, number, counts = np.unique(keys, return_inverse=True, return_counts=True)
    sizes = counts[number]
    columns = np.lexsort((number, sizes))
    for size in map(int, np.unique(counts)):
        own = columns[sizes[columns] == size]
        step = max(1, most // size) * size
        yield from ((own[k : k + step], size) for k in range(0, len(own), step))


def _sorted(entries: torch.Tensor, columns: IntArray, size: int) -> torch.Tensor:
    """Some columns of entries [.., entry], every ``size`` of them in ascending order."""
    flat = entries.flatten(0, 1)  # with three dimensions the selection takes ten times as long
    part = flat.index_select(-1, torch.from_numpy(columns).to(flat.device))
    if size > 1:
        _sort(part.view(len(part), -1, size))
    return part.reshape(*entries.shape[:2], -1)


def _sort(t: torch.Tensor) -> None:
    """Sort along the last dimension in place; on the CPU numpy does it, thirty times as fast as torch."""
    if t.device.type == "cpu":
        t.numpy().sort(-1)
    else:
        t.copy_(t.sort(-1).values)
