"""Complex numbers and Fourier transforms."""

from __future__ import annotations

from graphmerge.axes.registry import RULES, Call
from graphmerge.axes.units import Value

_LETTERS = "abcdefgh"

RULES.texts(
    {
        "aten.complex": "..., ... -> ...",
        "aten.polar": "..., ... -> ...",
        "aten.view_as_complex": "... z -> ... | z",
        "aten.view_as_real": "... -> ... z | z",
    }
)


@RULES.rule("aten._fft_c2c", "aten._fft_c2r", "aten._fft_r2c")
def fourier(call: Call) -> list[Value]:
    """_fft_c2c(self, SymInt[] dim, ...): along ``dim`` positions become frequencies, of another number"""
    x: Value = call["self"]
    axes = {d % x.rank for d in call["dim"]}
    before = [f"x{k}" if k in axes else _LETTERS[k] for k in range(x.rank)]
    after = [f"y{k}" if k in axes else _LETTERS[k] for k in range(x.rank)]
    fixed = " ".join(f"x{k} y{k}" for k in axes)
    return call.relate(f"{' '.join(before)} -> {' '.join(after)} | {fixed}", x)


@RULES.rule("aten.diagonal")
def diagonal(call: Call) -> list[Value]:
    """diagonal(self, int offset, int dim1, int dim2): both dimensions are read at the same positions"""
    x: Value = call["self"]
    pair = {call["dim1"] % x.rank, call["dim2"] % x.rank}
    before = [f"x{k}" if k in pair else _LETTERS[k] for k in range(x.rank)]
    kept = [c for k, c in enumerate(before) if k not in pair]
    fixed = " ".join(f"x{k}" for k in pair)
    return call.relate(f"{' '.join(before)} -> {' '.join(kept)} y | {fixed} y", x)
