"""The model graph: what was traced, which symmetries it has, and why."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from fnmatch import fnmatchcase
from functools import cached_property
from typing import Any

import networkx as nx
import numpy as np
from torch import nn

from graphmerge.axes import RULES, Registry, Where, Whole
from graphmerge.errors import TraceError, UsageError, refusal
from graphmerge.symmetry.naming import distinct, own_names
from graphmerge.symmetry.propagate import Facts, propagate
from graphmerge.symmetry.structure import Structure, build, random_inner
from graphmerge.symmetry.transform import Transform, identity
from graphmerge.trace import Program, export_program
from graphmerge.trace.program import first_difference
from graphmerge.trace.run import device_of, to_device

Place = tuple[str, int]


@dataclass(frozen=True)
class SymmetryGroup:
    """Units that may be permuted among themselves without changing the network.

    ``size`` units in each of ``copies`` fibres: a plain group has one copy; a group that is
    ``within`` others has its own order inside each of their units (the dimensions within each head).
    ``members`` are the (parameter, dimension) pairs that move with it.
    """

    name: str
    size: int
    copies: int
    kind: str
    members: tuple[Place, ...]
    within: tuple[str, ...]

    @property
    def units(self) -> int:
        return self.size * self.copies


@dataclass(frozen=True)
class FixedAxis:
    """A parameter dimension (or the part of one) that never moves, and the reason."""

    parameter: str
    dim: int
    units: int
    reason: str


@dataclass(frozen=True)
class ModelGraph:
    """A traced model with its symmetry groups; ``model`` is the module that was traced."""

    model: nn.Module
    program: Program
    structure: Structure
    facts: Facts
    registry: Registry = RULES

    @property
    def pinned(self) -> Sequence[tuple[Where, str]]:
        """Operator calls without a rule: all that they touch is fixed."""
        return self.facts.universe.pinned

    @property
    def probed(self) -> Sequence[tuple[Where, str]]:
        """Operator calls without a rule that were tried out, and the rule text that was found to hold."""
        return self.facts.universe.probed

    @cached_property
    def groups(self) -> tuple[SymmetryGroup, ...]:
        """All symmetry groups, in the order of the parameters that they move."""
        return tuple(g for k, g in self._named if k not in self.structure.frozen)

    @cached_property
    def frozen(self) -> tuple[str, ...]:
        """The names of groups that are kept in place, by ``freeze`` or because nobody reads their units."""
        return tuple(g.name for k, g in self._named if k in self.structure.frozen)

    @cached_property
    def atom_of(self) -> dict[str, int]:
        """The atom of the structure behind each group name."""
        return {g.name: k for k, g in self._named if k not in self.structure.frozen}

    @cached_property
    def names(self) -> dict[str, str]:
        """Every state dict name of a traced tensor, and the name that the graph uses."""
        return {alias: t.name for t in self.program.tensors.values() for alias in t.names}

    @cached_property
    def _named(self) -> list[tuple[int, SymmetryGroup]]:
        whole = replace(self.structure, frozen=frozenset())  # names stay when groups are frozen
        members = _members(whole)
        atoms = [k for k in whole.atoms if members[k]]
        order = {n: i for i, n in enumerate(self.structure.labels)}
        atoms.sort(
            key=lambda k: (order[members[k][0][0]], members[k][0][1], len(self.structure.ancestors(k)))
        )
        outer = {p for k in atoms for p in self.structure.ancestors(k) - {k}}
        names = distinct([own_names(members[k], k in outer) for k in atoms])
        names_of = dict(zip(atoms, names, strict=True))
        found = []
        for k in atoms:
            sort = self.structure.sorts[k]
            within = tuple(names_of[p] for p in atoms if p in self.structure.ancestors(k) - {k})
            group = SymmetryGroup(names_of[k], sort.size, sort.order, "permutation", members[k], within)
            found.append((k, group))
        return found

    @cached_property
    def constraints(self) -> nx.Graph[Any]:
        """Facts as a graph: nodes are (tensor, dimension) pairs and ("fixed", reason) pairs."""
        graph: nx.Graph[Any] = nx.Graph()
        for link in self.facts.universe.links:
            b = link.b if link.b is not None else ("fixed", f"{link.reason} ({link.where})")
            if not graph.has_edge(link.a, b):
                graph.add_edge(link.a, b, where=link.where)
        return graph

    @cached_property
    def fixed(self) -> tuple[FixedAxis, ...]:
        """Every parameter dimension, of more than one unit, that does not move (wholly), and why."""
        found = []
        for name, dims in self.structure.labels.items():
            for d, classes in enumerate(dims):
                units = self._still(name, d)
                if units:
                    part = "" if classes is None else "in part: "
                    found.append(FixedAxis(name, d, units, part + self._reason(name, d)))
        return tuple(found)

    def _still(self, name: str, dim: int) -> int:
        """How many positions of a dimension no group moves."""
        size = self.structure.shapes[name][dim]
        classes = self.structure.labels[name][dim]
        if classes is None:
            return size if size > 1 else 0
        live = np.array([*(k not in self._dead for k in range(len(self.structure.sorts))), False])
        moving = live[self.structure.sort_of[classes]]
        others = tuple(k for k in range(moving.ndim) if k != dim)
        return size - int(moving.any(axis=others).sum())

    @cached_property
    def _dead(self) -> set[int]:
        """Sorts above which every atom is frozen."""
        atoms = set(self.structure.atoms)
        return {k for k in range(len(self.structure.sorts)) if not self.structure.ancestors(k) & atoms}

    @cached_property
    def _unread(self) -> frozenset[int]:
        return unread(self.structure, self.facts)

    def _reason(self, name: str, dim: int) -> str:
        place = (name, dim)
        classes = self.structure.labels[name][dim]
        if classes is not None and self._unread & set(self.structure.sort_of[classes].ravel().tolist()):
            return "no operator reads its units at these shapes"
        if place in self.constraints:
            nearest = nx.single_source_shortest_path_length(self.constraints, place)
            reasons = [(n, v[1]) for v, n in nearest.items() if v[0] == "fixed"]
            if reasons:
                return str(min(reasons)[1])
        return "units of this dimension are singled out one by one"

    def summary(self) -> str:
        """A table of groups, and of what stays fixed with the reasons counted."""
        lines = [f"{len(self.groups)} groups, {sum(g.units for g in self.groups)} units move"]
        for g in self.groups:
            copies = f"{g.copies} x " if g.copies > 1 else ""
            within = f" within {', '.join(g.within)}" if g.within else ""
            lines.append(f"  {g.name:<40} {copies}{g.size}{within}, {len(g.members)} members")
        reasons: dict[str, int] = {}
        for f in self.fixed:
            reasons[f.reason] = reasons.get(f.reason, 0) + 1
        lines.append(f"{len(self.fixed)} parameter dimensions stay fixed")
        lines += [f"  {count:>4}  {reason}" for reason, count in sorted(reasons.items(), key=lambda x: -x[1])]
        lines += [f"without a rule, tried out: {where}: {text}" for where, text in self.probed]
        lines += [f"not understood, so fixed: {reason} ({where})" for where, reason in self.pinned]
        return "\n".join(lines)

    def explain(self, parameter: str, dim: int, to: Place | None = None) -> str:
        """Why a parameter's dimension moves with what it moves with, or why it is fixed.

        ``to`` asks for the chain of operators to one other (parameter, dimension).
        """
        place = self._place(parameter, dim)
        lines = [f"{place[0]} dimension {dim} ({self.structure.shapes[place[0]][dim]} positions)"]
        if to is not None:
            return "\n".join([*lines, *self._between(place, self._place(*to))])
        mine = [g for g in self.groups if place in g.members]
        for g in mine:
            copies = f"{g.copies} x " if g.copies > 1 else ""
            lines.append(f"  moves with group {g.name} ({copies}{g.size} units), together with")
            for member in [m for m in g.members if m != place]:
                last = self._path(place, member)[-1].strip()
                lines.append(f"    {member[0]} dimension {member[1]}, by {last}")
        if not mine:
            reason = self._reason(*place)
            lines += [f"  is fixed: {reason}", *self._path(place, ("fixed", reason))]
        return "\n".join(lines)

    def _between(self, a: Place, b: Place) -> list[str]:
        """Whether two dimensions move together, and the operators on the way."""
        shared = [g.name for g in self.groups if a in g.members and b in g.members]
        found = f"moves with {b[0]} dimension {b[1]}" if shared else f"is not tied to {b[0]} dimension {b[1]}"
        by = f", by group {', '.join(shared)}:" if shared else ": no group moves both"
        return [f"  {found}{by}", *(self._path(a, b) if shared else [])]

    def _place(self, parameter: str, dim: int) -> Place:
        name = self.names.get(parameter, parameter)
        if name not in self.structure.labels or not 0 <= dim < len(self.structure.shapes[name]):
            near = [n for n in self.names if parameter in n][:5] or list(self.names)[:5]
            raise UsageError(
                f"the graph has no dimension {dim} of {parameter!r}; it knows e.g. {', '.join(near)}"
            )
        return (name, dim)

    def _path(self, a: Any, b: Any) -> list[str]:
        """The operators on a shortest path between two nodes of the constraint graph."""
        graph = self.constraints
        if a not in graph or b not in graph or not nx.has_path(graph, a, b):
            return ["    (no single chain of operators)"]
        path = nx.shortest_path(graph, a, b)
        return [f"    {graph.edges[x, y]['where']}" for x, y in zip(path, path[1:], strict=False)]

    def identity(self) -> Transform:
        """The transform that moves nothing."""
        return identity(self.structure, self.names, self.atom_of)

    def random_transform(self, seed: int = 0, groups: Sequence[str] | None = None) -> Transform:
        """A random symmetry that moves every group, or those named."""
        only = None if groups is None else [self.atom_of[g] for g in groups]
        inner = random_inner(self.structure, np.random.default_rng(seed), only)
        return replace(self.identity(), phi=self.structure.extend(inner))

    def require_same(self, model: nn.Module) -> None:
        """Raise TraceError, naming the first operator that differs, unless ``model`` has this graph.

        Equal shapes are not enough: two networks that differ in an activation alone have the same
        tensors, and their average means nothing.
        """
        if model is self.model:
            return
        args, kwargs = to_device(self.program.example, device_of(model.state_dict()))
        difference = first_difference(self.program, export_program(model, args, kwargs))
        if difference:
            raise TraceError(
                refusal(
                    f"{type(model).__name__} is not the network that was traced.",
                    expected="the same operators in the same order",
                    seen=difference,
                    means="its tensors may fit, but they mean something else: there is nothing to average",
                    fix="merge models that were built by the same code with the same options",
                )
            )

    def _fitting(self, pattern: str) -> list[int]:
        """The atoms of groups that fit a pattern by their own name or that of a parameter."""
        called = [(k, {x.name, *(p for p, _ in x.members)}) for k, x in self._named]
        return [k for k, names in called if any(fnmatchcase(n, pattern) for n in names)]

    def freeze(self, groups: Sequence[str]) -> ModelGraph:
        """The same graph with groups kept in place: those named, and those that move a parameter named.

        A name may be a pattern such as ``layer3.*``. Raises UsageError where one fits nothing.
        """
        found = {g: [k for k, x in self._named if x.name == g] or self._fitting(g) for g in groups}
        strange = [g for g, atoms in found.items() if not atoms]
        if strange:
            known = ", ".join(g.name for g in self.groups[:5])
            raise UsageError(f"no group or parameter is called {strange[0]!r}; there are e.g. {known}")
        frozen = self.structure.frozen | {k for atoms in found.values() for k in atoms}
        return replace(self, structure=replace(self.structure, frozen=frozenset(frozen)))


def unread(structure: Structure, facts: Facts) -> frozenset[int]:
    """Sorts that stand along one dimension of one parameter, and in no value that an operator returns.

    They are the part of a table that a slice leaves out: at other shapes it may be read, and then
    its order counts, so that not to see it move proves nothing.
    """
    labels = [x.ravel() for v in facts.values.values() for x in v.labels or () if not isinstance(x, Whole)]
    seen = np.unique(np.concatenate([np.zeros(0, np.int64), *labels]))
    read = set(structure.sort_of[structure.classes[seen]].tolist())
    whole = replace(structure, frozen=frozenset())
    return frozenset(k for k, places in _members(whole).items() if len(places) == 1 and k not in read)


def _members(structure: Structure) -> dict[int, tuple[Place, ...]]:
    """For each atom the parameter dimensions that it moves, itself or through what follows it."""
    above = [structure.ancestors(k) for k in range(len(structure.sorts))]
    members: dict[int, list[Place]] = {k: [] for k in structure.atoms}
    for name, dims in structure.labels.items():
        for d, classes in enumerate(dims):
            present = np.unique(structure.sort_of[classes]).tolist() if classes is not None else []
            moved_by: set[int] = set().union(*(above[i] for i in present if i >= 0))
            for k in moved_by & members.keys():
                members[k].append((name, d))
    return {k: tuple(v) for k, v in members.items()}


def trace(
    model: nn.Module,
    args: Sequence[Any],
    kwargs: Mapping[str, Any] | None = None,
    *,
    strict: bool = False,
    freeze: Sequence[str] = (),
    registry: Registry = RULES,
) -> ModelGraph:
    """Trace a model on example inputs and derive its symmetries.

    The model may live on any device, ``meta`` included; its mode is restored. Choose batch and
    sequence sizes that differ from channel counts. Raises TraceError where torch.export fails,
    and, with ``strict``, where an operator has no rule (without it, what it touches is fixed).
    ``freeze`` names groups or parameters to keep in place (see ``ModelGraph.freeze``).
    """
    program = export_program(model, args, kwargs)
    facts = propagate(program, registry)
    pinned = facts.universe.pinned
    if strict and pinned:
        rows = "\n".join(f"  {reason} ({place})" for place, reason in pinned)
        raise TraceError(
            f"{len(pinned)} operator calls have no rule:\n{rows}\n"
            "  Without strict=True all that they touch is fixed and reported."
            " To do: state a rule for the operator (graphmerge.rule)."
        )
    structure = build(facts.universe, facts.parameters, facts.branches)
    structure = replace(structure, frozen=structure.frozen | unread(structure, facts))
    return ModelGraph(model, program, structure, facts, registry).freeze(freeze)
