"""Activation similarity: correlations of units over data, streamed through the traced graph.

Both models run side by side, node by node, and every value that carries a group is correlated
where it arises and then dropped: no activations are kept. All sites of a group are summed.
Source: Git Re-Basin section 3.1 (inner products), with Pearson correlation by default as in REPAIR,
Jordan et al. 2022, arXiv 2211.08403.
"""

from __future__ import annotations

import copy
import functools
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence, Set
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from torch import fx

from graphmerge.axes.units import IntArray, Value, Whole
from graphmerge.errors import InputError, UsageError
from graphmerge.match.layout import Site
from graphmerge.match.moments import Moments, update
from graphmerge.progress import Progress, silent
from graphmerge.symmetry import ModelGraph, Transform, trace
from graphmerge.symmetry.structure import Structure
from graphmerge.trace.program import op_name
from graphmerge.trace.run import Inputs, State, device_of, fitting, inputs_of, to_device, visit

MOVES_ONLY = {
    f"aten.{n}"
    for n in (
        "view", "_unsafe_view", "reshape", "permute", "transpose", "unsqueeze", "squeeze", "expand", "clone",
        "alias", "slice", "select", "split_with_sizes", "cat", "_to_copy", "detach", "repeat", "roll", "flip",
        "dropout", "index", "constant_pad_nd", "slice_scatter", "copy",
    )
}  # fmt: skip
"""Operators that compute nothing: their values have been seen where they arose."""

MAX_ROWS = 8192
"""Sites with more rows than this are left out: a matrix of their correlations would take over 0.5 GB."""


Correlations = Mapping[tuple[str, tuple[int, ...]], torch.Tensor]
"""For each site (node, axes) the correlations [row of a, row of b]."""


def feature_graph(graph: ModelGraph, data: Iterable[Any]) -> ModelGraph:
    """The graph traced again at the batch size of the data, so that it can run."""
    first = next(inputs_of(data), None)
    if first is None:
        raise InputError("the data holds no batch: activation matching needs some")
    device = device_of(graph.model.state_dict())
    if device.type == "meta":
        raise UsageError("the traced module has no weights (meta device): activation matching has to run it")
    args, kwargs = to_device(first, device)
    return trace(graph.model, args, kwargs, registry=graph.registry).freeze(graph.frozen)


def feature_labels(graph: ModelGraph) -> Structure:
    """The symmetries of a graph, labelled by the values of the nodes that compute something."""
    from_data: set[fx.Node] = set()
    for node in graph.program.graph.graph.nodes:
        if node.name in graph.program.inputs or any(n in from_data for n in node.all_input_nodes):
            from_data.add(node)
    computing = {
        n.name
        for n in from_data
        if n.op == "call_function" and op_name(n.target) not in MOVES_ONLY and not _normalised_next(n)
    }
    sorted_rows = graph.facts.universe.sorted_by
    values = {
        n: v
        for n, v in graph.facts.values.items()
        if n in computing and not v.routed and not is_sorted(v, sorted_rows)
    }
    structure = graph.structure.label(values)
    return replace(structure, labels={n: _comparable(dims) for n, dims in structure.labels.items()})


def is_sorted(value: Value, sorted_rows: Collection[int]) -> bool:
    """Whether rows stand in an order that each model finds for itself (tokens sorted by expert)."""
    first = [int(x.flat[0]) for x in value.labels or () if not isinstance(x, Whole)]
    return any(unit in sorted_rows for unit in first)


def _comparable(dims: tuple[IntArray | None, ...]) -> tuple[IntArray | None, ...]:
    """Dimensions along which two models can be correlated: the samples of both stand in the same order."""

    def follows(d: int) -> set[int]:
        x = dims[d]
        return {e for e, n in enumerate(x.shape) if n > 1 or e == d} if x is not None else set()

    moving = [d for d, x in enumerate(dims) if x is not None]
    return tuple(
        x
        if x is not None and x.size <= MAX_ROWS and all(e in follows(d) or d in follows(e) for e in moving)
        else None
        for d, x in enumerate(dims)
    )


