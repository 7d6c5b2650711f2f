"""A graph for people: its groups and what stays fixed, as a tree of modules."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable

from rich.tree import Tree

from graphmerge.cli.console import escape, out
from graphmerge.errors import SHOWN
from graphmerge.symmetry import FixedAxis, ModelGraph, SymmetryGroup
from graphmerge.symmetry.modules import Branch, module_tree


def show_tree(graph: ModelGraph) -> None:
    """Print the tree, and below it what the whole model keeps fixed."""
    root = module_tree(graph.shapes, graph.groups, graph.fixed)
    name, groups, units = type(graph.model).__name__, len(graph.groups), sum(g.units for g in graph.groups)
    title = f"[bold]{escape(name)}[/bold]: {groups} group{'s' * (groups != 1)}, {units} units move"
    out.print(_grow(Tree(title, guide_style="dim"), root), soft_wrap=True)
    for line in _rest(graph):
        out.print(line, markup=False, soft_wrap=True)


def _grow(tree: Tree, branch: Branch) -> Tree:
    for group in branch.groups:
        tree.add(_group(group, branch))
    for line in _fixed(branch):
        tree.add(line)
    for child in branch.children:
        alike = f" [dim]({child.alike} alike)[/dim]" if child.alike > 1 else ""
        _grow(tree.add(f"[bold]{escape(child.label)}[/bold]{alike}"), child)
    return tree


def _group(group: SymmetryGroup, branch: Branch) -> str:
    copies = f"{group.copies} x " if group.copies > 1 else ""
    within = f" within {', '.join(map(branch.local, group.within))}" if group.within else ""
    name = escape(branch.local(group.name))
    return (
        f"[cyan]{name}[/cyan]  {copies}{group.size} {group.kind}{escape(within)}"
        f"[dim], {len(group.members)} members[/dim]"
    )


def _fixed(branch: Branch) -> list[str]:
    """One line for each cause: positions, and the dimensions that have them."""
    causes: defaultdict[str, list[FixedAxis]] = defaultdict(list)
    for f in branch.fixed:
        causes[f.cause].append(f)
    return [
        f"[dim]fixed  {sum(f.units for f in axes)} {escape(cause)}: {escape(_dimensions(axes, branch))}[/dim]"
        for cause, axes in causes.items()
    ]


def _dimensions(axes: Iterable[FixedAxis], branch: Branch) -> str:
    """``conv1.weight:2,3``, the first few."""
    dims: defaultdict[str, list[str]] = defaultdict(list)
    for f in axes:
        dims[branch.local(f.parameter)].append(str(f.dim))
    shown = [f"{name}:{','.join(d)}" for name, d in list(dims.items())[:SHOWN]]
    more = f" and {len(dims) - SHOWN} more" if len(dims) > SHOWN else ""
    return ", ".join(shown) + more


def _rest(graph: ModelGraph) -> list[str]:
    """What stays fixed in all, kept groups, operators without a rule, and what is never read."""
    causes: Counter[str] = Counter()
    for f in graph.fixed:
        causes[f.cause] += f.units
    counted = ", ".join(f"{n} {cause}" for cause, n in causes.most_common())
    lines = [f"{len(graph.fixed)} parameter dimensions stay fixed" + (f": {counted}" if counted else "")]
    lines += [f"kept in place: {', '.join(graph.frozen)}"] if graph.frozen else []
    lines += [f"without a rule, tried out: {where}: {text}" for where, text in graph.probed]
    lines += [f"not understood, so fixed: {reason} ({where})" for where, reason in graph.pinned]
    unused = graph.program.unused
    if unused:
        more = f" and {len(unused) - SHOWN} more" if len(unused) > SHOWN else ""
        lines.append(f"never read: {', '.join(unused[:SHOWN])}{more}")
    return lines
