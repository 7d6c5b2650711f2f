"""Every rule against the real operator: it claims nothing false and misses nothing."""

from __future__ import annotations

import json
from collections.abc import Callable
from itertools import product
from pathlib import Path

import pytest
import torch
from case import ATEN, Case, t
from cases import CASES, WITHOUT_CASE
from torch._ops import OpOverload

from graphmerge.axes import RULES, Call, Registry, Value
from graphmerge.axes.units import ANY
from graphmerge.symmetry.check import Fibres, check_call
from models_zoo.architectures import ARCHITECTURES
from models_zoo.sweep import fast


@pytest.mark.parametrize("case", CASES, ids=str)
def test_the_rule_claims_nothing_false_and_misses_nothing(case: Case) -> None:
    assert check_call(case.op, case.args, case.kwargs, fixed=case.fixed) == []


@pytest.mark.parametrize("case", CASES, ids=str)
@pytest.mark.parametrize("order", ["inwards", "outwards"])
def test_the_rule_claims_nothing_false_of_fibred_arguments(case: Case, order: Fibres) -> None:
    assert check_call(case.op, case.args, case.kwargs, fibred=order) == []


def test_case_names_are_unique() -> None:
    names = [str(c) for c in CASES]
    assert sorted(set(names)) == sorted(names)


def test_every_exception_states_its_reason() -> None:
    assert [str(c) for c in CASES if bool(c.fixed) != bool(c.because)] == []


def test_every_registered_operator_has_a_case_or_a_reason() -> None:
    covered = {c.name for c in CASES}
    assert set(RULES.names()) - covered - set(WITHOUT_CASE) == set()


def test_a_rule_without_a_case_is_reached_by_a_network_that_the_tests_run() -> None:
    """Unless it has no values to compare, being random or undefined, or is the rule of another operator."""
    rows = json.loads((Path(__file__).parents[2] / "COVERAGE.json").read_text())
    run = {*fast(), *ARCHITECTURES}
    reached = {op for r in rows if r["name"] in run for op in r.get("operators", ())}
    silent = ("two runs differ", "its values are not defined", "returns no tensor", "has no kernel")
    assert {n for n, why in WITHOUT_CASE.items() if not why.startswith(silent)} - reached == set()


def test_no_reason_is_stale() -> None:
    assert set(WITHOUT_CASE) & {c.name for c in CASES} == set()
    assert set(WITHOUT_CASE) <= set(RULES.names())


def _elementwise() -> list[OpOverload]:
    """Overloads that torch tags as pointwise and that take one to three tensors and nothing else."""
    found = []
    for name in sorted(dir(torch.ops.aten)):
        packet = getattr(torch.ops.aten, name)
        for overload in packet.overloads() if isinstance(packet, torch._ops.OpOverloadPacket) else ():
            op = getattr(packet, overload)
            needed = [a for a in op._schema.arguments if not a.has_default_value()]
            pure = not op._schema.is_mutable and all(str(a.type) == "Tensor" for a in needed)
            if torch.Tag.pointwise in op.tags and pure and 1 <= len(needed) <= 3:
                found.append(op)
    return found


@pytest.mark.parametrize("op", _elementwise(), ids=str)
def test_operators_tagged_as_pointwise_are_elementwise(op: OpOverload) -> None:
    count = sum(not a.has_default_value() for a in op._schema.arguments)
    args = [
        torch.rand(3, 4, generator=torch.Generator().manual_seed(k), dtype=torch.float64)
        for k in range(count)
    ]
    try:
        first, second = op(*args), op(*args)
    except (RuntimeError, NotImplementedError, IndexError, TypeError) as error:
        pytest.skip(f"takes no such tensors: {str(error).splitlines()[0]}")
    if not all(map(torch.equal, *((x if isinstance(x, tuple) else (x,)) for x in (first, second)))):
        pytest.skip("is random")
    assert check_call(op, args, fixed={"out0": ()}) == []


