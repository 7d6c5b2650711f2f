"""Calls of operators that move elements about."""

from __future__ import annotations

import torch
from case import ATEN, SPACE, Case, t

_VIEWS = [
    ((12, 5), (3, 4, 5), "split"),
    ((3, 4, 5), (12, 5), "merge"),
    ((3, 4, 5), (3, 20), "merge the last"),
    ((6, 4), (3, 8), "regroup"),
    ((3, 4, 5), (3, 4, 5), "identity"),
    ((2, 12), (2, 3, 4), "heads"),
    ((2, 3, 4), (24,), "flatten"),
    ((24,), (2, 3, 4), "split in three"),
    ((3, 1, 4), (3, 4), "drop a one"),
    ((3, 4), (1, 3, 1, 4), "insert ones"),
    ((2, 3, 4, 5), (6, 20), "two merges"),
    ((2, 3, 6), (2, 3, 2, 3), "split the last of three"),
    ((5, 6), (5, -1, 3), "minus one"),
]
VIEW = [
    Case(op, (t(*a), list(b)), note=note)
    for op in (ATEN.view.default, ATEN.reshape.default, ATEN._unsafe_view.default, ATEN.view_copy.default)
    for a, b, note in (_VIEWS if op is ATEN.view.default else _VIEWS[:2])
] + [
    Case(ATEN.view.default, (t(4, 6), [6, 4]), note="boundaries that do not nest",
         fixed={"self": (0, 1)}, because="too rare to be split further"),
    Case(ATEN.view_as.default, (t(12, 5), t(3, 4, 5))),
    Case(ATEN.reshape_as.default, (t(3, 4, 5), t(12, 5))),
    Case(ATEN.reshape_as.default, (t(3, 4), t(3, 4)), note="identity"),
    Case(ATEN.view.dtype, (t(3, 4), torch.float32), note="bits of another type",
         fixed={"self": (0, 1)}, because="the bytes of a number are no units"),
]  # fmt: skip

PERMUTE = [
    Case(ATEN.permute.default, (t(2, 3, 4), [2, 0, 1])),
    Case(ATEN.permute.default, (t(2, 3, 4), [0, -1, 1]), note="negative"),
    Case(ATEN.transpose.int, (t(2, 3, 4), 0, -1)),
    Case(ATEN.t.default, (t(2, 3),)),
    Case(ATEN.t.default, (t(3),), note="a vector"),
    Case(ATEN.movedim.int, (t(2, 3, 4, 5), 1, -1)),
    Case(ATEN.movedim.intlist, (t(2, 3, 4, 5), [3, 0], [0, 1]), note="several"),
    Case(ATEN.unsqueeze.default, (t(2, 3), 1)),
    Case(ATEN.unsqueeze.default, (t(2, 3), -1), note="at the end"),
    Case(ATEN.squeeze.default, (t(2, 1, 3, 1),)),
    Case(ATEN.squeeze.dim, (t(2, 1, 3, 1), 1), note="one"),
    Case(ATEN.squeeze.dim, (t(2, 3), 0), note="not of size 1"),
    Case(ATEN.squeeze.dims, (t(2, 1, 3, 1), [1, -1]), note="two"),
]

EXPAND = [
    Case(ATEN.expand.default, (t(3, 1), [2, 3, 4])),
    Case(ATEN.expand.default, (t(1, 3), [-1, -1]), note="as it is"),
    Case(ATEN.broadcast_to.default, (t(3, 1), [2, 3, 4])),
    Case(ATEN.expand_as.default, (t(3, 1), t(2, 3, 4))),
    Case(ATEN.copy.default, (t(2, 3, 4), t(3, 1))),
    Case(ATEN.repeat.default, (t(3, 4), [2, 1])),
    Case(ATEN.repeat.default, (t(3, 4), [2, 3, 2]), note="with a new dimension"),
    Case(ATEN.repeat.default, (t(3, 4), [1, 1]), note="once"),
    Case(ATEN.tile.default, (t(3, 4), [2, 1])),
    Case(ATEN.tile.default, (t(3, 4), [2]), note="fewer than dimensions"),
]

