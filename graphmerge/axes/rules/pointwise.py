"""Elementwise operators that torch does not tag as such."""

from __future__ import annotations

from graphmerge.axes.registry import RULES, Call
from graphmerge.axes.units import Value

_SAME = (
    "alias",
    "alias_copy",
    "clone",
    "contiguous",
    "detach",
    "detach_copy",
    "lift_fresh_copy",
)
_OTHER = ("_conj", "_neg_view", "dropout", "feature_dropout", "hardswish", "imag", "log_sigmoid", "real")

RULES.texts({f"aten.{name}": "... -> ..." for name in _OTHER})
RULES.texts({"aten.native_dropout": "... -> ..., ..."})


@RULES.rule(*(f"aten.{name}" for name in _SAME), integers="carry")
def same(call: Call) -> list[Value]:
    """clone(self): the same numbers"""
    (x,) = call.tensors()
    results = call.relate("... -> ...", x)
    results[0].known = x.known
    return results


@RULES.rule("aten.prelu", "aten._prelu_kernel")
def prelu(call: Call) -> list[Value]:
    """prelu(self [n, c, ...], weight [c] or [1])"""
    x, weight = call["self"], call["weight"]
    if weight.rank == x.rank:
        return call.relate("..., ... -> ...", x, weight)
    text = "n c ..., c -> n c ..." if x.rank > 1 else "c, c -> c"
    return call.relate(text, x, weight)


@RULES.rule("aten.glu")
def glu(call: Call) -> list[Value]:
    """glu(self, int dim): the first half, gated by the second"""
    x: Value = call["self"]
    axis = call["dim"] % x.rank
    letters = list("abcdefgh"[: x.rank])
    halves = [*letters[:axis], f"(2 {letters[axis]})", *letters[axis + 1 :]]
    return call.relate(f"{' '.join(halves)} -> {' '.join(letters)}", x)
