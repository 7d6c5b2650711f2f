"""Symmetries written down by a person, read from a short text.

The style is that of Git Re-Basin's ``PermutationSpec`` (Ainsworth et al. 2023): one line per
parameter, which names the axis of each of its dimensions.

    axis heads 4                        4 units that may change places
    axis qk 8 in heads                  8 units in each head, with an order of its own in every head
    attn.qkv.weight: heads*qk + heads*qk + heads*v, stream
    norm.{weight,bias}: stream

An axis that is not declared is as large as the first dimension that it fills alone. ``a*b`` are
blocks, the first factor outermost, ``+`` lays parts one after the other, a number is that many
fixed positions, ``-`` a fixed dimension, ``?`` one that is left out of the comparison. Dimensions
left out at the end of a line are fixed. ``{x,y}`` stands for several names. A block below
``for l in 0..3:`` or ``for s width in 1 64; 2 128:`` is read once for each row, with ``{l}``
replaced; ``let name = text`` defines ``{name}`` for the lines that follow.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from math import prod

Place = tuple[str, int]
Members = frozenset[Place]
Term = tuple[str, ...]


@dataclass(frozen=True)
class Group:
    """``within`` are the members of the groups that this one lies in."""

    size: int
    copies: int
    members: Members
    within: frozenset[Members]


@dataclass(frozen=True)
class Spec:
    """``dims[parameter]``: for each dimension its terms, products of axes and numbers; None is left out."""

    sizes: Mapping[str, int]
    outer: Mapping[str, str]
    dims: Mapping[str, tuple[tuple[Term, ...] | None, ...]]

    def groups(self) -> set[Group]:
        """Every axis as a group, those that a dimension left out belongs to excepted."""
        members = self._members()
        return {
            Group(n, self._copies(a), members[a], frozenset(members[b] for b in self._above(a)))
            for a, n in self.sizes.items()
        }

    def _members(self) -> dict[str, Members]:
        """For each axis the dimensions that it stands in, itself or through one that lies in it."""
        found: dict[str, set[Place]] = {a: set() for a in self.sizes}
        for name, dims in self.dims.items():
            for d, terms in enumerate(dims):
                for factor in (f for term in terms or () for f in term if f in found):
                    for axis in (factor, *self._above(factor)):
                        found[axis].add((name, d))
        return {a: frozenset(places) for a, places in found.items()}

    def _above(self, axis: str) -> list[str]:
        """The axes that an axis lies in, nearest first."""
        found = []
        while axis in self.outer:
            axis = self.outer[axis]
            found.append(axis)
        return found

    def _copies(self, axis: str) -> int:
        return prod(self.sizes[b] for b in self._above(axis))

    def left_out(self) -> set[Place]:
        return {(n, d) for n, dims in self.dims.items() for d, terms in enumerate(dims) if terms is None}


def read(text: str, shapes: Mapping[str, tuple[int, ...]], names: Mapping[str, str]) -> Spec:
    """Read a spec of a network with parameters of these ``shapes``; every parameter must have a line.

    ``names`` maps every name of a tensor (tied weights have several) to the one in ``shapes``.
    """
    sizes: dict[str, int] = {}
    outer: dict[str, str] = {}
    dims: dict[str, tuple[tuple[Term, ...] | None, ...]] = {}
    for line in _expand([x for x in text.splitlines() if x.strip() and not x.lstrip().startswith("#")], {}):
        words = line.split()
        if words[0] == "axis":
            sizes[words[1]] = int(words[2])
            if len(words) > 3:
                outer[words[1]] = words[4]
        else:
            pattern, _, right = line.partition(":")
            for alias in _names(pattern.strip()):
                assert names.get(alias) in shapes, f"the network has no parameter {alias}"
                name = names[alias]
                assert name not in dims, f"{alias} has two lines"
                found = tuple(_terms(x) for x in right.split(","))
                dims[name] = found + ((("-",),),) * (len(shapes[name]) - len(found))
    _infer_sizes(dims, shapes, sizes)
    missing = sorted(set(shapes) - set(dims))
    assert not missing, f"no line for {missing[:5]} ({len(missing)} parameters)"
    for name, terms in dims.items():
        _check_extents(name, terms, shapes[name], sizes)
    return Spec(sizes, outer, dims)


def _expand(lines: Sequence[str], values: dict[str, str]) -> Iterator[str]:
    """The lines with loops unrolled and variables replaced."""
    k = 0
    while k < len(lines):
        line = re.sub(r"\{(\w+)\}", lambda m: values.get(m[1], m[0]), lines[k].strip())
        indent = _indent(lines[k])
        body = k + 1
        while body < len(lines) and _indent(lines[body]) > indent:
            body += 1
        if line.startswith("for "):
            names, _, rows = line.removeprefix("for ").rstrip(":").partition(" in ")
            for row in _rows(rows):
                values.update(zip(names.split(), row, strict=True))
                yield from _expand(lines[k + 1 : body], values)
        elif line.startswith("let "):
            name, _, text = line.removeprefix("let ").partition(" = ")
            values[name.strip()] = text.strip()
        else:
            yield line
        k = body


def _indent(line: str) -> int:
    return len(line) - len(line.lstrip())


def _rows(text: str) -> list[list[str]]:
    span = re.fullmatch(r"(\d+)\.\.(\d+)", text.strip())
    if span:
        return [[str(k)] for k in range(int(span[1]), int(span[2]) + 1)]
    return [row.split() for row in text.split(";")] if ";" in text else [[x] for x in text.split()]


def _names(pattern: str) -> list[str]:
    """Every name that a pattern with alternatives in braces stands for."""
    parts = re.split(r"\{([^}]*)\}", pattern)
    choices = [part.split(",") if k % 2 else [part] for k, part in enumerate(parts)]
    return ["".join(x) for x in product(*choices)]


def _terms(text: str) -> tuple[Term, ...] | None:
    if text.strip() == "?":
        return None
    return tuple(tuple(f.strip() for f in term.split("*")) for term in text.split("+"))


def _infer_sizes(
    dims: Mapping[str, tuple[tuple[Term, ...] | None, ...]],
    shapes: Mapping[str, tuple[int, ...]],
    sizes: dict[str, int],
) -> None:
    for name, every in dims.items():
        for n, terms in zip(shapes[name], every, strict=True):
            if terms and len(terms) == len(terms[0]) == 1 and not re.fullmatch(r"-|\d+", terms[0][0]):
                sizes.setdefault(terms[0][0], n)


def _check_extents(
    name: str,
    dims: Sequence[tuple[Term, ...] | None],
    shape: Sequence[int],
    sizes: Mapping[str, int],
) -> None:
    """The parts of every dimension must make up its extent."""
    for d, (n, terms) in enumerate(zip(shape, dims, strict=True)):
        if terms is not None and terms != (("-",),):
            total = sum(prod(sizes[f] if f in sizes else int(f) for f in term) for term in terms)
            assert total == n, f"{name}:{d} has {n} positions, its line makes {total}"
