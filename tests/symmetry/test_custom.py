"""Operators of a user's own: fixed without a rule, free as far as a checked rule says."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

import graphmerge as gm
from graphmerge.axes import RULES, Call, Value


def operator(name: str, run: Callable[[Tensor], Tensor]) -> torch.library.CustomOpDef:
    """``run`` under a name that no table holds."""
    made = torch.library.custom_op(f"gm_test::{name}", run, mutates_args=(), schema="(Tensor x) -> Tensor")
    made.register_fake(torch.empty_like)
    return made


@pytest.fixture(autouse=True)
def _rules_of_their_own(monkeypatch: pytest.MonkeyPatch) -> None:
    """Rules stated here are gone after each test."""
    monkeypatch.setattr(RULES, "_rules", dict(RULES._rules))


def bent(x: Tensor) -> Tensor:
    return x + torch.tanh(x)


EXAMPLE = (torch.randn(3, 5, dtype=torch.float64),)


class Net(nn.Module):
    def __init__(self, middle: torch.library.CustomOpDef) -> None:
        super().__init__()
        self.one, self.two, self.middle = nn.Linear(6, 9), nn.Linear(9, 4), middle

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.two(self.middle(self.one(x)))
        return out


def groups(middle: torch.library.CustomOpDef) -> list[str]:
    model = Net(middle)
    graph = gm.trace(model, (torch.randn(3, 6),))
    assert gm.verify(graph, model).passed
    return [g.name for g in graph.groups]


def test_a_rule_as_text_is_taken_instead_of_trying_the_operator_out() -> None:
    middle = operator("elementwise", bent)
    assert gm.trace(Net(middle), (torch.randn(3, 6),)).probed
    gm.rule("gm_test.elementwise", "... -> ...")
    assert gm.check_rule(torch.ops.gm_test.elementwise.default, EXAMPLE) == []
    assert groups(middle) == ["one"]
    assert not gm.trace(Net(middle), (torch.randn(3, 6),)).probed
    with pytest.raises(ValueError, match="has a rule already"):
        gm.rule("gm_test.elementwise", "... -> ...")


def test_a_rule_frees_what_trying_out_does_not_see() -> None:
    """Each of 3 blocks of 3 is normalised: blocks may change places, and units within each."""
    middle = operator("blocks", lambda x: x.unflatten(-1, (3, 3)).softmax(-1).flatten(-2))
    assert groups(middle) == []

    @gm.rule("gm_test.blocks")
    def blocks(call: Call) -> list[Value]:
        return call.relate("b (g c) -> b (g c)", *call.tensors(), g=3)

    assert groups(middle) == ["one.blocks", "one"]


def test_a_rule_as_function() -> None:
    middle = operator("decorated", bent)

    @gm.rule("gm_test.decorated")
    def same(call: Call) -> list[Value]:
        return call.relate("b c -> b c", *call.tensors())

    assert groups(middle) == ["one"]


def test_a_false_rule_is_found_out_by_the_check_and_by_the_gate() -> None:
    middle = operator("running", lambda x: x.cumsum(-1))
    gm.rule("gm_test.running", "... -> ...")
    assert gm.check_rule(torch.ops.gm_test.running.default, EXAMPLE) != []
    model = Net(middle)
    assert gm.verify(gm.trace(model, (torch.randn(3, 6),)), model).failed == ("one",)
