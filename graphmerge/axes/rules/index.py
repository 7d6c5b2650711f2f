"""Operators that pick or write positions given by an index tensor."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from math import prod

from graphmerge.axes.grid import Grid, dependences, take
from graphmerge.axes.registry import RULES, Call
from graphmerge.axes.routing import route
from graphmerge.axes.units import ANY, FIXED, Labels, Positions, Value, Whole

_LETTERS = "abcdefgh"


@RULES.rule("aten.embedding", integers="read")
def embedding(call: Call) -> list[Value]:
    """embedding(weight [v, d], indices [...]) -> [..., d]"""
    weight, indices = call["weight"], call["indices"]
    rows = call.named(indices, weight.shape[0])
    fixed = " | v" if _settled(rows) else ""
    return call.relate(f"v d, ..., v -> ... d{fixed}", weight, indices, rows)


def _settled(named: Value) -> bool:
    """Whether the positions named do not move."""
    return all(isinstance(x, Whole) for x in named.labels or ())


@RULES.rule("aten.index", "aten._unsafe_index", "aten.index_select", integers="read")
def index(call: Call) -> list[Value]:
    """index.Tensor(self, Tensor?[] indices): positions named by the indices, the other dimensions whole"""
    x, indices = call["self"], _indices(call)
    rank = max(v.rank for v in indices.values())
    if len(call.outputs[0][1]) != x.rank - len(indices) + rank:
        return call.fix_all("indexed by a mask")
    (axis, first), *others = indices.items()
    if first.known is not None and not others:  # constants of the model: told before the data is there
        call.settle(x)
        picked = take(call.u, call.grid(x, [axis]), axis, first.known % x.shape[axis])
        return call.result(picked, x)
    if list(indices) == [0] and rank > 0 and (routed := _routed_rows(call, x, indices[0])):
        return routed
    letters = [f"x{k}" for k in range(x.rank)]
    terms, into = _terms(indices, letters)
    named, fixed = _named_places(call, x, indices)
    text = ", ".join([" ".join(letters), *terms, *(letters[k] for k in indices)])
    results = call.relate(f"{text} -> {into}{fixed}", x, *indices.values(), *named)
    return _handing_on(call, x, next(iter(indices.values())), results)


def _handing_on(call: Call, x: Value, chosen: Value | None, results: list[Value]) -> list[Value]:
    """Integers that name positions still do when some of them are picked."""
    held = x.positions
    if held is None or held.units is None:
        call.settle(x)
        return results
    by = chosen.positions if chosen else None
    reordered = by is not None and by.role == "order" and by.source == held.source
    results[0].positions = held if reordered else replace(held, source=results[0].name)
    return results


def _indices(call: Call) -> dict[int, Value]:
    """The index of each dimension that has one, whichever operator it is."""
    if "indices" in call.args:
        return {k: v for k, v in enumerate(call["indices"]) if v is not None}
    return {call["dim"] % call["self"].rank: call["index"]}


def _terms(indices: Mapping[int, Value], letters: Sequence[str]) -> tuple[list[str], str]:
    """The terms of the index tensors, broadcast against each other, and that of what they pick."""
    rank = max(v.rank for v in indices.values())
    lead = [f"i{rank - 1 - k}" for k in range(rank)]
    kept = [c for k, c in enumerate(letters) if k not in indices]
    places = list(indices)
    together = places == list(range(places[0], places[-1] + 1))
    at = places[0] if together else 0
    terms = [" ".join(lead[rank - v.rank :]) for v in indices.values()]
    return terms, " ".join([*kept[:at], *lead, *kept[at:]])


def _named_places(call: Call, x: Value, indices: Mapping[int, Value]) -> tuple[list[Value], str]:
    """Stand-ins for the dimensions that the indices name; those that do not move are said to be fixed."""
    named = [call.named(v, x.shape[k]) for k, v in indices.items()]
    still = [f"x{k}" for k, v in zip(indices, named, strict=True) if _settled(v)]
    return named, " | " + " ".join(still) if still else ""


def _routed_rows(call: Call, x: Value, rows: Value) -> list[Value] | None:
    """Rows chosen by data, each with an order of its own (the weights of each token's experts)."""
    grid = call.grid(x)
    by_mask = rows.shape != call.outputs[0][1][: rows.rank]
    if by_mask or not any(0 in dependences(labels, k) for k, labels in enumerate(grid.labels)):
        return None
    named = call.named(rows, x.shape[0])
    chosen = route(call.u, grid, 0, prod(rows.shape), (named.labels or [FIXED])[0])
    if chosen is None:
        return None
    if _settled(named):
        call.u.fix((x.name, 0), "rows are chosen by number")
    call.u.link((x.name, 0), (named.name, 0))
    lead = [
        v if isinstance(v, Whole) else v.reshape(*v.shape, *[1] * (x.rank - 1)) for v in rows.labels or ()
    ]
    rest = [_laid_out(v, rows.shape) for v in chosen.labels[1:]]
    shape = (*rows.shape, *x.shape[1:])
    source = Value(x.name, shape, [*lead, *rest], dict.fromkeys(range(rows.rank), rows.name))
    return call.result(Grid(shape, (*lead, *rest)), source)


def _laid_out(labels: Labels, rows: tuple[int, ...]) -> Labels:
    """Labels along whose first dimension rows were chosen one after the other, in the shape of the index."""
    if isinstance(labels, Whole):
        return labels
    lead = rows if labels.shape[0] > 1 else (1,) * len(rows)
    return labels.reshape(*lead, *labels.shape[1:])


@RULES.rule("aten.index_put", "aten._unsafe_index_put", "aten.index_add", "aten.index_copy", integers="read")
def index_put(call: Call) -> list[Value]:
    """index_put(self, Tensor?[] indices, values), index_add(self, int dim, index, source)"""
    x, indices = call["self"], _indices(call)
    given: Value = call["values"] if "values" in call.args else call["source"]
    call.settle(x)
    first = next(iter(indices.values()))
    if first.dtype is not None and not first.dtype.is_signed:
        return _masked_put(call, x, indices, given)
    letters = [f"x{k}" for k in range(x.rank)]
    terms, into = _terms(indices, letters)
    names = into.split()[len(into.split()) - given.rank :] if given.rank else []
    named, fixed = _named_places(call, x, indices)
    order = (first.labels or [FIXED])[0] if len(indices) == 1 and first.rank == 1 else FIXED
    once = first.positions is not None and first.positions.role == "order" and x.shape == given.shape
    alone = call.op != "aten.index_add" and not call.args.get("accumulate")
    inverse = given.counted is not None and once and alone and not isinstance(order, Whole)
    if inverse:  # 0, 1, 2, ... written in another order, each to a place of its own
        given = Value(given.name, given.shape, [order])
    else:
        call.settle(given)
    text = ", ".join([" ".join(letters), *terms, " ".join(names), *(letters[k] for k in indices)])
    results = call.relate(f"{text} -> {' '.join(letters)}{fixed}", x, *indices.values(), given, *named)
    if inverse:
        results[0].positions = Positions(order, 0, (first.name, 0), results[0].name)
    return results


def _masked_put(call: Call, x: Value, indices: Mapping[int, Value], given: Value) -> list[Value]:
    """Written where a mask says so: elementwise, if there is one mask and one number."""
    if list(indices) != [0] or given.rank > 0:
        return call.fix_all("written to by a mask")
    mask, letters = indices[0], _LETTERS[: x.rank]
    own = " ".join(letters)
    return call.relate(f"{own}, {' '.join(letters[: mask.rank])} -> {own}", x, mask)


@RULES.rule("aten.gather", integers="read")
def gather(call: Call) -> list[Value]:
    """gather(self, int dim, Tensor index): out[i][j] = self[index[i][j]][j] for dim 0"""
    x, places = call["self"], call["index"]
    axis, letters, into = _along(call, x)
    if _is_cut(x, places, axis):
        return call.fix_all("gathered from a part of the tensor")
    named = call.named(places, x.shape[axis] if x.rank else 1)
    fixed = f" | {letters[axis]}" if _settled(named) else ""
    text = f"{' '.join(letters)}, {' '.join(into)}, {letters[axis]} -> {' '.join(into)}{fixed}"
    return _handing_on(call, x, None, call.relate(text, x, places, named))


def _along(call: Call, x: Value) -> tuple[int, list[str], list[str]]:
    """The dimension indexed, the letters of ``self``, and those of the index."""
    axis = call["dim"] % x.rank
    letters = list(_LETTERS[: x.rank])
    return axis, letters, [*letters[:axis], "y", *letters[axis + 1 :]]


def _is_cut(x: Value, places: Value, axis: int) -> bool:
    return any(n != m for k, (n, m) in enumerate(zip(x.shape, places.shape, strict=True)) if k != axis)


@RULES.rule("aten.scatter", "aten.scatter_add", "aten.scatter_reduce", integers="read")
def scatter(call: Call) -> list[Value]:
    """scatter(self, int dim, Tensor index, src or value): self[index[i][j]][j] = src[i][j] for dim 0"""
    x, places, source = call["self"], call["index"], call.args.get("src")
    call.settle(x)
    axis, letters, into = _along(call, x)
    if isinstance(source, Value):
        call.settle(source)
    if _is_cut(x, places, axis) or (isinstance(source, Value) and source.shape != places.shape):
        return call.fix_all("scattered to a part of the tensor")
    named = call.named(places, x.shape[axis])
    fixed = f" | {letters[axis]}" if _settled(named) else ""
    own, whole, index = letters[axis], " ".join(letters), " ".join(into)
    value = source if isinstance(source, Value) else None
    return call.relate(f"{whole}, {index}, {index}?, {own} -> {whole}{fixed}", x, places, value, named)


@RULES.rule("transformers.grouped_mm_fallback", "aten._grouped_mm", integers="read")
def grouped_mm(call: Call) -> list[Value]:
    """grouped_mm(x [tokens, k], w [experts, k, m], offs [experts]): tokens sorted by expert

    Which expert serves a token is data; all that is known is that the same offsets mean the same expert.
    """
    x, w = call.tensors()[:2]
    if x.rank != 2 or w.rank != 3 or len(call.tensors()) < 3:
        return call.fix_all("a grouped matrix product of this form has no rule")
    ends = call.tensors()[2]
    experts = _experts(call, x, ends)
    served = route(call.u, call.grid(w), 0, x.shape[0], experts)
    if served is None:
        call.settle(ends)
        return call.relate("t k, e k m -> t m | t e", x, w)
    call.u.link((w.name, 0), (call.outputs[0][0], 0))
    fixed = " | t" if isinstance(experts, Whole) else ""
    if isinstance(experts, Whole):
        call.settle(ends)
        call.u.fix((w.name, 0), "the router names experts by number")
    else:
        call.u.link((w.name, 0), ends.positions.place)  # type: ignore[union-attr]
    chosen = Value(w.name, served.shape, [ANY, *served.labels[1:]], {0: ends.name})
    return call.relate(f"t k, t k m -> t m{fixed}", x, chosen)


def _experts(call: Call, x: Value, ends: Value) -> Labels:
    """The labels of the experts by which the rows of ``x`` are sorted, if these are whose ends are given."""
    held, rows = ends.positions, (x.labels or [FIXED])[0]
    if held is None or held.role != "offset" or isinstance(rows, Whole):
        return FIXED
    same = rows.size == x.shape[0] and call.u.sorted_by.get(int(rows.flat[0])) == held.source
    return held.labels if same else FIXED
