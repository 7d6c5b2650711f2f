"""Sites beyond affine operators: sums, gains, biases that were not there; and a few steps of descent."""

from __future__ import annotations

import pytest
import torch
from torch import nn

import graphmerge as gm
from graphmerge.repair import Task, add_biases, repair_with_report
from graphmerge.repair.renormalise import _factor_in_sum
from graphmerge.repair.sites import sites
from graphmerge.repair.sums import with_sums
from models_zoo.resnet import resnet20_layernorm

X = torch.randn(60, 6, generator=torch.Generator().manual_seed(0))
Y = torch.randint(3, (60,), generator=torch.Generator().manual_seed(1))


class Branched(nn.Module):
    """A stream to which a branch adds, norms written by hand, a gain."""

    def __init__(self) -> None:
        super().__init__()
        self.enter, self.branch, self.head = nn.Linear(6, 8), nn.Linear(8, 8), nn.Linear(8, 3)
        self.gain = nn.Parameter(torch.rand(8) + 0.5)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        stream = self.enter(x)
        stream = stream + self.branch(torch.relu(stream))
        normal = stream * (stream.square().mean(-1, keepdim=True) + 1e-6).rsqrt()
        out: torch.Tensor = self.head(self.gain * normal)
        return out


def branched(seed: int) -> Branched:
    torch.manual_seed(seed)
    return Branched()


def test_norms_and_gains_are_sites_on_request() -> None:
    program = gm.trace(branched(0), (X[:2],)).program
    assert [s.weight for s in sites(program)[0]] == ["enter.weight", "branch.weight"]
    assert [s.weight for s in sites(program, gains=True)[0]] == ["enter.weight", "branch.weight", "gain"]


class Scaled(nn.Module):
    """Two layers by ``torch.addmm``, whose product and bias come times a number."""

    def __init__(self, alpha: float, beta: float) -> None:
        super().__init__()
        self.alpha, self.beta = alpha, beta
        self.weight, self.bias = nn.Parameter(torch.randn(6, 8)), nn.Parameter(torch.randn(8))
        self.head = nn.Linear(8, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        hidden = torch.addmm(self.bias, x, self.weight, alpha=self.alpha, beta=self.beta)
        out: torch.Tensor = self.head(torch.relu(hidden))
        return out


@pytest.mark.parametrize(("alpha", "beta"), [(1.0, 1.0), (3.0, 1.0), (1.0, 0.5), (1.0, 0.0)])
def test_a_bias_that_counts_more_or_less_than_once_is_no_site(alpha: float, beta: float) -> None:
    """A factor on the product does no harm: weight and bias are scaled alike."""
    torch.manual_seed(0)
    a, b = Scaled(alpha, beta), Scaled(alpha, beta)
    task = Task(gm.trace(a, (X[:30],)), (a.state_dict(), b.state_dict()), [(X[:30],), (X[30:],)])
    found, skipped = sites(task.program)
    if beta != 1:
        assert not found
        assert skipped["weight"] == f"its bias counts {beta} times"
        return
    (site,) = found
    merged = gm.average([a.state_dict(), b.state_dict()])
    repaired, _ = repair_with_report(task, merged)
    wanted = task.goals([site.seen], (0.5, 0.5))[site.seen]
    reached = Task(task.graph, (repaired,), task.data).goals([site.seen], (1.0,))[site.seen]
    assert all(torch.allclose(x, y, rtol=1e-4, atol=1e-5) for x, y in zip(reached, wanted, strict=True))


def test_the_last_branch_of_each_sum_is_bound_to_it() -> None:
    program = gm.trace(resnet20_layernorm(), (torch.randn(2, 1, 8, 8),)).program
    found = with_sums(program, sites(program, gains=True)[0])
    bound = [s.weight for s in found if s.sum]
    assert len(bound) == 9  # one for each block
    assert all(".norm2." in name or ".shortcut." in name for name in bound)
    assert all(s.sum.unit_dim == 1 for s in found if s.sum)  # the norm returns channels last


def test_a_sum_reaches_the_goal_wherever_it_can() -> None:
    a, b = branched(0), branched(1)
    task = Task(gm.trace(a, (X[:30],)), (a.state_dict(), b.state_dict()), [(X[:30],), (X[30:],)])
    merged = gm.average([a.state_dict(), b.state_dict()])
    repaired, report = repair_with_report(task, merged, method="repair", sums="yes")
    out_of_reach = report.notes["repair"].get("units of a sum out of reach", {}).get("branch.weight", 0)
    (site,) = [s for s in with_sums(task.program, sites(task.program)[0]) if s.sum]
    mean, std = task.goals([site.seen], (0.5, 0.5))[site.seen]
    own_mean, own_std = Task(task.graph, (repaired,), task.data).goals([site.seen], (1.0,))[site.seen]
    assert torch.allclose(own_mean, mean, atol=1e-4)
    assert int((~torch.isclose(own_std, std, rtol=1e-3)).sum()) == out_of_reach < 8


def test_the_scale_in_a_sum_by_hand() -> None:
    # branch and shortcut of variance 1, uncorrelated: a^2 + 1 = std^2; with covariance 1 also 2 a
    covariance = torch.tensor([[[1.0, 1.0, 1.0], [0.0, 1.0, 0.0]], [[0.0, 1.0, 0.0], [1.0, 1.0, 1.0]]])
    scale, none = _factor_in_sum(covariance.double(), torch.tensor([5.0, 16.0, 0.25]).double().sqrt())
    assert scale[:2].tolist() == pytest.approx([2.0, 3.0])
    assert none.tolist() == [False, False, True]


def test_biases_are_added_without_changing_the_function() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(6, 8, bias=False), nn.ReLU(), nn.Linear(8, 3, bias=False))
    larger, (state,) = add_biases(model, [model.state_dict()], (X[:2],))
    assert set(state) - set(model.state_dict()) == {"0.bias"}  # what makes the output is no site
    larger.load_state_dict(state)
    with torch.no_grad():
        assert torch.equal(larger(X), model(X))
    assert model[0].bias is None


