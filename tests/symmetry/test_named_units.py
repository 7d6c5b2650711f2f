"""Integers that name units: however a network uses them, what it tells apart stays, and nothing else."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
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
    inputs = 3 * torch.randn(48, rows or 5, 6, dtype=torch.float64)
    inputs += 2 * model.score.weight[torch.arange(48) % units, None]  # type: ignore[index, operator, union-attr]
    before = [model(x) for x in inputs]
    for seed in range(2):
        moved = graph.random_transform(seed).apply(model.state_dict())
        for x, y in zip(inputs, before, strict=True):
            torch.testing.assert_close(torch.func.functional_call(model, moved, (x,)), y)
    return sum(g.size for g in graph.groups)


USED: dict[str, tuple[Use, int]] = {
    "told from the others": (lambda i, _: i == 3, UNITS - 1),
    "all before": (lambda i, _: i < 3, UNITS),
    "in range": (lambda i, _: (i >= 0) & (i < UNITS), UNITS),
    "compared with what rounds to it": (lambda i, _: i.float() == 3 + 1e-9, UNITS - 1),
    "as a truth value": (lambda i, _: i.bool(), UNITS - 1),
    "as a truth value that is counted": (lambda i, _: i.to(torch.bool).long() == 1, UNITS - 1),
    "of a narrow type": (lambda i, _: i.to(torch.int8) == 3, UNITS - 1),
    "picks a row": (lambda i, m: m.row(i), UNITS),
    "picks by a float and back": (lambda i, m: m.vector.index_select(0, i.float().long().view(-1)), UNITS),
    "compared with all": (lambda i, m: (i[..., None] == torch.arange(UNITS)) * m.vector @ m.vector, UNITS),
    "the next": (lambda i, _: i + 1 == 3, 0),
    "a number": (lambda i, m: i.double() * m.vector[0], 0),
    "the next picks a row": (lambda i, m: m.row((i + 1) % UNITS), 0),
    "the largest": (lambda i, _: i.amax(-1, keepdim=True) == 3, 0),
    "sorted": (lambda i, _: i.view(-1).sort()[0][:1] == 3, 0),
    "summed up": (lambda i, _: i.view(-1).cumsum(0)[:1] == 3, 0),
    "written elsewhere": (
        lambda i, _: torch.arange(7).index_put((torch.tensor([2]),), i.view(-1)[:1])[2:3],
        0,
    ),
    "one of them": (lambda i, _: i.view(-1)[torch.tensor([0])] == 3, UNITS - 1),
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


def test_a_number_read_out_of_a_tensor_is_a_mere_number() -> None:
    assert moving(lambda i, m: m.vector[i], None) == 0
    assert moving(lambda i, m: m.vector.roll(i.item())[:1], None) == 0


TABLES: dict[str, tuple[Callable[[], Tensor], int]] = {
    "as it is": (lambda: torch.arange(UNITS), UNITS - 1),
    "laid otherwise": (lambda: torch.arange(UNITS)[None].clone().view(UNITS, 1).t(), UNITS - 1),
    "of another type": (lambda: torch.arange(UNITS).to(torch.int8).double(), UNITS - 1),
    "flipped": (lambda: torch.arange(UNITS).flip(0), 0),
    "rolled": (lambda: torch.arange(UNITS).roll(1), 0),
    "flipped and laid otherwise": (lambda: torch.arange(UNITS)[None].flip(1).view(UNITS), 0),
    "transposed": (lambda: torch.arange(UNITS).view(2, -1).t().reshape(UNITS), 0),
    "pieces": (lambda: torch.cat([torch.arange(UNITS)[4:], torch.arange(UNITS)[:4]]), 0),
    "picked": (lambda: torch.arange(UNITS)[torch.tensor([1, 0, 2, 3, 4, 5, 6, 7])], 0),
    "every second": (lambda: torch.arange(2 * UNITS)[::2], 0),
    "sorted downwards": (lambda: torch.arange(UNITS).sort(descending=True)[0], 0),
    "truth values": (lambda: torch.arange(UNITS).bool(), 0),
    "read as another type": (lambda: torch.arange(UNITS).view(torch.float64), 0),
}


@pytest.mark.parametrize("table", TABLES)
def test_columns_are_units_only_where_they_are_numbered_in_order(table: str) -> None:
    numbers, expected = TABLES[table]
    assert moving(lambda i, _: (i[:, None] == numbers()).view(-1, UNITS)[:, 3], 5) == expected


@pytest.mark.parametrize("table", ["flipped", "rolled"])
def test_a_permuted_identity_matrix_has_rows_and_columns_in_two_orders(table: str) -> None:
    numbers = TABLES[table][0]
    model = Small(
        lambda m, x: m.b(torch.relu(m.a(x) @ (m.w * (torch.arange(UNITS)[:, None] == numbers())))),
        a=linear(6, UNITS), b=linear(UNITS, 2), w=torch.randn(UNITS, UNITS),
    )  # fmt: skip
    assert gm.trace(model, (torch.randn(5, 6),), strict=True).groups == ()


def test_constants_are_known_as_their_type_holds_them() -> None:
    order = torch.tensor([0, 2, 3, 1])
    picked = Small(lambda m, x: m.b(m.a(x).relu()[:, order.bool().long()]), a=linear(6, 4), b=linear(4, 2))
    assert gm.trace(picked, (torch.randn(5, 6),), strict=True).groups == ()


def test_what_is_not_written_once_to_each_place_is_no_inverse() -> None:
    def run(m: nn.Module, x: Tensor) -> Tensor:
        places = m.score(x).sum(0).long() % 64
        out: Tensor = m.out(torch.zeros(64).long().index_copy(0, places, torch.arange(UNITS)))
        return out

    model = Small(run, score=linear(6, UNITS), out=nn.Embedding(UNITS, 3))
    assert not [g for g in gm.trace(model, (torch.randn(5, 6),)).groups if ("out.weight", 0) in g.members]


def test_a_table_is_numbered_as_far_as_its_type_holds_the_numbers() -> None:
    def one_hot(dtype: torch.dtype) -> Use:
        return lambda i, m: (i[:, None] == torch.arange(260, dtype=dtype)) * m.vector @ m.vector

    assert moving(one_hot(torch.float16), 5, 260) == 260
    assert moving(one_hot(torch.bfloat16), 5, 260) == 0


def _ends(counts: Tensor) -> Tensor:
    return counts.cumsum(0, dtype=torch.int32)


SERVED: dict[str, tuple[bool, Callable[[Tensor], Tensor], bool]] = {
    "in order": (False, _ends, True),
    "laid otherwise": (False, lambda c: _ends(c[None].view(-1, 1).squeeze(1)), True),
    "downwards": (True, _ends, False),
    "counts flipped": (False, lambda c: _ends(c.flip(0)), False),
    "counts transposed": (False, lambda c: _ends(c.view(2, 2).t().reshape(4)), False),
    "ends flipped": (False, lambda c: _ends(c).flip(0), False),
    "ends rounded": (False, lambda c: _ends(c).to(torch.int8).to(torch.int32), False),
    "ends rounded as they are made": (False, lambda c: c.cumsum(0, dtype=torch.int8).to(torch.int32), False),
}


@pytest.mark.parametrize("served", SERVED)
def test_experts_move_where_the_ends_are_those_of_the_tokens_sorted(served: str) -> None:
    downwards, ends, expected = SERVED[served]

    def run(m: nn.Module, x: Tensor) -> Tensor:
        ids, order = m.score(x).argmax(-1).sort(descending=downwards)
        counts = torch.histc(ids.float(), 4, 0, 3)
        out = torch.ops.aten._grouped_mm(x[order].bfloat16(), m.experts.bfloat16(), ends(counts))
        return torch.zeros(7, 8).index_add(0, order, out.float())

    model = Small(run, score=linear(8, 4), experts=torch.randn(4, 8, 8))
    graph = gm.trace(model, (torch.randn(7, 8),), strict=True)
    assert [g.size for g in graph.groups] == ([4] if expected else [])
