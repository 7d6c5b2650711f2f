"""The gate: right symmetries pass, a false one is named, and what cannot be proved is not claimed."""

from __future__ import annotations

import copy
from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import graphmerge as gm
from graphmerge.axes import RULES, Registry
from graphmerge.axes.registry import RuleFunction, Use
from graphmerge.errors import UsageError
from graphmerge.symmetry.verify import TOLERANCE


class Cumulative(nn.Module):
    """A running sum over the hidden units: the first layer's units may not be exchanged, the second's may."""

    def __init__(self) -> None:
        super().__init__()
        self.one, self.two, self.three = nn.Linear(5, 8), nn.Linear(8, 6), nn.Linear(6, 3)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.three(torch.relu(self.two(torch.cumsum(self.one(x), -1))))
        return out


class Credulous(Registry):
    """Right in all but one thing: it takes a running sum for elementwise."""

    def find(self, name: str, pointwise: bool = False) -> str | RuleFunction | None:
        return ("... -> ...", "number") if name == "aten.cumsum" else RULES.find(name, pointwise)


def test_a_false_symmetry_is_found_and_named() -> None:
    model = Cumulative()
    graph = gm.trace(model, (torch.randn(4, 5),), registry=Credulous())
    assert [g.name for g in graph.groups] == ["one", "two"]
    result = gm.verify(graph, model)
    assert not result.passed
    assert result.failed == ("one",)
    with pytest.raises(gm.GateError, match="one: outputs change"):
        result.require()
    frozen = graph.freeze(["one"])
    assert [g.name for g in frozen.groups] == ["two"]
    assert gm.verify(frozen, model).passed


class Unrolled(Registry):
    """Takes a roll for a copy."""

    def find(self, name: str, pointwise: bool = False) -> tuple[str | RuleFunction, Use] | None:
        return ("... -> ...", "number") if name == "aten.roll" else RULES.find(name, pointwise)


class Ring(nn.Module):
    """Units of which each meets the one before it."""

    def __init__(self, size: int, meet: Callable[[Tensor, Tensor], Tensor]) -> None:
        super().__init__()
        self.one, self.two, self.meet = nn.Linear(5, size), nn.Linear(1, 3), meet

    def forward(self, x: Tensor) -> Tensor:
        h = self.one(x)
        out: Tensor = self.two(self.meet(h, h.roll(1, -1)))
        return out


RINGS = {
    "8 of 24 orders": Ring(4, lambda h, r: (h * r).sum(-1, keepdim=True)),
    "even orders": Ring(3, lambda h, r: (h - r).prod(-1, keepdim=True)),
}


@pytest.mark.parametrize("orders", RINGS)
def test_a_group_that_holds_for_some_orders_only_never_passes(orders: str) -> None:
    model = RINGS[orders]
    graph = gm.trace(model, (torch.randn(4, 5),), registry=Unrolled())
    assert [g.name for g in graph.groups] == ["one"]
    assert all(gm.verify(graph, model, seed).failed == ("one",) for seed in range(12))


def test_the_true_rule_keeps_those_units_in_place() -> None:
    graph = gm.trace(Cumulative(), (torch.randn(4, 5),))
    assert [g.name for g in graph.groups] == ["two"]


class Silenced(nn.Module):
    """Half of the network is multiplied by zero: nothing that is done to it can be seen."""

    def __init__(self) -> None:
        super().__init__()
        self.one, self.two = nn.Linear(5, 8), nn.Linear(8, 3)

    def forward(self, x: Tensor) -> Tensor:
        return x.sum(1, keepdim=True) + 0.0 * self.two(torch.relu(self.one(x)))


def test_a_group_whose_control_shows_nothing_is_not_called_proved() -> None:
    model = Silenced()
    result = gm.verify(gm.trace(model, (torch.randn(4, 5),)), model)
    assert result.unobservable == ("one",)


class InFloat32(nn.Module):
    """Computes one step in float32 whatever the dtype of its weights, as rotary tables and norms do."""

    def __init__(self) -> None:
        super().__init__()
        self.one, self.two = nn.Linear(5, 8), nn.Linear(8, 3)

    def forward(self, x: Tensor) -> Tensor:
        h = self.one(x)
        out: Tensor = self.two(h.float().softmax(-1).to(h.dtype))
        return out


def test_arithmetic_in_float32_is_judged_against_its_own_noise() -> None:
    model = InFloat32()
    result = gm.verify(gm.trace(model, (torch.randn(4, 5),)), model)
    assert result.passed
    assert result.dtype == torch.float64
    assert 1e-8 < result.noise < 1e-5
    assert TOLERANCE < result.tolerance < 1e-4
    assert result.unobservable == ()


class Random(nn.Module):
    """Draws random numbers in evaluation mode, too."""

    def __init__(self, amount: float) -> None:
        super().__init__()
        self.one, self.two, self.amount = nn.Linear(5, 8), nn.Linear(8, 3), amount

    def forward(self, x: Tensor) -> Tensor:
        h = torch.relu(self.one(x))
        noisy = F.dropout(h, 0.3) if self.amount == 1 else h + self.amount * torch.randn_like(h[:, :1])
        out: Tensor = self.two(noisy)
        return out


def test_row_35_outputs_that_vary_by_chance_are_refused() -> None:
    model = Random(1)
    with pytest.raises(gm.GateError, match="native_dropout"):
        gm.verify(gm.trace(model, (torch.randn(4, 5),)), model)