class Bare(nn.Module):
    """An operator whose weight lies in no module that could carry a bias."""

    def __init__(self) -> None:
        super().__init__()
        self.weight, self.head = nn.Parameter(torch.randn(8, 6)), nn.Linear(8, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        out: torch.Tensor = self.head(torch.relu(nn.functional.linear(x, self.weight)))
        return out


class Deaf(nn.Linear):
    """Reads its weight as a linear operator does, but never a bias."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return nn.functional.linear(x, self.weight)


def test_a_bias_that_no_module_could_carry_is_refused() -> None:
    with pytest.raises(gm.TraceError, match="no place for a bias"):
        add_biases(Bare(), [], (X[:2],))
    deaf = nn.Sequential(Deaf(6, 8, bias=False), nn.ReLU(), nn.Linear(8, 3))
    with pytest.raises(gm.TraceError, match="would not be read"):
        add_biases(deaf, [], (X[:2],))


def test_fine_tuning_lowers_the_loss_the_same_way_every_time() -> None:
    a, b = branched(0), branched(1)
    graph, data = gm.trace(a, (X[:30],)), [(X[:30], Y[:30]), (X[30:], Y[30:])]
    merged = gm.average([a.state_dict(), b.state_dict()])
    tuned = [
        gm.repair(graph, merged, [a, b], data, method="finetune", steps=30, rate=0.01, seed=s)
        for s in (0, 0, 1)
    ]
    assert gm.evaluate(a, tuned[0], data).loss < gm.evaluate(a, merged, data).loss - 0.1
    assert all(torch.equal(t, tuned[1][n]) for n, t in tuned[0].items())
    assert not all(torch.equal(t, tuned[2][n]) for n, t in tuned[0].items())
    assert all(not t.requires_grad for t in tuned[0].values())
