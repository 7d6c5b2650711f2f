"""Calls of operators that contract an axis, of convolutions and of recurrent layers."""

from __future__ import annotations

import torch
from case import ATEN, SPACE, Case, ints, t

LINEAR = [
    Case(ATEN.linear.default, (t(2, 3, 5), t(7, 5), t(7))),
    Case(ATEN.linear.default, (t(2, 5), t(7, 5)), note="no bias"),
    Case(ATEN.linear.default, (t(5), t(7, 5), t(7)), note="a vector"),
    Case(ATEN.bilinear.default, (t(2, 3, 5), t(2, 3, 4), t(7, 5, 4), t(7))),
    Case(ATEN.addmm.default, (t(7), t(3, 5), t(5, 7)), note="a row"),
    Case(ATEN.addmm.default, (t(3, 7), t(3, 5), t(5, 7)), note="a matrix"),
    Case(ATEN.addmm.default, (t(3, 1), t(3, 5), t(5, 7)), note="a column"),
    Case(ATEN.addbmm.default, (t(3, 7), t(2, 3, 5), t(2, 5, 7))),
    Case(ATEN.addbmm.default, (t(7), t(2, 3, 5), t(2, 5, 7)), note="a row"),
    Case(ATEN.baddbmm.default, (t(2, 3, 7), t(2, 3, 5), t(2, 5, 7))),
    Case(ATEN.baddbmm.default, (t(3, 7), t(2, 3, 5), t(2, 5, 7)), note="a matrix"),
    Case(ATEN.baddbmm.default, (t(2, 1, 1), t(2, 3, 5), t(2, 5, 7)), note="one number each"),
    Case(ATEN.addmv.default, (t(3), t(3, 5), t(5))),
    Case(ATEN.mm.default, (t(3, 5), t(5, 7))),
    Case(ATEN.bmm.default, (t(2, 3, 5), t(2, 5, 7))),
    Case(ATEN.mv.default, (t(3, 5), t(5))),
    Case(ATEN.dot.default, (t(5), t(5))),
    Case(ATEN.vdot.default, (t(5), t(5))),
    Case(ATEN.outer.default, (t(5), t(3))),
]

MATMUL = [
    Case(ATEN.matmul.default, (t(*a), t(*b)), note=f"{list(a)} by {list(b)}")
    for a, b in [
        ((5,), (5,)),
        ((3, 5), (5,)),
        ((5,), (5, 7)),
        ((3, 5), (5, 7)),
        ((2, 3, 5), (5, 7)),
        ((3, 5), (2, 5, 7)),
        ((2, 3, 5), (2, 5, 7)),
        ((2, 3, 5), (5,)),
        ((5,), (2, 5, 7)),
        ((4, 2, 3, 5), (4, 2, 5, 7)),
        ((4, 2, 3, 5), (2, 5, 7)),
        ((4, 1, 3, 5), (2, 5, 7)),
    ]
]

EINSUM = [
    Case(ATEN.einsum.default, (equation, [t(*s) for s in shapes]), note=equation)
    for equation, shapes in [
        ("bi,oi->bo", [(2, 5), (7, 5)]),
        ("ij,jk", [(3, 5), (5, 7)]),
        ("bhqd,bhkd->bhqk", [(2, 3, 4, 5), (2, 3, 7, 5)]),
        ("...qd,...kd->...qk", [(2, 3, 4, 5), (2, 3, 7, 5)]),
        ("b...c,cd->b...d", [(2, 3, 4), (4, 7)]),
        ("ei,eoi->eo", [(2, 5), (2, 7, 5)]),
        ("ijk->kji", [(2, 3, 4)]),
        ("ij->j", [(2, 3)]),
        ("i,j,k->ijk", [(2,), (3,), (4,)]),
        ("bi,bi->b", [(2, 5), (2, 5)]),
        ("ii->i", [(4, 4)]),
        ("ii->", [(4, 4)]),
        ("bij,bjk,bkl->bil", [(2, 3, 4), (2, 4, 5), (2, 5, 6)]),
        ("... i j -> ... j i", [(2, 3, 4)]),
        ("...ij,jk", [(2, 3, 4), (4, 5)]),
    ]
]