def _wrong(name: str, text: str, groups: str = "") -> Registry:
    """A registry with one rule text; ``groups`` names the argument that gives the size of ``g``."""
    registry = Registry()

    def rule(call: Call) -> list[Value]:
        return call.relate(text, *call.tensors(), g=call[groups] if groups else 1)

    registry.add(name, rule)
    return registry


def _ignored(call: Call) -> list[Value]:
    """Every dimension of the argument its own, and the output constant."""
    call.grid(call["self"])
    return [Value(name, shape, [ANY] * len(shape)) for name, shape in call.outputs]


def _function(name: str, function: Callable[[Call], list[Value]]) -> Registry:
    registry = Registry()
    registry.add(name, function)
    return registry


_ONE = [1, 1], [0, 0], [1, 1]
_X, _W = t(2, 3, 4, 5), t(6, 3, 2, 2)
_Q = t(2, 3, 5, 7)
FALSE_RULES = {
    "space is free in a convolution": (
        _wrong("aten.conv2d", "n i h w, o i p q -> n o h w | p q"), ATEN.conv2d.padding,
        (_X, t(6, 3, 3, 3), None, [1, 1], "same", [1, 1], 1),
    ),
    "groups are ignored in a convolution": (
        _wrong("aten.conv2d", "n (g i) h w, o i p q -> n o y x | h w p q y x", "groups"), ATEN.conv2d.default,
        (t(2, 6, 4, 5), t(4, 3, 2, 2), None, *_ONE, 2),
    ),
    "the halves of glu are one free axis": (
        _wrong("aten.glu", "n c -> n d | d"), ATEN.glu.default, (t(3, 8),),
    ),
    "each half of glu has an order of its own": (
        _function("aten.glu", lambda c: [Value(*c.outputs[0], c.grid(c["self"]).labels and [ANY, ANY])]),
        ATEN.glu.default, (t(3, 8),),
    ),
    "cumsum runs along a free axis": (_wrong("aten.cumsum", "a b -> a b"), ATEN.cumsum.default, (t(3, 5), 1)),
    "softmax is contracted": (_wrong("aten.softmax", "a b -> a c | c"), ATEN.softmax.int, (t(3, 5), 1)),
    "the axes of a transposed convolution are swapped": (
        _wrong("aten.conv_transpose2d", "n i h w, o i p q -> n o y x | h w p q y x"),
        ATEN.conv_transpose2d.input, (t(2, 3, 4, 5), t(3, 3, 2, 2)),
    ),
    "group_norm has no groups": (
        _wrong("aten.group_norm", "n c ..., c?, c? -> n c ..."), ATEN.group_norm.default,
        (t(2, 6, 4), 3, t(6), t(6)),
    ),
    "a view links nothing": (_function("aten.view", _ignored), ATEN.view.default, (t(12), [3, 4])),
    "matmul contracts the wrong axis": (
        _wrong("aten.matmul", "k n, k m -> n m"), ATEN.matmul.default, (t(5, 5), t(5, 5)),
    ),
    "heads of queries, keys and values are free of one another": (
        _wrong("aten.scaled_dot_product_attention", "b h s d, b i t d, b j t v -> b h s v"),
        ATEN.scaled_dot_product_attention.default, (_Q, t(2, 3, 6, 7), t(2, 3, 6, 4)),
    ),
    "dimensions of queries and keys are free of one another": (
        _wrong("aten.scaled_dot_product_attention", "b h s d, b h t e, b h t v -> b h s v"),
        ATEN.scaled_dot_product_attention.default, (_Q, t(2, 3, 6, 7), t(2, 3, 6, 4)),
    ),
    "positions are free under a causal mask": (
        _wrong("aten.scaled_dot_product_attention", "b h s d, b h t d, b h t v -> b h s v"),
        ATEN.scaled_dot_product_attention.default, (_Q, _Q, _Q, None, 0.0, True),
    ),
    "the bias of a linear map is left out": (
        _wrong("aten.linear", "n i, o i, p -> n o"), ATEN.linear.default, (t(3, 5), t(7, 5), t(7)),
    ),
    "the order of rows may vary along the axis of a norm": (
        _wrong("aten.layer_norm", "n s c, c -> n s c"), ATEN.layer_norm.default, (t(2, 3, 5), [5], t(5)),
    ),
    "rows may come in any order out of an embedding": (
        _wrong("aten.embedding", "v d, ... -> ... d"), ATEN.embedding.default,
        (t(5, 3), torch.tensor([[0, 1, 1, 2]])),
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", FALSE_RULES)
def test_a_false_rule_is_caught(name: str) -> None:
    registry, op, args = FALSE_RULES[name]
    complaints = check_call(op, args, registry=registry)
    assert any(c.startswith("false") for c in complaints), complaints


STRICT_RULES = {
    "a linear map fixes its output": (
        _wrong("aten.linear", "n i, o i -> n o | o"), ATEN.linear.default, (t(3, 5), t(7, 5)),
    ),
    "a linear map fixes its input": (
        _wrong("aten.linear", "n i, o i -> n o | i"), ATEN.linear.default, (t(3, 5), t(7, 5)),
    ),
    "softmax fixes its axis": (_wrong("aten.softmax", "a b -> a b | b"), ATEN.softmax.int, (t(3, 5), 1)),
    "everything is fixed": (
        _function("aten.relu", lambda call: call.fix_all("unknown")), ATEN.relu.default, (t(3, 4),),
    ),
    "glu moves its halves in blocks only": (
        _wrong("aten.glu", "n (2 c) -> n c | c"), ATEN.glu.default, (t(3, 8),),
    ),
    "a reduction fixes what it sums": (
        _wrong("aten.sum", "a b -> a | b"), ATEN.sum.dim_IntList, (t(3, 4), [1]),
    ),
    "the channels of a convolution are fixed": (
        _wrong("aten.conv2d", "n i h w, o i p q -> n o y x | i h w p q y x"), ATEN.conv2d.default, (_X, _W),
    ),
    "the groups of a convolution are fixed": (
        _wrong("aten.conv2d", "n (2 i) h w, (2 o) i p q -> n (2 o) y x | h w p q y x"), ATEN.conv2d.default,
        (t(3, 6, 5, 5), t(4, 3, 3, 3), None, *_ONE, 2),
    ),
    "a transposition fixes what it moves": (
        _function("aten.t", lambda call: call.fix_all("unknown")), ATEN.t.default, (t(3, 4),),
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", STRICT_RULES)
def test_a_rule_that_is_too_strict_is_caught(name: str) -> None:
    registry, op, args = STRICT_RULES[name]
    space = {"input": (2, 3), "weight": (2, 3), "out0": (2, 3)} if "conv" in name else {}
    complaints = check_call(op, args, registry=registry, fixed=space)
    assert any(c.startswith("missed") for c in complaints), complaints
    assert not any(c.startswith("false") for c in complaints), complaints


def test_an_operator_without_a_rule_is_a_complaint() -> None:
    assert check_call(ATEN.linear.default, (t(3, 5), t(7, 5)), registry=Registry()) == [
        "aten.linear has no rule"
    ]


def test_two_draws_of_a_seed_are_alike() -> None:
    registry, op, args = next(iter(FALSE_RULES.values()))
    assert check_call(op, args, registry=registry, seed=1) == check_call(op, args, registry=registry, seed=1)


@pytest.mark.parametrize(("mean", "dims"), product((True, False), ([0], [1])), ids=str)
def test_a_reduction_leaves_the_kept_dimension_free(mean: bool, dims: list[int]) -> None:
    op = ATEN.mean.dim if mean else ATEN.sum.dim_IntList
    assert check_call(op, (t(3, 4), dims)) == []
