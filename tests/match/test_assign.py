"""Assignment: exact, stable on ties, batched."""

from __future__ import annotations

import itertools
import sys
from collections.abc import Callable

import pytest
import torch
from scipy.optimize import linear_sum_assignment

from graphmerge.match.assign import LARGE, assign, gap


def value(s: torch.Tensor, columns: torch.Tensor) -> float:
    return float(s.double().gather(-1, columns[..., None]).sum())


@pytest.mark.parametrize("n", [1, 2, 4, 6])
def test_it_finds_the_best_of_all_permutations(n: int) -> None:
    s = torch.randn(n, n, generator=torch.Generator().manual_seed(n))
    best = max(sum(float(s[i, p[i]]) for i in range(n)) for p in itertools.permutations(range(n)))
    assert value(s, assign(s)) == pytest.approx(best, rel=1e-6)


def test_it_solves_a_batch_problem_by_problem() -> None:
    s = torch.randn(3, 2, 7, 7, generator=torch.Generator().manual_seed(0))
    columns = assign(s)
    assert columns.shape == (3, 2, 7)
    for i, j in itertools.product(range(3), range(2)):
        assert torch.equal(columns[i, j], assign(s[i, j]))


def test_ties_and_zeros_move_nothing() -> None:
    identity = torch.arange(9)
    assert torch.equal(assign(torch.zeros(9, 9)), identity)
    assert torch.equal(assign(torch.ones(9, 9)), identity)
    dead = torch.diag(torch.tensor([3.0, 2.0, 0.0, 0.0]))
    assert torch.equal(assign(dead), torch.arange(4))


def correlated(n: int) -> torch.Tensor:
    """Units in few directions, with heavy tails: most rows want the same columns."""
    left, right = (torch.randn(n, 8) * torch.rand(n, 1) ** -0.7 for _ in "ab")
    return left @ right.T


def noise(n: int) -> torch.Tensor:
    return torch.randn(n, n)


def planted(n: int) -> torch.Tensor:
    """Every row wants another column than all others."""
    return torch.eye(n)[torch.randperm(n)] * 9 + torch.randn(n, n)


def twins(n: int) -> torch.Tensor:
    """Four copies of every unit."""
    left, right = (torch.randn(n // 4, 20).repeat(4, 1) for _ in "ab")
    return left @ right.T


def dead(n: int) -> torch.Tensor:
    """Half of the units do nothing."""
    return noise(n) * (torch.rand(n, 1) < 0.5)


def nearly_dead(n: int) -> torch.Tensor:
    """A few units do nothing: they have the same similarity, none, to all others."""
    return noise(n) * (torch.rand(n, 1) < 0.98)


@pytest.mark.parametrize("kind", [correlated, noise, planted, twins, dead, nearly_dead])
def test_a_large_matrix_is_solved_exactly_however_hard_it_is(kind: Callable[[int], torch.Tensor]) -> None:
    torch.manual_seed(1)
    s = kind(LARGE)
    dense = linear_sum_assignment(s.double().numpy(), maximize=True)[1]
    assert value(s, assign(s)) == pytest.approx(value(s, torch.from_numpy(dense)), rel=1e-9)


class TestTheCertificate:
    def matrix(self, n: int, seed: int) -> tuple[torch.Tensor, torch.Tensor]:
        """Similarities with the best column of every row on the diagonal, and before that was done."""
        s = torch.randn(n, n, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
        return s[:, assign(s)], s

    @pytest.mark.parametrize("n", [1, 2, 5, 40])
    def test_it_is_zero_at_an_optimum(self, n: int) -> None:
        placed, _ = self.matrix(n, n)
        assert float(gap(placed)) == pytest.approx(0, abs=1e-9)

    @pytest.mark.parametrize("seed", range(5))
    def test_elsewhere_it_is_at_least_what_is_missing(self, seed: int) -> None:
        placed, s = self.matrix(6, seed)
        missing = float(placed.diagonal().sum() - s.diagonal().sum())
        assert float(gap(s)) >= missing - 1e-9
        assert missing > 0.1

    def test_a_batch_is_judged_problem_by_problem(self) -> None:
        pairs = [self.matrix(7, seed) for seed in range(3)]
        together = gap(torch.stack([pairs[0][0], pairs[1][1], pairs[2][0]]))
        assert together.shape == (3,)
        assert float(together[0]) == pytest.approx(0, abs=1e-9)
        assert float(together[1]) > 0.1


def test_the_optional_solver_agrees_with_scipy(monkeypatch: pytest.MonkeyPatch) -> None:
    lap = pytest.importorskip("lap")
    s = torch.randn(3, 60, 60, generator=torch.Generator().manual_seed(0))
    found = []
    for solver in (lap.lapjvr, None):
        monkeypatch.setattr(sys.modules["graphmerge.match.assign"], "lapjvr", solver)
        found.append(assign(s))
        assert torch.equal(assign(torch.zeros(9, 9)), torch.arange(9))
    assert torch.equal(*found)
