"""The groups of a graph, and what stays fixed, by module: a tree in which alike siblings are one."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from itertools import takewhile

from graphmerge.symmetry.fixed import FixedAxis
from graphmerge.symmetry.groups import SymmetryGroup


@dataclass(frozen=True)
class Branch:
    """A module with the groups that belong to it and the fixed axes of its own parameters.

    ``label`` is its name below the parent. ``alike`` branches (1 or more) have the very same
    content but for their names; this is the first of them, and ``path`` its full name.
    """

    path: str
    label: str
    groups: tuple[SymmetryGroup, ...]
    fixed: tuple[FixedAxis, ...]
    children: tuple[Branch, ...]
    alike: int = 1

    def local(self, name: str) -> str:
        """A name as seen from inside this module; that of the module itself is its last word."""
        if name == self.path:
            return name.rpartition(".")[2]
        return name.removeprefix(self.path + ".") if self.path else name


def module_of(parameter: str) -> str:
    """``layer1.0.conv1`` for ``layer1.0.conv1.weight``."""
    return parameter.rpartition(".")[0]


def home(group: SymmetryGroup) -> str:
    """The lowest module that holds all members of a group."""
    paths = [module_of(name).split(".") for name, _ in group.members]
    shared = takewhile(lambda parts: len(set(parts)) == 1, zip(*paths, strict=False))
    return ".".join(parts[0] for parts in shared)


def module_tree(
    parameters: Iterable[str], groups: Iterable[SymmetryGroup], fixed: Iterable[FixedAxis]
) -> Branch:
    """All groups and fixed axes, each at its module; what a leaf alone has to tell stands at its parent.

    Modules stand in the order of their ``parameters``.
    """
    at: defaultdict[str, list[SymmetryGroup]] = defaultdict(list)
    stays: defaultdict[str, list[FixedAxis]] = defaultdict(list)
    below: defaultdict[str, dict[str, None]] = defaultdict(dict)
    for g in groups:
        at[home(g)].append(g)
    for f in fixed:
        stays[module_of(f.parameter)].append(f)
    for path in map(module_of, parameters):
        while path:
            below[module_of(path)][path] = None
            path = module_of(path)

    def grow(path: str) -> Branch:
        label = path.rpartition(".")[2]
        grown = [grow(p) for p in below[path]]
        leaves = [b for b in grown if not b.groups and not b.children]
        children = _fold([b for b in grown if b.groups or b.children])
        own = (*stays[path], *(f for b in leaves for f in b.fixed))
        return _shorten(Branch(path, label, tuple(at[path]), own, tuple(children)))

    return grow("")


def _shorten(branch: Branch) -> Branch:
    """A module that holds one other and nothing else goes by the name of both."""
    if branch.path and not branch.groups and not branch.fixed and len(branch.children) == 1:
        (only,) = branch.children
        return replace(only, label=f"{branch.label}.{only.label}")
    return branch


def _fold(branches: Sequence[Branch]) -> list[Branch]:
    """Numbered siblings of one content become the first of them, under all their numbers."""
    alike: defaultdict[object, list[Branch]] = defaultdict(list)
    for b in branches:
        stem, _, _ = _numbered(b.label)
        alike[stem, _content(b) if stem is not None else b.path].append(b)
    return [
        replace(same[0], label=_labels(same), alike=len(same)) if len(same) > 1 else same[0]
        for same in alike.values()
    ]


def _numbered(label: str) -> tuple[str | None, int, str]:
    """``layer12.block`` as stem, number and rest; no stem where there is no number, or several."""
    found = re.fullmatch(r"([^.\d]*)(\d+)((?:\.\D+)?)", label)
    return (f"{found[1]}*{found[3]}", int(found[2]), found[3]) if found else (None, 0, "")


def _labels(same: Sequence[Branch]) -> str:
    """``layers.0-2,5`` of the branches 0, 1, 2 and 5."""
    if len(same) == 1:
        return same[0].label
    stem, _, rest = _numbered(same[0].label)
    runs: list[list[int]] = []
    for n in sorted(_numbered(b.label)[1] for b in same):
        if runs and n == runs[-1][1] + 1:
            runs[-1][1] = n
        else:
            runs.append([n, n])
    numbers = ",".join(f"{a}-{b}" if a < b else str(a) for a, b in runs)
    return f"{str(stem).partition('*')[0]}{numbers}{rest}"


def _content(branch: Branch) -> object:
    """All that is told of a branch, with names as seen from inside."""
    local = branch.local
    groups = tuple(
        (local(g.name), g.size, g.copies, g.kind, tuple(map(local, g.within)), len(g.members))
        for g in branch.groups
    )
    fixed = tuple((local(f.parameter), f.dim, f.units, f.cause) for f in branch.fixed)
    return groups, fixed, tuple((b.label, b.alike, _content(b)) for b in branch.children)
