"""Applying a rule text: the labels of its letters become one, as far as every tensor permits."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import prod

import numpy as np

from graphmerge.axes.grid import Grid, dependences, join, split
from graphmerge.axes.reasons import reason
from graphmerge.axes.routing import unrouted
from graphmerge.axes.text import Dim, parse
from graphmerge.axes.units import ANY, FIXED, IntArray, Labels, Universe, Value, Whole


@dataclass
class Tensor:
    """A value spread out to one dimension per letter."""

    value: Value | None
    dims: tuple[Dim, ...]
    letters: tuple[str, ...]
    grid: Grid | None

    def routed(self) -> dict[str, str]:
        """The index tensor behind each routed letter."""
        found = self.value.routed.items() if self.value else ()
        return {self.dims[d][0]: key for d, key in found if len(self.dims[d]) == 1}


def relate(
    u: Universe,
    text: str,
    values: Sequence[Value | None],
    outputs: Sequence[tuple[str, tuple[int, ...]]],
    sizes: dict[str, int] | None = None,
    evenly: bool = False,
) -> list[Value]:
    """State what the rule ``text`` says of ``values``; returns the labelled ``outputs`` (name, shape).

    ``evenly`` says the same of all values: what they share gets labels of its own, not those of one.
    """
    rule = parse(text)
    present = [(v, d) for v, d in zip(values, rule.inputs, strict=False) if v is not None]
    terms = [(v.shape, _fit(d, v.rank, v.name)) for v, d in present]
    results = [(s, _fit(d, len(s), n)) for (n, s), d in zip(outputs, rule.outputs, strict=True)]
    size = _letter_sizes([*terms, *results], dict(sizes or {}), text)
    tensors = [_spread(u, v, d, size) for (v, _), (_, d) in zip(present, terms, strict=True)]
    returned = [_empty(d, s) for s, d in results]
    routed = _one_routing(u, tensors, returned)
    everything = [*tensors, *returned]
    labels = _unify(u, everything, size, rule.fixed, evenly)
    for t in tensors:
        _label_parameter(u, t, labels, size)
    _link(u, everything, [v.name for v, _ in present] + [n for n, _ in outputs], size, rule.fixed)
    made = [_assemble(u, n, s, d, labels, size) for (n, _), (s, d) in zip(outputs, results, strict=True)]
    for value, (_, dims) in zip(made, results, strict=True):
        value.routed = {k: routed[d[0]] for k, d in enumerate(dims) if len(d) == 1 and d[0] in routed}
    return made


def _fit(dims: tuple[Dim, ...], rank: int, name: str) -> tuple[Dim, ...]:
    """Spell out ``...`` as letters numbered from the right."""
    if ("...",) not in dims:
        assert len(dims) == rank, f"{name} has rank {rank}, its rule {len(dims)}"
        return dims
    at = dims.index(("...",))
    extra = rank - len(dims) + 1
    return (*dims[:at], *(((f"_{extra - 1 - k}"),) for k in range(extra)), *dims[at + 1 :])


def _letter_sizes(
    terms: Sequence[tuple[tuple[int, ...], tuple[Dim, ...]]], size: dict[str, int], text: str
) -> dict[str, int]:
    """The size of each letter; a composite dimension may leave one letter to be worked out."""
    for shape, dims in terms:
        for n, dim in zip(shape, dims, strict=True):
            if len(dim) == 1 and not dim[0].isdigit():
                size[dim[0]] = max(size.get(dim[0], 1), n)
    for shape, dims in terms:
        for n, dim in zip(shape, dims, strict=True):
            size.update({d: int(d) for d in dim if d.isdigit()})
            unknown = [d for d in dim if d not in size]
            if len(dim) > 1 and unknown:
                assert len(unknown) == 1, f"rule {text!r} leaves the sizes of {unknown} open"
                size[unknown[0]] = n // prod(size[d] for d in dim if d in size)
    return size


def _spread(u: Universe, value: Value, dims: tuple[Dim, ...], size: dict[str, int]) -> Tensor:
    """Split the composite dimensions of a value, so that each letter has its own."""
    letters = _letters(dims, value.shape)
    if value.labels is None:
        return Tensor(value, dims, letters, None)
    composite = [k for k in value.routed if len(dims[k]) > 1]
    grid = unrouted(u, Grid(value.shape, tuple(value.labels)), composite)
    axis = 0
    for n, dim in zip(value.shape, dims, strict=True):
        whole = n
        for d in dim[:-1] if n > 1 else ():
            grid = split(u, grid, axis, (size[d], whole // size[d]))
            axis, whole = axis + 1, whole // size[d]
        axis += 1
    return Tensor(value, dims, letters, grid)


def _letters(dims: tuple[Dim, ...], shape: tuple[int, ...]) -> tuple[str, ...]:
    """One name per spread dimension; a broadcast dimension has none, nor has one of size 1."""
    names: list[str] = []
    for k, (n, dim) in enumerate(zip(shape, dims, strict=True)):
        if n == 1:
            names.append("")
        else:
            names += [f"#{k}.{i}={d}" if d.isdigit() else d for i, d in enumerate(dim)]
    return tuple(names)


def _one_routing(u: Universe, tensors: Sequence[Tensor], results: Sequence[Tensor]) -> dict[str, str]:
    """Letters routed by one index tensor, wherever an order depends on them; others lose their routing.

    So do all that an index routes where one of them is summed over: the sum is that of several choices.
    """
    keys: dict[str, set[str]] = {}
    for t in tensors:
        for axis, letter in enumerate(t.letters):
            if t.grid and any(axis in dependences(x, k) for k, x in enumerate(t.grid.labels)):
                keys.setdefault(letter, set()).add(t.routed().get(letter, ""))
    kept = [set(t.letters) for t in results]
    summed = {key for t in tensors for x, key in t.routed().items() if any(x not in k for k in kept)}
    mixed = {letter for letter, found in keys.items() if len(found) > 1 or found & summed}
    for t in tensors:
        if t.grid and mixed & t.routed().keys():
            t.grid = unrouted(u, t.grid, [k for k, letter in enumerate(t.letters) if letter in mixed])
    return {letter: min(found) for letter, found in keys.items() if letter not in mixed and "" not in found}


def _empty(dims: tuple[Dim, ...], shape: tuple[int, ...]) -> Tensor:
    return Tensor(None, dims, _letters(dims, shape), None)


def _may_depend(tensors: Sequence[Tensor]) -> dict[str, set[str]]:
    """For each letter the others that every tensor with the letter has too."""
    common: dict[str, set[str]] = {}
    for t in tensors:
        names = [x for x in t.letters if x]
        for letter in names:
            common[letter] = common.get(letter, set(names)) & set(names) - {letter}
    return common


def _stack(tensors: Sequence[Tensor], letter: str) -> set[str]:
    """The first dimension of a parameter of three that nobody has read: it may be a stack of matrices."""
    unread = [t.letters for t in tensors if t.value is not None and t.grid is None and len(t.dims) == 3]
    return {x[0] for x in unread if letter in x[1:]}


def _unify(
    u: Universe, tensors: Sequence[Tensor], size: dict[str, int], fixed: frozenset[str], evenly: bool
) -> dict[str, tuple[tuple[str, ...], Labels]]:
    """For each letter the letters its order depends on, and its labels [dependences..., letter]."""
    allowed = _may_depend(tensors)
    known = u.count
    labels = {x: _unify_letter(u, x, tensors, size, fixed, allowed, evenly) for x in allowed}
    for deps, x in labels.values():
        if not isinstance(x, Whole) and x.size and x.flat[0] >= known:
            _follow(u, x, deps, labels)
    return labels


def _follow(
    u: Universe, x: IntArray, deps: tuple[str, ...], labels: dict[str, tuple[tuple[str, ...], Labels]]
) -> None:
    """New units that have an order of their own at each position of ``deps`` follow that position."""
    for axis, dep in enumerate(deps):
        further, onto = labels[dep]
        if isinstance(onto, Whole):
            u.tie(x, onto, axis)
        elif set(further) <= set(deps):
            places = [*(deps.index(d) for d in further), axis]
            shape = [1] * x.ndim
            for n, place in zip(onto.shape, places, strict=True):
                shape[place] = n
            u.tie(x, onto.transpose(np.argsort(places)).reshape(shape), axis)
        else:
            u.tie(x, FIXED, axis)


def _unify_letter(
    u: Universe,
    letter: str,
    tensors: Sequence[Tensor],
    size: dict[str, int],
    fixed: frozenset[str],
    allowed: dict[str, set[str]],
    evenly: bool,
) -> tuple[tuple[str, ...], Labels]:
    carriers = [
        (i, *_in_letters(t, k))
        for i, t in enumerate(tensors)
        if t.grid
        for k, x in enumerate(t.letters)
        if x == letter
    ]
    unread = any(t.value is not None and t.grid is None and letter in t.letters for t in tensors)
    arrays = [(i, deps, x) for i, deps, x in carriers if not isinstance(x, Whole)]
    if letter in fixed or letter.startswith("#") or any(x is FIXED for _, _, x in carriers):
        for u.part, _, x in arrays:
            u.tie(x, FIXED, -1)
        u.part = -1
        return (), FIXED
    if not arrays and not unread:
        assert carriers or size[letter] == 1, f"letter {letter!r} stands in an output only and is not fixed"
        return (), ANY
    known = [(deps, x) for _, deps, x in arrays]
    target_deps, target = _target(u, letter, known, size, allowed, _stack(tensors, letter), evenly)
    for u.part, deps, x in arrays:
        u.tie(x, _spread_over(target, target_deps, deps), -1)
    u.part = -1
    return target_deps, target


def _target(
    u: Universe,
    letter: str,
    arrays: Sequence[tuple[tuple[str, ...], IntArray]],
    size: dict[str, int],
    allowed: dict[str, set[str]],
    stack: set[str],
    evenly: bool,
) -> tuple[tuple[str, ...], IntArray]:
    """The labels that all carriers of a letter share: those of one of them, else new ones."""
    free = {m for m in allowed[letter] if letter not in allowed[m] or m in stack}  # never each on the other
    shared = set.intersection(*(set(d) for d, _ in arrays)) & allowed[letter] if arrays else free
    for deps, x in arrays if not evenly else ():
        if set(deps) == shared:
            return deps, x
    order = tuple(sorted(shared))
    return order, u.new((*(size[_plain(d)] for d in order), size[letter]))


def _plain(letter: str) -> str:
    """A fixed factor's name without its place."""
    return letter.rpartition("=")[2]