_x = (6, 5)
SLICE = [
    Case(ATEN.slice.Tensor, (t(*_x), 0, 1, 4)),
    Case(ATEN.slice.Tensor, (t(*_x), 0, 0, 2**63 - 1), note="all"),
    Case(ATEN.slice.Tensor, (t(*_x), 0, 0, 6, 2), note="strided"),
    Case(ATEN.slice.Tensor, (t(*_x), 1, -3, -1), note="negative"),
    Case(ATEN.slice.Tensor, (t(*_x), 1, 2, 3), note="one row"),
    Case(ATEN.select.int, (t(*_x), 0, 2)),
    Case(ATEN.select.int, (t(4, *_x), 1, -1), note="negative"),
    Case(ATEN.split.Tensor, (t(7, 5), 3)),
    Case(ATEN.split.sizes, (t(2, 7), [3, 4], 1), note="sizes"),
    Case(ATEN.split_with_sizes.default, (t(2, 7), [3, 1, 3], -1)),
    Case(ATEN.chunk.default, (t(7, 5), 2)),
    Case(ATEN.unbind.int, (t(3, 5, 2), 1)),
    Case(ATEN.slice_scatter.default, (t(6, 5), t(2, 5), 0, 1, 3)),
    Case(ATEN.slice_scatter.default, (t(6, 5), t(6, 2), 1, 0, 2), note="at the start"),
    Case(ATEN.slice_scatter.default, (t(6, 5), t(6, 5), 1), note="all"),
    Case(ATEN.slice_scatter.default, (t(6, 5), t(3, 5), 0, 0, 6, 2), note="strided"),
    Case(ATEN.select_scatter.default, (t(6, 5), t(5), 0, 2)),
    Case(ATEN.select_scatter.default, (t(2, 6), t(2), 1, -1), note="negative"),
]  # fmt: skip

CAT = [
    Case(ATEN.cat.default, ([t(2, 5), t(3, 5)],)),
    Case(ATEN.cat.default, ([t(5, 2), t(5, 3), t(5, 4)], -1), note="the last"),
    Case(ATEN.cat.default, ([t(0), t(3, 5)],), note="with nothing"),
    Case(ATEN.cat.default, ([t(1, 5), t(4, 5)],), note="one row before"),
    Case(ATEN.concat.default, ([t(2, 5), t(3, 5)],)),
    Case(ATEN.stack.default, ([t(3, 5), t(3, 5)],)),
    Case(ATEN.stack.default, ([t(3, 5), t(3, 5), t(3, 5)], -1), note="the last"),
]

REORDER = [
    Case(ATEN.roll.default, (t(5, 3), [2], [0])),
    Case(ATEN.roll.default, (t(5, 3), [1, -1], [0, -1]), note="two"),
    Case(ATEN.roll.default, (t(5, 3), [1]), note="flat", fixed={"self": (0, 1)}, because="crosses rows"),
    Case(ATEN.flip.default, (t(5, 3), [0, -1])),
    Case(ATEN.flip.default, (t(3, 4), []), note="no dimension"),
    Case(ATEN.constant_pad_nd.default, (t(3, 5), [1, 2])),
    Case(ATEN.constant_pad_nd.default, (t(2, 3, 5), [0, 0, 2, 1]), note="channels"),
    Case(ATEN.constant_pad_nd.default, (t(3, 5), [-1, -1]), note="negative",
         fixed={"self": (1,)}, because="cut away"),
    Case(ATEN.constant_pad_nd.default, (t(3, 5), [-1, 2], 1.0), note="both signs"),
    Case(ATEN.constant_pad_nd.default, (t(3, 5), [0, 0]), note="nothing"),
    Case(ATEN.unfold.default, (t(3, 6), 1, 3, 1), fixed={"self": (1,)}, because=SPACE),
]  # fmt: skip

CASES = [*VIEW, *PERMUTE, *EXPAND, *SLICE, *CAT, *REORDER]