def _normalised_next(node: fx.Node) -> bool:
    """A BatchNorm reads the value and nothing else does: its result correlates in the same way."""
    norm = "aten._native_batch_norm_legit_no_training"
    return bool(node.users) and all(op_name(user.target) == norm for user in node.users)


class ActivationSimilarity:
    """Correlations of the units of model a with those of model b under the current transform.

    ``objective`` is the sum over all sites of the correlations of matched rows.
    """

    def __init__(
        self,
        structure: Structure,
        correlations: Correlations,
        transform: Transform,
    ) -> None:
        self._structure = structure
        self._correlations = correlations
        self.transform = transform
        self._sources = {key: self._source(key, transform) for key in correlations}
        self._parts = {key: self._part(key, s) for key, s in self._sources.items()}

    @property
    def objective(self) -> float:
        """Sum of the correlations of matched rows over all sites."""
        return sum(self._parts.values())

    def _source(self, key: tuple[str, tuple[int, ...]], transform: Transform) -> IntArray:
        """For each row of a site the row of model b that stands there now."""
        name, axes = key
        shape = [self._structure.shapes[name][d] for d in axes]
        sources = self._structure.sources(name, transform.phi)
        grid = np.indices(shape)
        index = []
        for k, d in enumerate(axes):
            source = sources.get(d)
            index.append(
                grid[k] if source is None else np.broadcast_to(source.reshape(_pick(source, axes)), shape)
            )
        return np.ravel_multi_index(index, shape).ravel()

    def _part(self, key: tuple[str, tuple[int, ...]], source: IntArray) -> float:
        matrix = self._correlations[key]
        columns = torch.from_numpy(source).to(matrix.device)
        return float(matrix.gather(1, columns[:, None]).sum(dtype=torch.float64))

    def _block(self, site: Site, rows: IntArray, columns: IntArray) -> torch.Tensor:
        """Correlations [.., i, j], summed over roles, of rows [.., i, role] and columns [.., j, role]."""
        matrix = self._correlations[site.name, site.axes]
        columns = self._sources[site.name, site.axes][columns]
        i, j = (torch.from_numpy(np.array(x)).to(matrix.device) for x in (rows, columns))
        return sum(  # type: ignore[return-value]
            matrix[i[..., :, None, r], j[..., None, :, r]] for r in range(rows.shape[-1])
        )

    def total(self, sites: Sequence[Site]) -> torch.Tensor:
        """Correlation of unit i of a and unit j of b in each fibre, summed over sites: [fibre, i, j]."""
        return functools.reduce(torch.add, (self._block(s, s.rows, s.rows) for s in sites))

    def across(self, site: Site, fibres: int) -> torch.Tensor:
        """The same for child units of every pair of units: [fibre, unit, unit, i, j]."""
        rows = site.rows.reshape(fibres, -1, *site.rows.shape[1:])
        n = rows.shape[1]
        left = np.broadcast_to(rows[:, :, None], (fibres, n, n, *rows.shape[2:]))
        right = np.broadcast_to(rows[:, None, :], (fibres, n, n, *rows.shape[2:]))
        return self._block(site, left, right)

    def circuits(self, sites: Sequence[Site], fibres: int) -> torch.Tensor:
        """Similarity of every pair of units whatever the order of their child units: [fibre, unit, unit].

        Squared correlations of all pairs of child units: what a unit is correlated with does not depend
        on where it is. Brought to the scale of correlations.
        """
        pairs = torch.stack([self.across(site, fibres) for site in sites]).sum(0).square().sum((-2, -1))
        most = sum(int(np.prod(site.rows.shape[1:])) for site in sites)
        return pairs * (most / max(float(pairs.amax()), 1e-30))

    def room(self, _: Set[str]) -> dict[str, float]:
        """Of no tensor: correlations of rows are added up as they are matched, whatever else moves."""
        return {}

    def bends(self, _: Sequence[Site]) -> None:
        """Nothing: see ``room``."""

    def move(self, delta: IntArray, names: set[str], least: float, _gain: float | None) -> bool:
        """Move further by ``delta`` if the objective rises by more than ``least`` (measured always)."""
        moved = self.fork()
        moved.put(delta, names)
        if sum(v - self._parts[k] for k, v in moved._parts.items()) <= least:
            return False
        self.transform, self._sources, self._parts = moved.transform, moved._sources, moved._parts
        return True

    def fork(self) -> ActivationSimilarity:
        """A copy that moves on its own."""
        other = copy.copy(self)
        other._sources, other._parts = dict(self._sources), dict(self._parts)
        return other

    def put(self, delta: IntArray, names: set[str]) -> None:
        """Move ``names`` further by ``delta``, whatever that does to the objective."""
        self.transform = replace(self.transform, phi=delta[self.transform.phi])
        sources = {k: self._source(k, self.transform) for k in self._correlations if k[0] in names}
        self._sources.update(sources)
        self._parts.update({k: self._part(k, s) for k, s in sources.items()})


