"""LSTM, GRU and RNN kept whole: gates are fixed blocks, the hidden axis stands on both sides."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from graphmerge.axes.grid import Grid, concat, insert_dims, pick_dims, take
from graphmerge.axes.registry import RULES, Call
from graphmerge.axes.rule import relate
from graphmerge.axes.units import Value


def _state(call: Call, states: Value, index: int) -> Value:
    """State ``index`` of [layers * directions, n, h] as a value [n, h]."""
    one = take(call.u, call.grid(states), 0, np.array([index]))
    flat = pick_dims(one, list(range(1, states.rank)))
    return Value(states.name, flat.shape, list(flat.labels))


def _layer(
    call: Call, x: Value, states: Sequence[Value], weights: Sequence[Value], gates: int, biases: bool
) -> list[Value]:
    """One direction of one layer: hidden sequence, and the last value of each state."""
    rows = f"({gates} h)" if gates > 1 else "h"
    projected = len(weights) == (5 if biases else 3)
    out = "p" if projected else "h"
    batch = "t n" if x.rank == 3 else "t"
    state = batch.replace("t", "").strip()
    terms = [f"{batch} i", *(f"{state} {s}" for s in (out, "h")[: len(states)])]
    terms += [f"{rows} i", f"{rows} {out}"] + [rows] * (2 * biases) + ["p h"] * projected
    results = [f"{batch} {out}", *(f"{state} {s}" for s in (out, "h")[: len(states)])]
    hidden = weights[-1].shape[0] if projected else states[0].shape[-1]
    shapes = [(*x.shape[:-1], hidden), *(s.shape for s in states)]
    names = [call.outputs[k][0] for k in range(len(shapes))]
    text = ", ".join(terms) + " -> " + ", ".join(results) + " | t n"
    return relate(call.u, text, [x, *states, *weights], list(zip(names, shapes, strict=True)))


def _run(call: Call, states: Sequence[Value], gates: int) -> list[Value]:
    """All layers and directions; ``states`` are the initial hidden (and cell) states."""
    directions = 2 if call["bidirectional"] else 1
    total = call["num_layers"] * directions
    weights = call["params"]
    per = len(weights) // total
    x: Value = call["input"]
    last: list[list[Grid]] = [[] for _ in states]
    for layer in range(call["num_layers"]):
        sides = []
        for k in range(layer * directions, (layer + 1) * directions):
            begin = [_state(call, s, k) for s in states]
            ends = _layer(call, x, begin, weights[k * per : (k + 1) * per], gates, call["has_biases"])
            sides.append(call.grid(ends[0]))
            for store, end in zip(last, ends[1:], strict=True):
                store.append(insert_dims(call.grid(end), [0]))
        grid = sides[0] if directions == 1 else concat(call.u, sides, sides[0].rank - 1)
        x = Value(call.outputs[0][0], grid.shape, list(grid.labels))
    finals = [concat(call.u, g, 0) if len(g) > 1 else g[0] for g in last]
    results = [x, *(Value(call.outputs[k + 1][0], g.shape, list(g.labels)) for k, g in enumerate(finals))]
    for value in results:
        for w in weights:
            call.u.link((w.name, 0), (value.name, value.rank - 1))
    return results


@RULES.rule("aten.lstm")
def lstm(call: Call) -> list[Value]:
    """lstm.input(input, Tensor[] hx, Tensor[] params, bool has_biases, int num_layers, ...) -> (out, h, c)"""
    return _run(call, call["hx"], 4)


@RULES.rule("aten.gru")
def gru(call: Call) -> list[Value]:
    """gru.input(input, Tensor hx, Tensor[] params, bool has_biases, int num_layers, ...) -> (out, h)"""
    return _run(call, [call["hx"]], 3)


@RULES.rule("aten.rnn_tanh", "aten.rnn_relu")
def rnn(call: Call) -> list[Value]:
    """rnn_tanh.input(input, Tensor hx, Tensor[] params, bool has_biases, int num_layers, ...) -> (out, h)"""
    return _run(call, [call["hx"]], 1)
