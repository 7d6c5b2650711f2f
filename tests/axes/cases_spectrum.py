"""Calls of complex numbers, Fourier transforms, diagonals, distances and masks."""

from __future__ import annotations

import torch
from case import ATEN, SPACE, Case, t

_rows = torch.tensor([[True, False, True], [False, True, False]])[..., None]
TAKEN = "which are taken is data"
PARTS = "real and imaginary part"
_complex = torch.complex(t(3, 4, 5), t(3, 4, 5))

CASES = [
    Case(ATEN.complex.default, (t(3, 4), t(3, 4))),
    Case(ATEN.complex.default, (t(3, 4), t(4)), note="broadcast"),
    Case(ATEN.polar.default, (t(3, 4), t(3, 4))),
    Case(ATEN.view_as_real.default, (_complex,), fixed={"out0": (3,)}, because=PARTS),
    Case(ATEN.view_as_complex.default, (t(3, 4, 2),), fixed={"self": (2,)}, because=PARTS),
    Case(ATEN._fft_c2c.default, (_complex, [1], 0, True), fixed={"self": (1,), "out0": (1,)}, because=SPACE),
    Case(ATEN._fft_c2c.default, (_complex, [0, 2], 0, False), note="of two",
         fixed={"self": (0, 2), "out0": (0, 2)}, because=SPACE),
    Case(ATEN._fft_r2c.default, (t(3, 4, 5), [1], 0, True), fixed={"self": (1,), "out0": (1,)},
         because=SPACE),
    Case(ATEN._fft_c2r.default, (_complex, [2], 0, 8), fixed={"self": (2,), "out0": (2,)}, because=SPACE),
    Case(ATEN.diagonal.default, (t(3, 4, 4), 0, 1, 2), fixed={"self": (1, 2), "out0": (1,)},
         because="too rare for a rule"),
    Case(ATEN.diagonal.default, (t(4, 3, 5), 1, 0, -1), note="beside", fixed={"self": (0, 2), "out0": (1,)},
         because="too rare for a rule"),
    Case(ATEN._cdist_forward.default, (t(2, 3, 5), t(2, 4, 5), 2.0, None)),
    Case(ATEN._cdist_forward.default, (t(3, 5), t(4, 5), 1.0, None), note="of sums"),
    Case(ATEN.masked_scatter.default, (t(2, 3, 5), _rows.expand(2, 3, 5), t(3, 5)),
         fixed={"self": (0, 1), "source": (0,), "out0": (0, 1)}, because=TAKEN),
    Case(ATEN.masked_scatter.default, (t(2, 3, 5), _rows, t(3, 5)), note="broadcast",
         fixed={"self": (0, 1), "source": (0,), "out0": (0, 1)}, because=TAKEN),
    Case(ATEN.masked_scatter.default, (t(2, 5), t(2, 5) > 0, t(3, 5)), note="elements",
         fixed={"self": (0, 1), "source": (0, 1), "out0": (0, 1)}, because=TAKEN),
    Case(ATEN._euclidean_dist.default, (t(3, 5), t(4, 5))),
]  # fmt: skip
