"""A numeric check of one rule on one operator call; no model is needed.

Every floating argument is taken for a parameter nobody has read, as free as the rule leaves it.
*False claims:* the arguments are moved by random symmetries of what the rule states, and the real
operator, in float64, must return its outputs moved alike. *Missed claims:* neighbouring positions
and neighbouring blocks of each argument dimension are swapped, alone and together with dimensions
of equal size; where that merely reorders the outputs, the rule must have let them change places.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import Any, Literal

import numpy as np
import torch
from torch._ops import OpOverload

from graphmerge.axes import ANY, RULES, Call, Registry, Universe, Value, constant_value
from graphmerge.axes.units import IntArray, Labels
from graphmerge.symmetry.build import build
from graphmerge.symmetry.structure import Structure, random_inner, reorder
from graphmerge.trace.program import op_name

TOLERANCE = 1e-9
"""Largest difference between outputs that count as equal, in float64."""

_DRAWS = 3
_PARTNERS = 5

Place = tuple[str, int]
Fibres = Literal["inwards", "outwards"]
Sources = Mapping[int, IntArray]


def check_call(
    op: OpOverload,
    args: Sequence[Any],
    kwargs: Mapping[str, Any] | None = None,
    registry: Registry = RULES,
    seed: int = 0,
    *,
    fixed: Mapping[str, Sequence[int]] | None = None,
    fibred: Fibres | None = None,
    tolerance: float = TOLERANCE,
) -> list[str]:
    """What is wrong with the rule of ``op`` on this call; empty where nothing is.

    ``fixed`` names dimensions of arguments and outputs (``out0``, ...) that a person accepts as
    fixed though their positions could change places: space, places in a sorted list. With
    ``fibred`` each dimension of an argument comes with an order of its own inside each unit of all
    before it (``inwards``) or after it; then only false claims are looked for, as it may be lost.
    """
    given = _bind(op, args, kwargs or {})
    moving = {name: t for name, t in tensors_of(given) if t.is_floating_point() or t.is_complex()}
    outputs = {f"out{k}": t for k, t in enumerate(run_call(op, given))}
    u = Universe()
    values = _state(u, op, given, outputs, registry, fibred)
    if values is None:
        return [f"{op_name(op)} has no rule"]
    structure = build(u, {n: v for n, v in values.items() if v.labels is not None})
    named = {n: v.positions.place for n, v in values.items() if v.positions}
    still = {n: tuple(d) for n, d in (fixed or {}).items()}
    trial = _Trial(
        lambda new: run_call(op, _replace(given, new)), moving, outputs, named, structure, still, tolerance
    )
    return [*trial.false_claims(seed), *([] if fibred else trial.missed_claims())]


def _bind(op: OpOverload, args: Sequence[Any], kwargs: Mapping[str, Any]) -> dict[str, Any]:
    """Arguments by schema name, defaults filled in."""
    schema = op._schema.arguments
    given = dict(zip((a.name for a in schema), args, strict=False))
    defaults = {a.name: a.default_value if a.has_default_value() else None for a in schema}
    return {**defaults, **given, **kwargs}


def tensors_of(named: Mapping[str, Any]) -> Iterator[tuple[str, torch.Tensor]]:
    """Every tensor among the arguments, those in lists as ``name.index``."""
    for name, x in named.items():
        if isinstance(x, torch.Tensor):
            yield name, x
        elif isinstance(x, list | tuple):
            yield from ((f"{name}.{k}", v) for k, v in enumerate(x) if isinstance(v, torch.Tensor))


def _replace(named: Mapping[str, Any], new: Mapping[str, Any]) -> dict[str, Any]:
    """The arguments with the tensors named in ``new`` replaced."""

    def one(name: str, x: Any) -> Any:
        if isinstance(x, list | tuple):
            return [new.get(f"{name}.{k}", v) for k, v in enumerate(x)]
        return new.get(name, x)

    return {name: one(name, x) for name, x in named.items()}


def run_call(op: OpOverload, named: Mapping[str, Any]) -> list[torch.Tensor]:
    """The tensors that an operator returns for arguments by schema name."""
    args = [named[a.name] for a in op._schema.arguments if not a.kwarg_only]
    kwargs = {a.name: named[a.name] for a in op._schema.arguments if a.kwarg_only}
    out = op(*args, **kwargs)
    return [t for t in (out if isinstance(out, list | tuple) else [out]) if isinstance(t, torch.Tensor)]


def _state(
    u: Universe,
    op: OpOverload,
    named: Mapping[str, Any],
    outputs: Mapping[str, torch.Tensor],
    registry: Registry,
    fibred: Fibres | None,
) -> dict[str, Value] | None:
    """Apply the rule; the labelled arguments and outputs, or None where there is no rule."""
    labelled: dict[str, Value] = {}
    symbols: dict[str, Any] = {}
    for name, t in tensors_of(named):
        if t.is_floating_point() or t.is_complex():
            shape = tuple(t.shape)
            symbols[name] = labelled[name] = Value(
                name, shape, _fibred_labels(u, shape, fibred) if fibred else None
            )
        else:
            symbols[name] = constant_value(name, t)
    shapes = tuple((name, tuple(t.shape)) for name, t in outputs.items())
    call = Call(op_name(op), _replace(named, symbols), shapes, u)
    results = registry.apply(call, torch.Tag.pointwise in op.tags)
    if results is None:
        return None
    for (name, shape), value in zip(shapes, results, strict=True):
        assert value.shape == shape, f"{name} has shape {shape}, the rule says {value.shape}"
        loose = list(call.grid(value).labels)  # routed dimensions let loose
        labelled[name] = Value(name, shape, loose, positions=value.positions)
    return labelled


def _fibred_labels(u: Universe, shape: tuple[int, ...], fibred: Fibres) -> list[Labels]:
    """Labels of a tensor where each dimension has an order of its own inside each unit before it."""
    labels: list[Labels] = [ANY] * len(shape)
    extent = [1] * len(shape)
    last: Labels = ANY
    axes = [k for k, n in enumerate(shape) if n > 1]
    for axis in axes if fibred == "inwards" else reversed(axes):
        extent[axis] = shape[axis]
        labels[axis] = u.new(tuple(extent))
        u.tie(labels[axis], last, axis)
        last = labels[axis]
    return labels


@dataclass(frozen=True)
class _Swap:
    """Two neighbours of ``parts`` blocks of a dimension, or (``inner``) of ``parts`` positions in each."""

    parts: int
    first: int
    inner: bool

    def __str__(self) -> str:
        what = "positions of each block" if self.inner else "blocks"
        return f"{what} {self.first} and {self.first + 1} of {self.parts}"

    def index(self, size: int) -> IntArray:
        """Where each position comes from in a dimension of a size that ``parts`` divides."""
        parts = np.arange(self.parts)
        parts[[self.first, self.first + 1]] = parts[[self.first + 1, self.first]]
        places = np.arange(size, dtype=np.int64)
        if self.inner:
            return places.reshape(-1, self.parts)[:, parts].ravel()
        return places.reshape(self.parts, -1)[parts].ravel()


def _swaps(size: int) -> Iterator[_Swap]:
    """All swaps of neighbours in a dimension, single positions first."""
    for parts in (k for k in range(size, 1, -1) if size % k == 0):
        for inner in (False, True) if parts < size else (False,):
            yield from (_Swap(parts, first, inner) for first in range(parts - 1))


@dataclass(frozen=True)
class _Trial:
    """The operator with its inputs, its outputs, and the symmetries that its rule claims."""

    run: Callable[[Mapping[str, torch.Tensor]], list[torch.Tensor]]
    inputs: Mapping[str, torch.Tensor]
    outputs: Mapping[str, torch.Tensor]
    named: Mapping[str, Place]
    structure: Structure
    fixed: Mapping[str, tuple[int, ...]]
    tolerance: float

    def false_claims(self, seed: int) -> list[str]:
        """Random symmetries of the rule that the operator does not respect."""
        rng = np.random.default_rng(seed)
        for _ in range(_DRAWS):
            inner = random_inner(self.structure, rng)
            if self._error(inner) > self.tolerance:
                alone = [k for k in inner if self._error({k: inner[k]}) > self.tolerance]
                return [f"false: {self._describe(k)} does not move freely" for k in alone] or [
                    "false: groups that move freely alone do not together"
                ]
        return []

    def _error(self, inner: Mapping[int, IntArray]) -> float:
        """The largest difference between the outputs of moved inputs and the moved outputs."""
        phi = self.structure.extend(inner)
        known = self.structure.labels
        moved = {n: reorder(t, self.structure.sources(n, phi)) for n, t in self.inputs.items() if n in known}
        wanted = [self._moved_output(n, t, phi) for n, t in self.outputs.items()]
        return max((_distance(a, b) for a, b in zip(self.run(moved), wanted, strict=True)), default=0.0)

    def _moved_output(self, name: str, t: torch.Tensor, phi: IntArray) -> torch.Tensor:
        """An output with its positions moved, and the positions that it names renamed."""
        moved = reorder(t, self.structure.sources(name, phi))
        tensor, axis = self.named.get(name, ("", 0))
        source = self.structure.sources(tensor, phi).get(axis) if tensor else None
        if source is None:
            return moved
        place = torch.from_numpy(np.argsort(source, axis))
        chosen = moved if moved.ndim == place.ndim else moved.unsqueeze(axis)
        rows = [place.shape[k] if k == axis else n for k, n in enumerate(chosen.shape)]
        return place.expand(rows).gather(axis, chosen).reshape(moved.shape)

    def _describe(self, atom: int) -> str:
        """The dimensions that an atom moves."""
        phi = self.structure.extend(random_inner(self.structure, np.random.default_rng(0), [atom]))
        places = [f"{n}:{d}" for n in self.structure.labels for d in self.structure.moved(n, phi)]
        return f"group of {', '.join(places)}"

    def missed_claims(self) -> list[str]:
        """Swaps that only reorder the outputs, and that the rule does not permit."""
        found = []
        for name, t in self.inputs.items():
            if name in self.structure.labels:
                for d in range(t.ndim):
                    found += self._missed_at(name, d)
        return found

    def _missed_at(self, name: str, dim: int) -> list[str]:
        """The first swap along one dimension that works and is not permitted."""
        if dim in self.fixed.get(name, ()):
            return []
        size = self.inputs[name].shape[dim]
        for swap in _swaps(size):
            if self._permits(name, dim, swap):
                continue
            for others in self._partners(name, dim, swap):
                if self._only_reorders([(name, dim), *others], swap):
                    also = "".join(f" with {n}:{d}" for n, d in others)
                    return [f"missed: {swap} of {name}:{dim}{also} may change places"]
        return []

    def _permits(self, name: str, dim: int, swap: _Swap) -> bool:
        """Whether the rule lets units change places (single positions: they and nothing else)."""
        classes = self.structure.labels[name][dim]
        if classes is None:
            return False
        size = classes.shape[dim]
        index = swap.index(size)
        moved = np.flatnonzero(index != np.arange(size))
        a, b = (np.take(classes, x, dim).ravel() for x in (moved, index[moved]))
        if swap.parts == size:
            return all(self._one_fibre(int(x), int(y)) for x, y in zip(a, b, strict=True))
        sorts = self.structure.sort_of[a]
        apart = (a != b) & (sorts == self.structure.sort_of[b])
        return bool(apart.all()) and all(self._is_live(int(k)) for k in np.unique(sorts))

    def _one_fibre(self, a: int, b: int) -> bool:
        """Whether two units may be exchanged, all others keeping their places."""
        k = int(self.structure.sort_of[a])
        if k < 0 or k != self.structure.sort_of[b] or k not in self.structure.atoms:
            return False
        sort = self.structure.sorts[k]
        first, second = (int(np.flatnonzero(sort.units == x)[0]) for x in (a, b))
        return first // sort.size == second // sort.size

    def _is_live(self, k: int) -> bool:
        return k >= 0 and bool(self.structure.ancestors(k) & set(self.structure.atoms))

    def _partners(self, name: str, dim: int, swap: _Swap) -> Iterator[tuple[Place, ...]]:
        """Sets of other dimensions that have as many parts and might have to move too."""
        sizes = {(n, d): size for n, t in self.inputs.items() for d, size in enumerate(t.shape)}
        own = sizes.pop((name, dim))
        divided = [p for p, size in sizes.items() if size % swap.parts == 0]
        if len(divided) <= _PARTNERS:
            for count in range(len(divided) + 1):
                yield from combinations(divided, count)
        else:
            yield from ((), *((p,) for p in divided))
            yield from (tuple(p for p in divided if sizes[p] == own), tuple(divided))

    def _only_reorders(self, places: Sequence[Place], swap: _Swap) -> bool:
        """Whether reordering these dimensions reorders each output along one dimension, or not at all."""
        moved: dict[str, torch.Tensor] = {}
        for name, dim in places:
            t = moved.get(name, self.inputs[name])
            moved[name] = t.index_select(dim, torch.from_numpy(swap.index(t.shape[dim])))
        pairs = zip(self.outputs.items(), self.run(moved), strict=True)
        return all(self._alike(name, before, after) for (name, before), after in pairs)

    def _alike(self, name: str, before: torch.Tensor, after: torch.Tensor) -> bool:
        if _distance(before, after) <= self.tolerance:
            return True
        if before.is_complex():
            before, after = torch.view_as_real(before).sum(-1), torch.view_as_real(after).sum(-1)
        free = [d for d in range(before.ndim) if d not in self.fixed.get(name, ())]
        return any(_distance(before.sort(dim=d)[0], after.sort(dim=d)[0]) <= self.tolerance for d in free)


def _distance(a: torch.Tensor, b: torch.Tensor) -> float:
    if not a.numel():
        return 0.0
    if not (a.is_floating_point() or a.is_complex()):
        return 0.0 if torch.equal(a, b) else float("inf")
    same = (a == b) | (a.isnan() & b.isnan())
    worst = float((a - b).abs().masked_fill(same, 0).max())
    return worst if worst == worst else float("inf")
