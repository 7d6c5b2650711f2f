"""Operators that run subgraphs: read the subgraph, and say how its values meet those outside."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Protocol

from torch import fx

from graphmerge.axes import ANY, Call, Universe, Value
from graphmerge.trace.program import shape_of

Enter = Callable[["Subgraphs", fx.Node, Sequence[Any]], Any]


class Subgraphs(Protocol):
    """What the reader of a graph offers to an operator that runs others."""

    u: Universe
    prefix: str

    def enter(self, node: fx.Node, body: fx.GraphModule, operands: Sequence[Any]) -> Any: ...
    def unknown(self, call: Call) -> list[Value]: ...


def enter(reader: Subgraphs, node: fx.Node, args: Sequence[Any]) -> Any:
    """What a higher-order operator returns; everything it touches is fixed where it is not known."""
    name = str(node.target)
    if name.startswith("wrap_with") or name in _WRAPPERS:
        return _run(reader, node, args)
    known = _TABLE.get(name)
    return known(reader, node, args) if known else _fix(reader, node, args)


_WRAPPERS = ("tag_activation_checkpoint", "invoke_subgraph")


def _run(reader: Subgraphs, node: fx.Node, args: Sequence[Any]) -> Any:
    """One body that is merely run (autocast, grad mode, checkpoint); its operands stand behind it."""
    at = next(k for k, a in enumerate(args) if isinstance(a, fx.GraphModule))
    operands = [a for a in args[at + 1 :] if not isinstance(a, str)]  # subgraphs may be told by a name
    return reader.enter(node, args[at], operands)


def _fix(reader: Subgraphs, node: fx.Node, args: Sequence[Any]) -> Any:
    call = _call(reader, node, {"operands": _values(args)})
    results = reader.unknown(call)
    if isinstance(node.meta.get("val"), list | tuple):
        return results
    return results[0] if results else None


def _with_effects(reader: Subgraphs, node: fx.Node, args: Sequence[Any]) -> Any:
    """with_effects(token, operator, ...) -> (token, ...): a check or a message, mostly without a result"""
    if shape_of(node)[1:]:
        return _fix(reader, node, args)
    _call(reader, node, {"told": _values(args)}).fix_all("its values are checked")
    return [None]


def _values(args: Sequence[Any]) -> list[Value]:
    """Every tensor among nested arguments."""
    nested = [v for a in args for v in (_values(a) if isinstance(a, list | tuple) else [a])]
    return [v for v in nested if isinstance(v, Value)]


def _call(reader: Subgraphs, node: fx.Node, args: dict[str, Any]) -> Call:
    outputs = tuple((f"{reader.prefix}{node.name}", s) for s in shape_of(node))
    return Call(str(node.target), args, outputs, reader.u)


def _alike(reader: Subgraphs, name: str, values: Sequence[Value]) -> Value:
    """One value for several that stand in one place: what one of them says binds the others."""
    for v in values:
        Call(name, {}, (), reader.u).settle(v)
    call = Call(name, {}, ((name, values[0].shape),), reader.u)
    text = ", ".join(["..."] * len(values)) + " -> ..."
    bare = [Value(v.name, v.shape, v.labels, v.routed) for v in values]
    (one,) = call.relate(text, *bare)
    one.coarse = any(v.coarse for v in values)
    return one


def _place(reader: Subgraphs, node: fx.Node, k: int) -> str:
    return f"{reader.prefix}{node.name}#{k}"


def _cond(reader: Subgraphs, node: fx.Node, args: Sequence[Any]) -> Any:
    """cond(pred, true_fn, false_fn, operands): both branches, whose results are the same tensors"""
    pred, yes, no, operands = args
    if isinstance(pred, Value):
        _call(reader, node, {"pred": pred}).fix_all("decides which branch is taken")
    results = zip(*(reader.enter(node, body, operands) for body in (yes, no)), strict=True)
    return [_alike(reader, _place(reader, node, k), pair) for k, pair in enumerate(results)]


def _while_loop(reader: Subgraphs, node: fx.Node, args: Sequence[Any]) -> Any:
    """while_loop(cond_fn, body_fn, carried, additional): what the body returns is what it is given"""
    test, body, carried, additional = args
    carried = _steady(reader, node, carried, lambda c: reader.enter(node, body, [*c, *additional]))
    decision = reader.enter(node, test, [*carried, *additional])
    for value in _values([decision]):
        _call(reader, node, {"decision": value}).fix_all("decides when the loop ends")
    return carried


def _steady(
    reader: Subgraphs, node: fx.Node, carried: Sequence[Any], step: Callable[[Sequence[Any]], Sequence[Any]]
) -> list[Any]:
    """The values that a loop carries, bound to what each step makes of them.

    A state that starts as zeros has no units of its own: steps are read until every dimension that
    has units after a step had them before it.
    """
    held = [
        _alike(reader, _place(reader, node, k), [x]) if isinstance(x, Value) else x
        for k, x in enumerate(carried)
    ]
    while True:
        after = step(held)
        joined = [
            _alike(reader, _place(reader, node, k), [x, y]) if isinstance(x, Value) else x
            for k, (x, y) in enumerate(zip(held, after, strict=False))
        ]
        if all(_open(x) == _open(y) for x, y in zip(held, joined, strict=True)):
            return joined
        held = joined


def _open(x: Any) -> list[bool]:
    """The dimensions along which a value is the same everywhere."""
    return [label is ANY for label in x.labels or ()] if isinstance(x, Value) else []


def _scan(reader: Subgraphs, node: fx.Node, args: Sequence[Any]) -> Any:
    """scan(combine_fn, init, xs, additional): one step for each position of the first dimension of xs"""
    body, init, xs, additional = args
    slices = [_slice(reader, x) for x in xs]
    made: list[Any] = []

    def step(carried: Sequence[Any]) -> Sequence[Any]:
        out = reader.enter(node, body, [*carried, *slices, *additional])
        made[:] = out[len(init) :]
        return list(out[: len(init)])

    return [*_steady(reader, node, init, step), *(_stacked(reader, y, xs[0].shape[0]) for y in made)]


def _slice(reader: Subgraphs, x: Value) -> Value:
    """The positions of the first dimension one by one: their order is told, the others are alike in each."""
    rest = " ".join("abcdefg"[: x.rank - 1])
    call = Call("slice", {}, ((f"{x.name}[t]", x.shape[1:]),), reader.u)
    call.settle(x)
    return call.relate(f"t {rest} -> {rest} | t", x)[0]


def _stacked(reader: Subgraphs, y: Value, steps: int) -> Value:
    rest = " ".join("abcdefg"[: y.rank])
    call = Call("stack", {}, ((f"{y.name}[:]", (steps, *y.shape)),), reader.u)
    call.settle(y)
    return call.relate(f"{rest} -> t {rest} | t", y)[0]


def _map(reader: Subgraphs, node: fx.Node, args: Sequence[Any]) -> Any:
    """map_impl(f, xs, additional): f on each position of the first dimension"""
    body, xs, additional = args
    out = reader.enter(node, body, [*(_slice(reader, x) for x in xs), *additional])
    return [_stacked(reader, y, xs[0].shape[0]) for y in out]


def _associative_scan(reader: Subgraphs, node: fx.Node, args: Sequence[Any]) -> Any:
    """associative_scan(combine_fn, xs, additional): combines two elements of xs to one like them"""
    body, xs, additional = args
    slices = [_slice(reader, x) for x in xs]
    held = _steady(reader, node, slices, lambda c: reader.enter(node, body, [*c, *slices, *additional]))
    return [_stacked(reader, y, xs[0].shape[0]) for y in held]


def _flex_attention(reader: Subgraphs, node: fx.Node, args: Sequence[Any]) -> Any:
    """flex_attention(query, key, value, score_mod, block_mask, scale, options, buffers, buffers)"""
    q, k, v, score, mask = args[:5]
    call = _call(reader, node, {"buffers": _values([mask, *args[7:]])})
    for value in call.tensors():
        call.settle(value)
        for axis in range(value.rank):
            call.fix(value, axis, "positions in time")
    told = any(_reads_heads(body) for body in (score, mask[-1]) if isinstance(body, fx.GraphModule))
    grouped = q.shape[-3] != k.shape[-3]
    heads, fixed = ("(h r)", "h r") if grouped else ("h", "h")
    text = f"... {heads} s d, ... h t d, ... h t v -> ... {heads} s v, ... {heads} s, ... {heads} s | s t "
    return call.relate(text + (fixed if told else ""), q, k, v, h=k.shape[-3])


def _reads_heads(body: fx.GraphModule) -> bool:
    """Whether a modification of scores (score?, batch, head, query, key) looks at the number of the head."""
    inputs = [n for n in body.graph.nodes if n.op == "placeholder"]
    scored = inputs[0].meta["val"].is_floating_point()
    return bool(inputs[2 if scored else 1].users)


_TABLE: dict[str, Enter] = {
    "associative_scan": _associative_scan,
    "cond": _cond,
    "flex_attention": _flex_attention,
    "map_impl": _map,
    "scan": _scan,
    "while_loop": _while_loop,
    "with_effects": _with_effects,
}
