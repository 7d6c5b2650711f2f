"""From stated facts to the structure of a model's symmetries."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np

from graphmerge.axes.units import IntArray, Universe, Value, Whole
from graphmerge.symmetry.branches import Branches
from graphmerge.symmetry.solve import solve, stated_classes
from graphmerge.symmetry.stacks import Stacks, stack
from graphmerge.symmetry.statements import NOBODY
from graphmerge.symmetry.structure import (
    IrregularError,
    Structure,
    at_positions,
    classes_along,
    generators,
    random_inner,
)


def build(u: Universe, parameters: Mapping[str, Value], branches: Sequence[Branches] = ()) -> Structure:
    """Solve the facts of ``u`` for the symmetries of ``parameters``, those of parallel branches stacked."""
    if not branches:
        return _build(u, Stacks(parameters, {}, (), (), lambda tag: tag, NOBODY))
    stacks = stack(u, parameters, branches, stated_classes(u))
    structure = _build(u, stacks)
    moving = [bool((structure.sort_of[structure.classes[heads]] >= 0).any()) for heads in stacks.heads]
    if all(moving):
        return structure
    return build(u, parameters, [s for s, live in zip(stacks.sets, moving, strict=True) if live])


def _own_marks(parameters: Mapping[str, Value]) -> list[IntArray]:
    """The units of each dimension of each parameter: none may take the place of one elsewhere."""
    return [np.unique(x) for v in parameters.values() for x in v.labels or () if not isinstance(x, Whole)]


def _build(u: Universe, stacks: Stacks) -> Structure:
    parameters = stacks.values
    solution = solve(u, _own_marks(parameters), stacks.alike, stacks.owners)
    labels = {n: classes_along(solution.classes, v, n in stacks.members) for n, v in parameters.items()}
    shapes = {n: v.shape for n, v in parameters.items()}
    sorts, branches = solution.sorts, tuple(zip(stacks.sets, stacks.heads, strict=True))
    seats = {n: at_positions(solution.seats, v, labels[n]) for n, v in parameters.items()}
    whole = Structure(
        sorts, solution.sort_of, labels, shapes, frozenset(), solution.classes, seats, solution.seats,
        stacks.members, branches,
    )  # fmt: skip
    return _prune(_without_still(_freeze_irregular(whole)))


def _without_still(structure: Structure) -> Structure:
    """Take the labels off dimensions along which nothing ever moves.

    Their units follow those of another dimension of the same tensor, each row to the same place in
    another row: the kernel positions of each channel, where every channel may have its own.
    """
    phi = structure.extend(random_inner(structure, np.random.default_rng(0)))
    labels = dict(structure.labels)
    for name, dims in labels.items():
        fibred = [d for d, x in enumerate(dims) if x is not None and x.size > x.shape[d]]
        sources = structure.sources(name, phi) if fibred else {}
        still = {d for d in fibred if d not in sources or (np.diff(sources[d], axis=d) == 1).all()}
        labels[name] = tuple(None if d in still else x for d, x in enumerate(dims))
    return replace(structure, labels=labels)


def _prune(whole: Structure) -> Structure:
    """Keep the sorts that parameters bear, and those that they project to."""
    borne = [np.unique(whole.sort_of[y]) for x in whole.labels.values() for y in x if y is not None]
    todo = {int(k) for found in borne for k in found if k >= 0}
    kept = sorted(set().union(*(whole.ancestors(k) for k in todo)))
    number = {k: i for i, k in enumerate(kept)}
    sorts = [whole.sorts[k] for k in kept]
    table = np.array([number.get(k, -1) for k in range(len(whole.sorts))] + [-1], dtype=np.int64)
    sort_of = table[whole.sort_of]
    return replace(
        whole,
        sorts=tuple(replace(s, parents=tuple(number[p] for p in s.parents)) for s in sorts),
        sort_of=sort_of,
        labels={
            n: tuple(y if y is not None and (sort_of[y] >= 0).any() else None for y in x)
            for n, x in whole.labels.items()
        },
        frozen=frozenset(number[k] for k in whole.frozen if k in number),
    )


def _freeze_irregular(structure: Structure) -> Structure:
    """Freeze the atoms above any sort that does not follow every symmetry.

    A random one may fit by chance; from generators all others are composed.
    """
    rng = np.random.default_rng(0)
    while True:
        try:
            for inner in generators(structure, rng):
                structure.extend(inner)
        except IrregularError as error:
            above = frozenset(structure.ancestors(error.sort)) & frozenset(structure.atoms)
            structure = replace(structure, frozen=structure.frozen | above)
        else:
            return structure
