"""Circuits of units that contain others: what no inner order changes, and the experts that they find."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

import graphmerge as gm
from graphmerge.match import circuits as module
from graphmerge.match import descent
from graphmerge.match.circuits import circuits
from graphmerge.match.layout import plans
from models_zoo.architectures import ARCHITECTURES

EXPERTS, WIDTH, HIDDEN = 6, 10, 12


class Mixture(nn.Module):
    """Linear, a residual mixture of experts (in stacks, or as modules; routed, or added up), linear."""

    def __init__(self, stacked: bool, routed: bool) -> None:
        super().__init__()
        self.before, self.after = nn.Linear(7, WIDTH), nn.Linear(WIDTH, 3)
        if routed:
            self.router = nn.Linear(WIDTH, EXPERTS)
        if stacked:
            self.up = nn.Parameter(torch.randn(EXPERTS, WIDTH, HIDDEN) / WIDTH**0.5)
            self.down = nn.Parameter(torch.randn(EXPERTS, HIDDEN, WIDTH) / HIDDEN**0.5)
        else:
            small = (
                nn.Sequential(nn.Linear(WIDTH, HIDDEN), nn.ReLU(), nn.Linear(HIDDEN, WIDTH))
                for _ in range(EXPERTS)
            )
            self.experts = nn.ModuleList(small)

    def forward(self, x: Tensor) -> Tensor:
        h = self.before(x)
        if hasattr(self, "experts"):
            every = torch.stack([expert(h) for expert in self.experts], 1)
        else:
            every = torch.einsum("teh,ehw->tew", torch.einsum("tw,ewh->teh", h, self.up).relu(), self.down)
        if hasattr(self, "router"):
            every = self.router(h).softmax(-1)[..., None] * every
        out: Tensor = self.after(h + every.sum(1))
        return out


def noisy(model: nn.Module, share: float) -> dict[str, Tensor]:
    parameters = {n for n, _ in model.named_parameters()}
    return {
        n: t + share * t.std() * torch.randn_like(t) if n in parameters else t
        for n, t in model.state_dict().items()
    }


@pytest.fixture
def few(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every block is taken for one with too many pairs for an inner order each."""
    monkeypatch.setattr(descent, "PAIRS", 0)


def rows(seed: int) -> list[Tensor]:
    """Rows of two tensors [fibre, unit, inner, feature]."""
    generator = torch.Generator().manual_seed(seed)
    return [torch.randn(2, 3, 4, d, generator=generator, dtype=torch.float64) for d in (5, 2)]


@pytest.mark.parametrize("entries", [1 << 26, 60, 1])
def test_both_ways_give_inner_products_of_gram_matrices(
    entries: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "ENTRIES", entries)
    a, b = rows(0), rows(1)
    grams = [torch.cat(x, -1).mT @ torch.cat(x, -1) for x in (a, b)]
    wanted = torch.einsum("fixy,fjxy->fij", *grams)
    assert torch.allclose(module._by_traces(a, b), wanted)
    assert torch.allclose(module._by_grams(a, b), wanted)
    scale = torch.cat(a, -1).norm() * torch.cat(b, -1).norm() / grams[0].norm() / grams[1].norm()
    assert torch.allclose(circuits(a, b), scale * wanted)


def test_no_inner_rotation_changes_a_circuit_and_a_unit_is_most_like_itself() -> None:
    a, b = rows(0), rows(1)
    turns = torch.linalg.qr(torch.randn(2, 3, 4, 4, dtype=torch.float64))[0]
    assert torch.allclose(circuits(a, [turns @ x for x in b]), circuits(a, b))
    own = circuits(a, [turns @ x for x in a])
    assert float(own.diagonal(dim1=-2, dim2=-1).sum()) == pytest.approx(sum(float((x**2).sum()) for x in a))
    assert (own <= own.diagonal(dim1=-2, dim2=-1).amax() + 1e-9).all()


@pytest.mark.usefixtures("few")
@pytest.mark.parametrize(
    ("routed", "method"), [(True, "weight"), (False, "weight"), (False, "activation"), (True, "dual")]
)
@pytest.mark.parametrize("stacked", [True, False])
def test_experts_and_their_hidden_units_are_found_under_noise(
    stacked: bool, routed: bool, method: str
) -> None:
    """From the identity, and without a router by nothing but their circuits."""
    torch.manual_seed(0)
    model = Mixture(stacked, routed)
    x = torch.randn(128, 7)
    graph = gm.trace(model, (x[:5],))
    planted = graph.random_transform(seed=1)
    moved = planted.inverse().apply(noisy(model, 0.05))
    data = [(x[:64], None), (x[64:], None)] if method != "weight" else None
    options = {"gamma": 0.5} if method == "dual" else {}
    found = gm.match(graph, model, moved, method, data, start=graph.identity(), **options)
    assert found.transform == planted


@pytest.mark.usefixtures("few")
@pytest.mark.parametrize("name", ["multihead_attention", "grouped_query_attention", "transformer_encoder"])
def test_heads_are_found_by_their_circuits(name: str) -> None:
    torch.manual_seed(0)
    model = ARCHITECTURES[name].build().eval()
    args, kwargs = ARCHITECTURES[name].inputs()
    graph = gm.trace(model, args, kwargs)
    planted = graph.random_transform(seed=1)
    moved = planted.inverse().apply(noisy(model, 0.05))
    assert gm.match(graph, model, moved).transform == planted


@pytest.mark.parametrize("stacked", [True, False])
def test_circuits_reach_the_objective_of_inner_orders(stacked: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """Independent mixtures: comparing experts by circuits loses little to an inner order for every pair."""
    models = []
    for seed in (0, 1):
        torch.manual_seed(seed)
        models.append(Mixture(stacked, routed=True))
    graph = gm.trace(models[0], (torch.randn(5, 7),))
    exact = gm.match(graph, *models, restarts=1)
    monkeypatch.setattr(descent, "PAIRS", 0)
    cheap = gm.match(graph, *models, restarts=1)
    assert cheap.objective > exact.start
    assert cheap.objective == pytest.approx(exact.objective, rel=0.03)


def test_an_inner_order_of_which_nothing_is_seen_is_left_as_it_is() -> None:
    """Activations of routed experts are compared where they are joined: no hidden unit shows there."""
    graph = gm.trace(Mixture(stacked=True, routed=True), (torch.randn(5, 7),))
    (experts,) = (g.name for g in graph.groups if ("router.weight", 0) in g.members)
    seen = {n: graph.structure.labels[n] for n in ("router.weight", "router.bias")}
    assert plans(graph, graph.structure, graph.structure.labels)[experts].inner
    assert not plans(graph, graph.structure, seen)[experts].inner