def _pick(source: IntArray, axes: Sequence[int]) -> tuple[int, ...]:
    return tuple(source.shape[d] for d in axes)


def correlate(
    graph: ModelGraph,
    structure: Structure,
    a: State,
    b: State,
    data: Iterable[Any],
    sites: Iterable[Site],
    statistic: str = "correlation",
    progress: Progress = silent,
) -> tuple[Correlations, int, int]:
    """Every site's correlations (or another of ``STATISTICS``), and the numbers of batches read and skipped.

    A batch whose shapes differ from the first (a shorter last one) is skipped, for the graph is static.
    """
    wanted: dict[str, dict[tuple[int, ...], Site]] = {}
    for s in sites:
        wanted.setdefault(s.name, {})[s.axes] = s
    moments: dict[tuple[str, tuple[int, ...]], Moments] = {}
    read = skipped = 0
    with torch.no_grad():
        for inputs in fitting(graph.program, data, device_of(a)):
            if inputs is None:
                skipped += 1
                continue
            read += 1
            progress(f"matching: correlating activations, batch {read}")
            for name, x, y in _pairs(graph, structure, (a, b), inputs, wanted.keys()):
                for axes, site in wanted[name].items():
                    rows = (site.matrix(x).float(), site.matrix(y).float())
                    moments[name, axes] = update(moments.get((name, axes)), *rows)
    found = {k: m.similarity(statistic) for k, m in moments.items()}
    broken = [name for (name, _), m in found.items() if not bool(torch.isfinite(m).all())]
    if broken:
        raise InputError(f"activations at {broken[0]} are not finite on the data: do the inputs hold NaN?")
    return found, read, skipped


def _pairs(
    graph: ModelGraph,
    structure: Structure,
    states: tuple[State, State],
    inputs: Inputs,
    wanted: Collection[str],
) -> Iterator[tuple[str, torch.Tensor, torch.Tensor]]:
    """What both models compute at the nodes wanted; nodes of parallel branches as one stack [branch, ...]."""
    parts = {n: structure.stacks.get(n, (n,)) for n in wanted}
    stack_of = {n: name for name, nodes in parts.items() for n in nodes}
    seen: dict[str, tuple[torch.Tensor, torch.Tensor]] = {}
    both = (visit(graph.program, state, inputs, stack_of.keys()) for state in states)
    for x, y in zip(*both, strict=True):
        name = stack_of[x.node.name]
        seen[x.node.name] = (x.value, y.value)
        if name not in structure.stacks:
            yield name, *seen.pop(name)
        elif all(n in seen for n in parts[name]):
            mine, theirs = zip(*(seen.pop(n) for n in parts[name]), strict=True)
            yield name, torch.stack(mine), torch.stack(theirs)


def same_frame(ours: ModelGraph, theirs: Transform) -> Transform:
    """A transform found on another trace of the same model, as one of ``ours``."""
    mine = ours.identity().with_targets(theirs.targets())
    for name in ours.structure.labels:
        x, y = (t.structure.sources(name, t.phi) for t in (mine, theirs))
        assert x.keys() == y.keys(), f"two traces of one model disagree on {name}"
        assert all(np.array_equal(x[d], y[d]) for d in x), f"two traces of one model disagree on {name}"
    return mine