def _in_letters(tensor: Tensor, axis: int) -> tuple[tuple[str, ...], Labels]:
    """Labels of one dimension as an array [dependences in sorted order..., itself]."""
    assert tensor.grid is not None
    x = tensor.grid.labels[axis]
    if isinstance(x, Whole):
        return (), x
    deps = sorted(dependences(x, axis), key=lambda k: tensor.letters[k])
    rest = tuple(k for k in range(x.ndim) if k not in deps and k != axis)
    x = x.transpose([*rest, *deps, axis])
    return tuple(tensor.letters[k] for k in deps), x.reshape(x.shape[len(rest) :])


def _spread_over(target: IntArray, have: tuple[str, ...], want: tuple[str, ...]) -> IntArray:
    """Give the target a dimension of size 1 for each dependence that it does not have."""
    missing = [k for k, d in enumerate(want) if d not in have]
    return np.expand_dims(target, tuple(missing)) if missing else target


def _labels_for(
    letters: tuple[str, ...], axis: int, labels: dict[str, tuple[tuple[str, ...], Labels]]
) -> Labels:
    """Labels of dimension ``axis`` of a tensor with these letters."""
    if not letters[axis]:
        return ANY
    deps, x = labels[letters[axis]]
    if isinstance(x, Whole):
        return x
    places = [*(letters.index(d) for d in deps), axis]
    shape = [1] * len(letters)
    for n, place in zip(x.shape, places, strict=True):
        shape[place] = n
    return x.transpose(np.argsort(places)).reshape(shape)


