"""Writing to the places that a mask points out."""

from __future__ import annotations

from graphmerge.axes.registry import RULES, Call
from graphmerge.axes.units import ANY, FIXED, Value


@RULES.rule("aten.masked_scatter")
def masked_scatter(call: Call) -> list[Value]:
    """masked_scatter(self, mask, source): elements of ``source``, one after the other, where the mask is true

    A mask that is the same all along the last dimension takes whole rows: then that dimension goes
    through. Which rows are taken is data.
    """
    x, mask, source = call["self"], call["mask"], call["source"]
    grid = call.grid(mask)
    rows = mask.rank == x.rank >= 2 and grid.labels[-1] is ANY
    if not rows or source.rank < 2 or source.shape[-1] != x.shape[-1]:
        return call.fix_all("elements are written one after the other")
    for axis, labels in enumerate(grid.labels[:-1]):
        call.u.tie(labels, FIXED, axis)
    lead = [f"a{k}" for k in range(x.rank - 1)]
    taken = [f"b{k}" for k in range(source.rank - 1)]
    text = f"{' '.join(lead)} c, {' '.join(taken)} c -> {' '.join(lead)} c | {' '.join(lead + taken)}"
    return call.relate(text, x, source)