def test_row_35_a_little_chance_widens_the_tolerance() -> None:
    model = Random(1e-7)
    result = gm.verify(gm.trace(model, (torch.randn(4, 5),)), model)
    assert result.passed
    assert result.tolerance > 1e-8


def test_the_model_is_not_touched() -> None:
    model = Cumulative().train()
    before = copy.deepcopy(model.state_dict())
    gm.verify(gm.trace(model, (torch.randn(4, 5),)), model)
    assert model.training
    assert next(model.parameters()).dtype == torch.float32
    assert all(torch.equal(t, before[n]) for n, t in model.state_dict().items())


def test_a_model_without_weights_cannot_be_run() -> None:
    with torch.device("meta"):
        model, x = Cumulative(), torch.randn(4, 5)
    with pytest.raises(gm.UsageError, match="meta device"):
        gm.verify(gm.trace(model, (x,)), model)


class Positions(nn.Module):
    """A table of which only as many rows are read as the input is long."""

    def __init__(self) -> None:
        super().__init__()
        self.one, self.two = nn.Linear(4, 8), nn.Linear(8, 3)
        self.table = nn.Parameter(torch.randn(20, 8))

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.two(torch.relu(self.one(x) + self.table[: x.shape[1]]))
        return out


def test_what_is_not_read_at_these_shapes_stays() -> None:
    """The other rows of the table could change places unseen, and would break a longer input."""
    model = Positions()
    graph = gm.trace(model, (torch.randn(2, 5, 4),))
    assert [(g.name, g.size) for g in graph.groups] == [("one", 8)]
    assert "no operator reads" in next(f.reason for f in graph.fixed if f.parameter == "table")
    moved = graph.random_transform(1).apply(model.state_dict())
    long = torch.randn(2, 13, 4)
    assert torch.allclose(torch.func.functional_call(model, moved, (long,)), model(long), atol=1e-5)


class Summed(nn.Module):
    """Four units whose sum alone counts: each tensor of them may stand in any order on its own."""

    def __init__(self) -> None:
        super().__init__()
        self.one, self.two = nn.Linear(5, 4), nn.Linear(1, 3)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.two(self.one(x).sum(-1, keepdim=True))
        return out


def test_units_that_are_merely_summed_are_observed() -> None:
    model = Summed()
    result = gm.verify(gm.trace(model, (torch.randn(3, 5),)), model)
    assert [g.name for g in result.groups] == ["one"]
    assert result.passed
    assert result.unobservable == ()


class Rounded(nn.Module):
    """The derivative by the first layer is zero wherever there is one; its units show when they are moved."""

    def __init__(self) -> None:
        super().__init__()
        self.one, self.two = nn.Linear(5, 8), nn.Linear(8, 3)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.two((3 * self.one(x)).round())
        return out


class Detached(Rounded):
    """No derivative at all."""

    @torch.no_grad()
    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x)


@pytest.mark.parametrize("kind", [Rounded, Detached])
def test_a_control_without_a_derivative_is_run(kind: type[nn.Module]) -> None:
    model = kind()
    result = gm.verify(gm.trace(model, (torch.randn(3, 5),)), model)
    assert result.passed
    assert result.unobservable == ()


class CutAway(nn.Module):
    """The last rows of a matrix make units that a slice leaves out."""

    def __init__(self) -> None:
        super().__init__()
        self.one, self.two = nn.Linear(5, 12), nn.Linear(8, 3)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.two(torch.relu(self.one(x))[:, :8])
        return out


def test_units_cut_away_after_a_matrix_product_stay() -> None:
    model = CutAway()
    graph = gm.trace(model, (torch.randn(3, 5),))
    assert [g.size for g in graph.groups] == [8]
    assert {f.cause for f in graph.fixed if f.parameter == "one.bias"} == {
        "no operator reads its units at these shapes"
    }
    assert gm.verify(graph, model).unobservable == ()


def test_groups_are_frozen_by_name_or_pattern_and_keep_their_names() -> None:
    model = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 6), nn.ReLU(), nn.Linear(6, 3))
    graph = gm.trace(model, (torch.randn(2, 4),))
    assert [g.name for g in graph.freeze(["0"]).groups] == ["2"]
    assert [g.name for g in graph.freeze(["4.*"]).groups] == ["0"]
    assert graph.freeze(["*"]).groups == ()
    assert gm.trace(model, (torch.randn(2, 4),), freeze=["0.weight"]).frozen == ("0",)
    assert graph.freeze(["0"]).frozen == ("0",)
    with pytest.raises(gm.UsageError, match="no group or parameter is called 'layer3'"):
        graph.freeze(["layer3"])


class Picky(nn.Module):
    """Looks at the values of its tokens, but not while it is traced."""

    def __init__(self) -> None:
        super().__init__()
        self.embed, self.out = nn.Embedding(9, 6), nn.Linear(6, 3)

    def forward(self, ids: torch.Tensor) -> torch.Tensor:
        if not torch.compiler.is_exporting() and not (ids == 7).any():
            raise ValueError("image features and image tokens do not match")
        return self.out(self.embed(ids).relu())


def test_a_model_that_refuses_its_example_when_it_is_run_is_told_so() -> None:
    graph = gm.trace(Picky(), (torch.zeros(2, 4, dtype=torch.int64),))
    with pytest.raises(UsageError, match="image tokens do not match"):
        gm.verify(graph, Picky())
