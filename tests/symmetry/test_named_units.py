"""Integers that name units: however a network uses them, what it tells apart stays, and nothing else."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from parts import Small, linear
from torch import Tensor, nn

import graphmerge as gm

UNITS = 8
Use = Callable[[Tensor, nn.Module], Tensor]


def moving(use: Use, rows: int | None, units: int = UNITS) -> int:
    """How many of the units may change places, seen on inputs that choose each of them.

    ``use`` makes something of the units chosen, one for each of ``rows`` inputs or one for all (None).
    """

    def run(m: nn.Module, x: Tensor) -> Tensor:
        scores: Tensor = m.score(x).softmax(-1)
        chosen = (scores.mean(0) if rows is None else scores).argmax(-1)
        out: Tensor = m.out(scores) + use(chosen, m).to(x).reshape(-1, 1)
        return out

    torch.manual_seed(0)
    model = Small(
        run,
        score=linear(6, units),
        out=linear(units, 3),
        row=nn.Embedding(units, 1),
        vector=torch.randn(units),
    ).double()
    graph = gm.trace(model, (torch.randn(rows or 5, 6, dtype=torch.float64),), strict=True)
    inputs = 3 * torch.randn(200, rows or 5, 6, dtype=torch.float64)
    inputs += 2 * model.score.weight[torch.arange(200) % units, None]  # type: ignore[index, operator, union-attr]
    before = [model(x) for x in inputs]
    for seed in range(3):
        moved = graph.random_transform(seed).apply(model.state_dict())
        for x, y in zip(inputs, before, strict=True):
            torch.testing.assert_close(torch.func.functional_call(model, moved, (x,)), y)
    return sum(g.size for g in graph.groups)


USED: dict[str, tuple[Use, int]] = {
    "told from the others": (lambda i, m: i == 3, UNITS - 1),
    "not that one": (lambda i, m: i != 3, UNITS - 1),
    "all before": (lambda i, m: i < 3, UNITS),
    "in range": (lambda i, m: (i >= 0) & (i < UNITS), UNITS),
    "compared with what rounds to it": (lambda i, m: i.float() == 3 + 1e-9, UNITS - 1),
    "as a truth value": (lambda i, m: i.bool(), UNITS - 1),
    "as a truth value that is counted": (lambda i, m: i.to(torch.bool).long() == 1, UNITS - 1),
    "of a narrow type": (lambda i, m: i.to(torch.int8) == 3, UNITS - 1),
    "picks a row": (lambda i, m: m.row(i), UNITS),
    "picks an entry": (lambda i, m: m.vector[i], UNITS),
    "picks by a float and back": (lambda i, m: m.vector.index_select(0, i.float().long().view(-1)), UNITS),
    "one-hot": (lambda i, m: F.one_hot(i, UNITS) * m.vector @ m.vector, UNITS),
    "compared with all": (lambda i, m: (i[..., None] == torch.arange(UNITS)) * m.vector @ m.vector, UNITS),
    "the next": (lambda i, m: i + 1 == 3, 0),
    "odd": (lambda i, m: i % 2, 0),
    "a number": (lambda i, m: i.double() * m.vector[0], 0),
    "the next picks a row": (lambda i, m: m.vector[(i + 1) % UNITS], 0),
    "the largest": (lambda i, m: i.amax(-1, keepdim=True) == 3, 0),
}


@pytest.mark.parametrize("rows", [5, 1, None], ids=["five inputs", "one input", "one for all"])
@pytest.mark.parametrize("use", USED)
def test_what_is_told_apart_stays_however_many_are_chosen(use: str, rows: int | None) -> None:
    run, expected = USED[use]
    assert moving(run, rows) == expected


CASTS = [
    (torch.int8, 128, 128), (torch.int8, 130, 0), (torch.uint8, 256, 256), (torch.uint8, 257, 0),
    (torch.bfloat16, 257, 257), (torch.bfloat16, 258, 0), (torch.float16, 300, 300), (torch.int16, 300, 300),
]  # fmt: skip


@pytest.mark.parametrize(("dtype", "units", "expected"), CASTS, ids=str)
def test_a_type_names_as_many_units_as_it_holds(dtype: torch.dtype, units: int, expected: int) -> None:
    assert moving(lambda i, m: m.vector[i.to(dtype).long()], 5, units) == expected