def _assemble(
    u: Universe,
    name: str,
    shape: tuple[int, ...],
    dims: tuple[Dim, ...],
    labels: dict[str, tuple[tuple[str, ...], Labels]],
    size: dict[str, int],
) -> Value:
    letters = _letters(dims, shape)
    spread = tuple(size[_plain(x)] if x else 1 for x in letters)
    grid = Grid(spread, tuple(_labels_for(letters, k, labels) for k in range(len(letters))))
    for axis, (n, dim) in enumerate(zip(shape, dims, strict=True)):
        for k in reversed(range(len(dim) - 1 if n > 1 else 0)):
            grid = join(u, grid, axis + k)
    return Value(name, shape, list(grid.labels))


def _label_parameter(
    u: Universe, tensor: Tensor, labels: dict[str, tuple[tuple[str, ...], Labels]], size: dict[str, int]
) -> None:
    """A parameter read for the first time is as free as this rule permits."""
    value = tensor.value
    if value is not None and value.labels is None:
        value.labels = _assemble(u, value.name, value.shape, tensor.dims, labels, size).labels


def _link(
    u: Universe, tensors: Sequence[Tensor], names: Sequence[str], size: dict[str, int], fixed: frozenset[str]
) -> None:
    """Record the fact for people: a star from the first dimension with a letter to the others."""
    first: dict[str, tuple[str, int]] = {}
    for t, name in zip(tensors, names, strict=True):
        for axis, dim in enumerate(t.dims):
            for letter in dim:
                here = (name, axis)
                if letter in fixed:
                    u.fix(here, reason(u.where.op, letter))
                elif not letter.isdigit() and size[letter] > 1:
                    u.link(first.setdefault(letter, here), here)
