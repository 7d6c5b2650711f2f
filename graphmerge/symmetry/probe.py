"""Operators without a rule are tried out: which dimensions may be reordered, and what that does.

The operator runs on random inputs of the recorded shapes. Where reordering some of its inputs' dimensions
together merely reorders dimensions of its outputs, these become one letter of a rule text; every other
dimension is fixed. The text is then held to the same numeric check as the rules written by hand, and
taken only if it claims nothing false, also where orders vary from block to block.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from string import ascii_letters
from typing import Any

import torch
from torch._ops import OpOverload

from graphmerge.axes import Call, Registry, Value
from graphmerge.axes.rule import relate
from graphmerge.symmetry.check import Fibres, check_call, run_call, tensors_of
from graphmerge.trace.program import op_name

Place = tuple[int, int]
"""Tensor and dimension; inputs and outputs are counted on their own."""

_DRAWS = 2
_PLACES = 16
"""Most positions of a dimension of which it is asked whether they are read at all."""

_MOST = 3
"""Most input dimensions that are tried together."""

_TOLERANCE = {torch.float64: 1e-9, torch.float32: 1e-4, torch.float16: 1e-2, torch.bfloat16: 5e-2}
_FOUND: dict[tuple[object, ...], Probed] = {}


@dataclass(frozen=True)
class Probed:
    """A rule text that holds; each letter of ``alone`` keeps one order wherever it stands.

    ``why`` says what went wrong where there is no text.
    """

    text: str = ""
    alone: tuple[tuple[str, int], ...] = ()
    why: str = ""

    def rule(self, call: Call) -> list[Value]:
        """Apply the text; letters that stand alone do so in outputs of their own, which nobody reads."""
        extra = tuple((f"{call.op} {letter}", (size,)) for letter, size in self.alone)
        return relate(call.u, self.text, call.tensors(), (*call.outputs, *extra))[: len(call.outputs)]


def probe(op: OpOverload, args: Mapping[str, Any]) -> Probed:
    """What holds of this operator on inputs like ``args`` (by schema name, of which only shapes are used).

    It is kept for the process, by operator, shapes, types and other arguments.
    """
    key = (str(op), str({n: _describe(x) for n, x in args.items()}))
    if key not in _FOUND:
        _FOUND[key] = _probe(op, args)
    return _FOUND[key]


def _describe(x: Any) -> object:
    if isinstance(x, torch.Tensor):
        return (tuple(x.shape), x.dtype)
    return [_describe(v) for v in x] if isinstance(x, list | tuple) else x


def _probe(op: OpOverload, args: Mapping[str, Any]) -> Probed:
    why = ""
    for dtype in (torch.float64, None):
        drawn = [_drawn(args, seed, dtype) for seed in range(_DRAWS)]
        try:
            outputs = run_call(op, drawn[0])
        except Exception as error:  # noqa: BLE001 - a foreign operator may raise anything
            why = f"it does not run on random inputs: {str(error).strip().splitlines()[0]}"
            continue
        if not _repeats(op, drawn[0], outputs):
            return Probed(why="it draws random numbers")
        found = [p for p in _candidates(op, drawn, outputs) if _holds(op, drawn, p)]
        return found[0] if found else Probed(why="no reordering of its inputs merely reorders its outputs")
    return Probed(why=why)


def _drawn(args: Mapping[str, Any], seed: int, dtype: torch.dtype | None) -> dict[str, Any]:
    """Arguments with every tensor drawn anew: floats in ``dtype`` (None: their own), integers 0 or 1."""
    generator = torch.Generator().manual_seed(seed)

    def one(x: Any) -> Any:
        if isinstance(x, list | tuple):
            return [one(v) for v in x]
        if not isinstance(x, torch.Tensor):
            return x
        if x.is_floating_point():
            return torch.randn(x.shape, generator=generator, dtype=torch.float64).to(dtype or x.dtype)
        return torch.randint(0, 2, x.shape, generator=generator).to(x.dtype)

    return {name: one(x) for name, x in args.items()}


def _repeats(op: OpOverload, args: Mapping[str, Any], outputs: Sequence[torch.Tensor]) -> bool:
    """Whether a second run returns the same: what draws random numbers cannot be tried out."""
    return all(_close(a, b) for a, b in zip(outputs, run_call(op, args), strict=True))


def _close(a: torch.Tensor, b: torch.Tensor) -> bool:
    if not a.is_floating_point():
        return torch.equal(a, b)
    tolerance = _TOLERANCE[a.dtype]
    return torch.allclose(a, b, rtol=tolerance, atol=tolerance, equal_nan=True)


def _candidates(
    op: OpOverload, drawn: Sequence[Mapping[str, Any]], outputs: Sequence[torch.Tensor]
) -> Iterator[Probed]:
    """What may hold, from the freest to the most careful."""
    inputs = [t for _, t in tensors_of(drawn[0])]
    if outputs and all(x.shape in (outputs[0].shape, ()) for x in [*inputs, *outputs]):
        yield Probed(", ".join(["..."] * len(inputs)) + " -> " + ", ".join(["..."] * len(outputs)))
    letters = _letters(op, drawn)
    sizes = {letters[side, (k, d)]: inputs[k].shape[d] for side, (k, d) in letters if side == "in"}
    if sizes:
        yield Probed(_text(inputs, outputs, letters))
        yield Probed(_text(inputs, outputs, letters, sorted(sizes)), tuple(sorted(sizes.items())))


def _letters(op: OpOverload, drawn: Sequence[Mapping[str, Any]]) -> dict[tuple[str, Place], str]:
    """A letter for each set of input dimensions that may be reordered together, and what they reorder."""
    inputs = [t for _, t in tensors_of(drawn[0])]
    sizes = {
        (k, d): n
        for k, t in enumerate(inputs)
        for d, n in enumerate(t.shape)
        if t.is_floating_point() and n > 1 and all(_is_read(op, args, k, d) for args in drawn)
    }
    found: dict[tuple[str, Place], str] = {}
    for count in range(1, _MOST + 1):
        for places in combinations(sizes, count):
            alike = len({sizes[p] for p in places}) == 1 and len({k for k, _ in places}) == count
            if not alike or any(("in", p) in found for p in places):
                continue
            moved = [_reordered(op, args, places, sizes[places[0]]) for args in drawn]
            if moved[0] is not None and all(m == moved[0] for m in moved):
                letter = ascii_letters[len(set(found.values()))]
                found |= {("in", p): letter for p in places} | {("out", p): letter for p in moved[0]}
    return found


def _is_read(op: OpOverload, args: Mapping[str, Any], number: int, dim: int) -> bool:
    """Whether the outputs change with what stands at each position (of many: some): the unread looks free."""
    before = run_call(op, args)
    size = [t for _, t in tensors_of(args)][number].shape[dim]
    for place in torch.linspace(0, size - 1, min(size, _PLACES)).long():

        def bump(k: int, t: torch.Tensor, place: torch.Tensor = place) -> torch.Tensor:
            row = t.select(dim, int(place)).unsqueeze(dim) if k == number else t
            return t.index_add(dim, place[None], 1 + row.abs()) if k == number else t

        if all(_close(x, y) for x, y in zip(before, run_call(op, _with(args, bump)), strict=True)):
            return False
    return True


def _reordered(
    op: OpOverload, args: Mapping[str, Any], places: Sequence[Place], size: int
) -> tuple[Place, ...] | None:
    """The output dimensions that are reordered as ``places`` are; None where something else happens."""
    order = torch.randperm(size, generator=torch.Generator().manual_seed(size))
    if torch.equal(order, torch.arange(size)):
        order = order.flip(0)
    before = run_call(op, args)
    dims = dict(places)
    after = run_call(op, _with(args, lambda k, t: t.index_select(dims[k], order) if k in dims else t))
    moved = []
    for k, (x, y) in enumerate(zip(before, after, strict=True)):
        if _close(x, y):
            continue
        at = [d for d, n in enumerate(x.shape) if n == size and _close(x.index_select(d, order), y)]
        if not at:
            return None
        moved.append((k, at[0]))
    return tuple(moved)


def _with(args: Mapping[str, Any], change: Callable[[int, torch.Tensor], torch.Tensor]) -> dict[str, Any]:
    """The arguments with every tensor changed; tensors are counted in schema order."""
    number = iter(range(sum(1 for _ in tensors_of(args))))

    def one(x: Any) -> Any:
        if isinstance(x, list | tuple):
            return [one(v) for v in x]
        return change(next(number), x) if isinstance(x, torch.Tensor) else x

    return {name: one(x) for name, x in args.items()}


def _text(
    inputs: Sequence[torch.Tensor],
    outputs: Sequence[torch.Tensor],
    letters: Mapping[tuple[str, Place], str],
    alone: Sequence[str] = (),
) -> str:
    """A rule text; each letter of ``alone`` stands in one more output by itself."""
    fixed: list[str] = []

    def term(side: str, k: int, t: torch.Tensor) -> str:
        names = []
        for d in range(t.ndim):
            name = letters.get((side, (k, d)))
            if name is None:
                name = f"{side}{k}_{d}"
                fixed.append(name)
            names.append(name)
        return " ".join(names)

    left = ", ".join(term("in", k, t) for k, t in enumerate(inputs))
    right = ", ".join([*(term("out", k, t) for k, t in enumerate(outputs)), *alone])
    return f"{left} -> {right} | {' '.join(fixed)}".removesuffix(" | ")


def _holds(op: OpOverload, drawn: Sequence[Mapping[str, Any]], found: Probed) -> bool:
    """Whether the numeric check finds nothing false in what was found."""
    registry = Registry()
    registry.add(op_name(op), found.rule)
    ways: tuple[Fibres | None, ...] = (None, "inwards", "outwards")
    wrong = [
        line
        for args in drawn
        for way in ways
        for line in check_call(op, (), args, registry, fibred=way, tolerance=_tolerance(args))
    ]
    return not any(line.startswith("false") for line in wrong)


def _tolerance(args: Mapping[str, Any]) -> float:
    return max((_TOLERANCE[t.dtype] for _, t in tensors_of(args) if t.is_floating_point()), default=0.0)