def _heads(heads: int, keys: int, seq: int = 5, kv: int = 6) -> tuple[torch.Tensor, ...]:
    return t(2, heads, seq, 7), t(2, keys, kv, 7), t(2, keys, kv, 4)


_SDPA = ATEN.scaled_dot_product_attention.default
ATTENTION = [
    Case(_SDPA, _heads(3, 3)),
    Case(_SDPA, (t(3, 5, 7), t(3, 6, 7), t(3, 6, 4)), note="no batch"),
    Case(_SDPA, (t(5, 7), t(6, 7), t(6, 4)), note="no heads"),
    Case(_SDPA, (*_heads(3, 3), t(5, 6)), note="mask"),
    Case(_SDPA, (*_heads(3, 3), t(1, 3, 5, 6)), note="mask with heads"),
    Case(_SDPA, (*_heads(3, 3), t(2, 1, 1, 6)), note="mask of keys"),
    Case(_SDPA, (*_heads(3, 3), torch.ones(5, 6).tril() > 0), note="fixed mask"),
    Case(_SDPA, _heads(3, 3, 6, 6), {"is_causal": True}, note="causal"),
    Case(_SDPA, _heads(6, 3), {"enable_gqa": True}, note="gqa"),
    Case(_SDPA, _heads(6, 3, 6, 6), {"enable_gqa": True, "is_causal": True}, note="causal gqa"),
    Case(_SDPA, (*_heads(6, 3), t(5, 6)), {"enable_gqa": True}, note="gqa with a mask"),
    Case(_SDPA, (*_heads(6, 3), t(2, 1, 5, 6)), {"enable_gqa": True}, note="gqa with a mask of one head"),
    Case(_SDPA, (*_heads(6, 3), t(2, 6, 5, 6)), {"enable_gqa": True}, note="gqa with a mask of heads"),
    Case(_SDPA, (*_heads(6, 3), t(6, 5, 6)), {"enable_gqa": True}, note="gqa with a mask of rank 3"),
    Case(_SDPA, (t(6, 5, 7), t(3, 4, 7), t(3, 4, 2)), {"enable_gqa": True}, note="gqa without batch"),
    Case(_SDPA, (t(2, 6, 5, 7), t(2, 1, 4, 7), t(2, 1, 4, 3)), {"enable_gqa": True}, note="one key head"),
]

_BAG = (t(5, 3), ints(0, 1, 2, 4, 3, 3), ints(0, 2, 5))
EMBEDDING = [
    Case(ATEN.embedding.default, (t(5, 3), torch.tensor([[0, 1, 1, 2], [2, 3, 4, 4]]))),
    Case(ATEN.embedding.default, (t(5, 3), torch.tensor(2)), note="one index",
         fixed={"weight": (0,)}, because="rows never read"),
    Case(ATEN.embedding_bag.default, _BAG, fixed={"weight": (0,)}, because="a bag has no order"),
    Case(ATEN._embedding_bag.default, _BAG, fixed={"weight": (0,)}, because="a bag has no order"),
]  # fmt: skip


def _spatial(rank: int, first: int) -> dict[str, tuple[int, ...]]:
    axes = tuple(range(first, first + rank))
    return {"input": axes, "self": axes, "out0": axes, "weight": tuple(range(2, 2 + rank))}


