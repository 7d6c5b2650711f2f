"""Calls of operators that pick, write, sort and count by integers."""

from __future__ import annotations

import torch
from case import ATEN, PLACES, Case, ints, pos, t

CHOICE = [
    Case(ATEN.max.dim, (t(3, 4), 1, True)),
    Case(ATEN.min.dim, (t(3, 4), 0)),
    Case(ATEN.median.dim, (t(3, 4), 0)),
    Case(ATEN.mode.default, (t(3, 4), 0), fixed={"self": (0,)}, because=PLACES),
    Case(ATEN.argmax.default, (t(3, 4), 1)),
    Case(ATEN.argmax.default, (t(3, 4), 0, True), note="kept"),
    Case(ATEN.argmin.default, (t(3, 4),), note="flat", fixed={"self": (0, 1)}, because=PLACES),
    Case(ATEN.topk.default, (t(3, 5), 2)),
    Case(ATEN.topk.default, (t(2, 5, 3), 2, 1), note="in the middle"),
    Case(ATEN.sort.default, (t(3, 5), 1)),
    Case(ATEN.sort.stable, (t(3, 5),), {"stable": True, "dim": 0}, note="stable"),
    Case(ATEN.argsort.default, (t(3, 5), 0)),
]

_COMPARE = ("eq", "ne", "lt", "le", "gt", "ge")
COUNT = [
    Case(ATEN.histc.default, (pos(5), 4, 0, 1), fixed={"self": (0,)}, because="counts have no order"),
    Case(ATEN.bincount.default, (ints(0, 1, 1), pos(3)), fixed={"weights": (0,)}, because="rare"),
    Case(ATEN.nonzero.default, (pos(3, 2),), fixed={"self": (0, 1)}, because=PLACES),
    Case(
        ATEN.masked_select.default,
        (t(3, 2), ints(1, 1, 0)[:, None] > 0),
        fixed={"self": (0, 1)},
        because="rare",
    ),
    Case(ATEN.one_hot.default, (ints(0, 2, 1),)),
    *(
        Case(getattr(ATEN, n).Tensor, (t(3, 4), t(4)), note="two")
        for n in ("eq", "ne", "lt", "le", "gt", "ge")
    ),
    *(Case(getattr(ATEN, n).Scalar, (t(3, 4), 0.1), note="a number") for n in ("eq", "lt", "ge")),
]

_rows = torch.tensor([[0, 1, 1, 2], [2, 2, 3, 3]])
_points = ints(0, 1, 1, 2, 2, 2, 3, 3, 3, 3, 4, 4, 4, 4, 4)
_mask = torch.tensor([True, False, True, True])
_ONCE = {"self": (0, 1, 2), "values": (0,)}
_SAME = "an index known when tracing would permit more"
_down = torch.tensor([[0, 1, 2, 3], [4, 4, 0, 0]])
_WRITTEN = {"self": (0,), "source": (0,)}
_WHOLE = {"self": (0, 1), "src": (0, 1)}
INDEX = [
    Case(ATEN.index.Tensor, (t(4, 5), [_rows]), fixed=_ONCE, because=_SAME),
    Case(ATEN.index.Tensor, (t(3, 5, 4), [None, _points]), note="the second"),
    Case(ATEN.index.Tensor, (t(5, 5, 4), [_points, _points]), note="adjacent",
         fixed={"self": (0, 1)}, because=_SAME),
    Case(ATEN.index.Tensor, (t(5, 4, 5), [_points, None, _points]), note="not adjacent",
         fixed={"self": (0, 2)}, because=_SAME),
    Case(ATEN.index.Tensor, (t(2, 5, 4, 5), [None, _points, None, _points]), note="not adjacent, inside",
         fixed={"self": (1, 3)}, because=_SAME),
    Case(ATEN.index.Tensor, (t(4, 3), [_mask]), note="mask", fixed={"self": (0, 1)}, because=_SAME),
    Case(ATEN.index.Tensor, (t(3, 5, 4), [None, torch.tensor(2)]), note="a scalar",
         fixed={"self": (1,)}, because="never read"),
    Case(ATEN.index.Tensor, (t(5, 5, 4), [_points[:, None], _points]), note="crossed"),
    Case(ATEN._unsafe_index.Tensor, (t(3, 5, 4), [None, _points])),
    Case(ATEN.index_select.default, (t(3, 5), 1, _points)),
    Case(ATEN.index_select.default, (t(5, 3), -2, _points), note="negative"),
    Case(ATEN.index_put.default, (t(5, 3), [ints(1, 3)], t(2, 3)),
         fixed={"self": (0,), "values": (0,)}, because=_SAME),
    Case(ATEN.index_put.default, (t(5, 3), [ints(1, 3)], t(3)), note="one row",
         fixed={"self": (0,)}, because=_SAME),
    Case(ATEN.index_put.default, (t(3, 5), [None, ints(1, 3)], t()), note="one number",
         fixed={"self": (1,)}, because=_SAME),
    Case(ATEN._unsafe_index_put.default, (t(5, 3), [ints(1, 3)], t(2, 3)),
         fixed={"self": (0,), "values": (0,)}, because=_SAME),
    Case(ATEN.gather.default, (t(5, 4), 0, torch.tensor([[0, 1, 2, 3], [4, 4, 0, 0]])),
         fixed={"self": (0, 1)}, because=_SAME),
    Case(ATEN.gather.default, (t(5, 4), 0, _points[:, None].expand(15, 4)), note="alike for all"),
    Case(ATEN.gather.default, (t(5, 4), 0, torch.tensor([[0, 1], [4, 3]])), note="a part",
         fixed={"self": (0, 1)}, because=_SAME),
    Case(ATEN.index_put.default, (t(4, 3), [_mask], t()), note="a mask and a number",
         fixed={"self": (0,)}, because="alike under a fixed mask"),
    Case(ATEN.index_put.default, (t(4, 3), [_mask], t(3, 3)), note="a mask and rows",
         fixed={"self": (0, 1), "values": (0, 1)}, because=_SAME),
    Case(ATEN.index_add.default, (t(5, 3), 0, ints(1, 3, 3), t(3, 3)), fixed=_WRITTEN, because=_SAME),
    Case(ATEN.index_copy.default, (t(3, 5), 1, ints(1, 3), t(3, 2)),
         fixed={"self": (1,), "source": (1,)}, because=_SAME),
    Case(ATEN.scatter.src, (t(5, 4), 0, _down, t(2, 4)), fixed=_WHOLE, because=_SAME),
    Case(ATEN.scatter.value, (t(5, 4), 0, _down, 1.0), fixed=_WHOLE, because=_SAME, note="one number"),
    Case(ATEN.scatter.src, (t(5, 4), 0, _down[:1, :2], t(2, 4)), fixed=_WHOLE, because=_SAME, note="a part"),
    Case(ATEN.scatter_add.default, (t(5, 4), 0, _down, t(2, 4)), fixed=_WHOLE, because=_SAME),
    Case(ATEN.scatter_add.default, (t(3, 5), 1, _rows[:1, :2].expand(3, 2), t(3, 2)), note="the same for all",
         fixed={"self": (1,), "src": (1,)}, because=_SAME),
    Case(ATEN.scatter_reduce.two, (t(5, 4), 0, _down, t(2, 4), "amax"), fixed=_WHOLE, because=_SAME),
]  # fmt: skip

CASES = [*CHOICE, *COUNT, *INDEX]
