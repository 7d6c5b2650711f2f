"""The model graph: what was traced, which symmetries it has, and why."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from fnmatch import fnmatchcase
from functools import cached_property
from pathlib import Path
from typing import Any

import networkx as nx
import numpy as np
import torch
from torch import nn

from graphmerge.axes import RULES, Registry, Where
from graphmerge.errors import TraceError, UsageError, meant, refusal
from graphmerge.files import cached_program
from graphmerge.progress import Progress, silent
from graphmerge.symmetry.build import build
from graphmerge.symmetry.constraints import Node, constraint_graph, toward_reasons
from graphmerge.symmetry.explain import explain_one, explain_two
from graphmerge.symmetry.fixed import FixedAxis, fixed_axes
from graphmerge.symmetry.groups import Place, SymmetryGroup, moved_by, named_groups
from graphmerge.symmetry.propagate import Facts, propagate
from graphmerge.symmetry.structure import Structure, random_inner
from graphmerge.symmetry.transform import Transform, identity
from graphmerge.symmetry.unread import unread
from graphmerge.trace import Program, export_program
from graphmerge.trace.program import first_difference
from graphmerge.trace.run import device_of, to_device
from graphmerge.trace.source import SourceLine, source_lines

_ENTERED = re.compile(r"\.\d+/")
"""Subgraphs are numbered each time that they are entered."""


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
        return tuple(g for k, g in self.named.items() if k not in self.structure.frozen)

    @cached_property
    def frozen(self) -> tuple[str, ...]:
        """The names of groups that are kept in place, by ``freeze`` or because nobody reads their units."""
        return tuple(g.name for k, g in self.named.items() if k in self.structure.frozen)

    @cached_property
    def atom_of(self) -> dict[str, int]:
        """The atom of the structure behind each group name."""
        return {g.name: k for k, g in self.named.items() if k not in self.structure.frozen}

    @cached_property
    def names(self) -> dict[str, str]:
        """Every state dict name of a traced tensor, and the name that the graph uses."""
        return {alias: t.name for t in self.program.tensors.values() for alias in t.names}

    @cached_property
    def shapes(self) -> dict[str, tuple[int, ...]]:
        """The shapes of all tensors that a group might move."""
        traced = self.program.tensors.values()
        return {t.name: t.shape for t in traced if t.name in self.structure.tensors}

    @cached_property
    def named(self) -> dict[int, SymmetryGroup]:
        """The group of every atom of the structure, those that are kept in place too."""
        return named_groups(self.structure)

    @cached_property
    def moved_by(self) -> dict[Place, frozenset[int]]:
        """The atoms that move each dimension of a parameter, or of a value that an operator returns."""
        found = moved_by(self.structure)
        for (node, dim), atoms in moved_by(self.structure.label(self.facts.values)).items():
            place = (self.facts.values[node].name, dim)  # one name for all results of an operator
            found[place] = found.get(place, frozenset()) | atoms
        return found

    @cached_property
    def constraints(self) -> nx.Graph[Any]:
        """Facts as a graph: nodes are (tensor, dimension) pairs and ("fixed", reason) pairs."""
        return constraint_graph(self.facts.universe)

    @cached_property
    def toward_reasons(self) -> dict[Node, Node]:
        """For every node of ``constraints`` the next one on the way to the nearest reason."""
        return toward_reasons(self.constraints)

    @cached_property
    def fixed(self) -> tuple[FixedAxis, ...]:
        """Every parameter dimension, of more than one unit, that does not move (wholly), and why."""
        alone = unread(self.structure, self.program, self.facts)
        return tuple(fixed_axes(self.structure, self.facts, alone, self.constraints, self.toward_reasons))

    @cached_property
    def sources(self) -> dict[str, SourceLine]:
        """The line of the model's code that made each node of the traced graph."""
        return source_lines(self.program.graph)

    def source(self, where: Where) -> SourceLine | None:
        """The line of the model's code that states a fact, where it is known."""
        return self.sources.get(_ENTERED.sub("/", where.node))

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

        Every step is told with its operator, the module, and the line of the model's code.
        ``to`` asks for the chain of operators to one other (parameter, dimension).
        """
        if to is None:
            return explain_one(self, self.place(parameter, dim))
        return explain_two(self, self.place(parameter, dim), self.place(*to))

    def place(self, parameter: str, dim: int) -> Place:
        """A (parameter, dimension) under the name that the graph uses; UsageError where there is none."""
        name = self.names.get(parameter, parameter)
        dims = [str(d) for n, d in self.structure.places if n == name and d >= 0]
        if not dims:
            near = [n for n in self.names if parameter in n][:5] or list(self.names)[:5]
            known = f"it knows e.g. {', '.join(near)}{meant(parameter, self.names)}"
            raise UsageError(f"the graph has no dimension {dim} of {parameter!r}; {known}")
        if str(dim) not in dims:
            raise UsageError(f"{parameter!r} has no dimension {dim}; it has {', '.join(dims)}")
        return (name, dim)

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
        called = [(k, {x.name, *(p for p, _ in x.members)}) for k, x in self.named.items()]
        return [k for k, names in called if any(fnmatchcase(n, pattern) for n in names)]

    def freeze(self, groups: Sequence[str]) -> ModelGraph:
        """The same graph with groups kept in place: those named, and those that move a parameter named.

        A name may be a pattern such as ``layer3.*``. Raises UsageError where one fits nothing.
        """
        found = {g: [k for k, x in self.named.items() if x.name == g] or self._fitting(g) for g in groups}
        strange = [g for g, atoms in found.items() if not atoms]
        if strange:
            known = ", ".join(g.name for g in self.groups[:5])
            near = meant(strange[0], [*(g.name for g in self.groups), *self.names])
            raise UsageError(f"no group or parameter is called {strange[0]!r}; there are e.g. {known}{near}")
        frozen = self.structure.frozen | {k for atoms in found.values() for k in atoms}
        return replace(self, structure=replace(self.structure, frozen=frozenset(frozen)))


def trace(
    model: nn.Module,
    args: Sequence[Any],
    kwargs: Mapping[str, Any] | None = None,
    *,
    strict: bool = False,
    freeze: Sequence[str] = (),
    registry: Registry = RULES,
    cache: str | Path | None = None,
    progress: Progress = silent,
) -> ModelGraph:
    """Trace a model on example inputs and derive its symmetries.

    The model may live on any device, ``meta`` included; its mode is restored. Choose batch and
    sequence sizes that differ from channel counts. Raises TraceError where torch.export fails,
    and, with ``strict``, where an operator has no rule (without it, what it touches is fixed);
    UsageError where ``args`` is one tensor, not a tuple.
    ``freeze`` names groups or parameters to keep in place (see ``ModelGraph.freeze``).
    ``cache`` is a folder in which the traced program is kept and found again while nothing that it
    depends on has changed (see ``files.cached_program``).
    """
    if isinstance(args, torch.Tensor):
        raise UsageError("args are the inputs of the model as a tuple; seen: one tensor. Write (x,) for x")
    if cache is None:
        program = export_program(model, args, kwargs, progress)
    else:
        program = cached_program(model, args, kwargs, cache, progress)
    graph = infer(model, program, registry, progress)
    if strict and graph.pinned:
        rows = "\n".join(f"  {reason} ({place})" for place, reason in graph.pinned)
        raise TraceError(
            f"{len(graph.pinned)} operator calls have no rule:\n{rows}\n"
            "  Without strict=True all that they touch is fixed and reported."
            " To do: state a rule for the operator (graphmerge.rule)."
        )
    return graph.freeze(freeze)


def infer(
    model: nn.Module, program: Program, registry: Registry = RULES, progress: Progress = silent
) -> ModelGraph:
    """The symmetries of a traced model."""
    progress(f"reading {len(program.graph.graph.nodes)} operators")
    facts = propagate(program, registry)
    progress(f"solving {len(facts.universe.ties)} ties of {facts.universe.count} units")
    structure = build(facts.universe, facts.parameters, facts.branches)
    structure = replace(structure, frozen=structure.frozen | unread(structure, program, facts))
    return ModelGraph(model, program, structure, facts, registry)