def _conv(
    rank: int, groups: int, cin: int, cout: int, note: str, batch: bool = True, bias: bool = True
) -> Case:
    op = getattr(ATEN, f"conv{rank}d").default
    x = t(2, cin, *(4, 5, 3)[:rank]) if batch else t(cin, *(4, 5, 3)[:rank])
    weight = t(cout, cin // groups, *(2, 3, 2)[:rank])
    ones = [1] * rank
    args = (x, weight, t(cout) if bias else None, ones, [0] * rank, ones, groups)
    return Case(op, args, note=note, fixed=_spatial(rank, 1 + batch), because=SPACE)


def _transposed(rank: int, groups: int, cin: int, cout: int, note: str) -> Case:
    packet = getattr(ATEN, f"conv_transpose{rank}d")
    op = packet.default if rank == 1 else packet.input
    weight = t(cin, cout // groups, *(2, 3, 2)[:rank])
    ones, zeros = [1] * rank, [0] * rank
    args = (t(2, cin, *(4, 5, 3)[:rank]), weight, t(cout), ones, zeros, zeros, groups, ones)
    return Case(op, args, note=note, fixed=_spatial(rank, 2), because=SPACE)


CONV = [
    case
    for rank in (1, 2, 3)
    for case in (
        _conv(rank, 1, 3, 6, "plain"),
        _conv(rank, 1, 3, 6, "no bias", bias=False),
        _conv(rank, 2, 6, 4, "grouped"),
        _conv(rank, 3, 3, 3, "depthwise"),
        _conv(rank, 3, 3, 6, "depthwise, widening"),
        _conv(rank, 1, 3, 6, "unbatched", batch=False),
        _transposed(rank, 1, 3, 6, "plain"),
        _transposed(rank, 2, 6, 4, "grouped"),
        _transposed(rank, 3, 3, 3, "depthwise"),
    )
] + [
    Case(ATEN.conv2d.padding, (t(2, 3, 4, 5), t(6, 3, 3, 3), t(6), [1, 1], "same", [1, 1], 1),
         note="same padding", fixed=_spatial(2, 2), because=SPACE),
]  # fmt: skip


def _weights(
    gates: int, inputs: int, hidden: int, layers: int, directions: int, proj: int, bias: bool
) -> list:
    found = []
    for layer in range(layers):
        width = inputs if layer == 0 else (proj or hidden) * directions
        for _ in range(directions):
            found += [t(gates * hidden, width), t(gates * hidden, proj or hidden)]
            found += [t(gates * hidden), t(gates * hidden)] if bias else []
            found += [t(proj, hidden)] if proj else []
    return found


def _recurrent(
    name: str, note: str, layers: int = 1, directions: int = 1, proj: int = 0, bias: bool = True,
    batch_first: bool = False,
) -> Case:  # fmt: skip
    gates = {"lstm": 4, "gru": 3}.get(name, 1)
    sequence = (2, 6) if batch_first else (6, 2)
    total = layers * directions
    hx = t(total, 2, proj or 5)
    state = [hx, t(total, 2, 5)] if name == "lstm" else hx
    weights = _weights(gates, 3, 5, layers, directions, proj, bias)
    args = (t(*sequence, 3), state, weights, bias, layers, 0.0, False, directions == 2, batch_first)
    fixed = {"input": (0, 1), "hx": (1,), "hx.0": (1,), "hx.1": (1,)}
    return Case(
        getattr(ATEN, name).input, args, note=note, fixed=fixed, because="time, and the batch beside it"
    )


RECURRENT = [
    case
    for name in ("lstm", "gru", "rnn_tanh", "rnn_relu")
    for case in (
        _recurrent(name, "one layer"),
        _recurrent(name, "no bias", bias=False),
        _recurrent(name, "stacked", layers=2),
        _recurrent(name, "bidirectional", directions=2),
        _recurrent(name, "bidirectional stacked", layers=2, directions=2),
        _recurrent(name, "batch first", batch_first=True),
    )
] + [
    _recurrent("lstm", "projected", proj=4),
    _recurrent("lstm", "projected bidirectional stacked", layers=2, directions=2, proj=4),
]

CASES = [*LINEAR, *MATMUL, *EINSUM, *ATTENTION, *EMBEDDING, *CONV, *RECURRENT]
