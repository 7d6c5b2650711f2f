"""Repair: where it applies, what it reaches, and what it must not touch."""

from __future__ import annotations

import pytest
import torch
from torch import nn

import graphmerge as gm
from graphmerge.errors import InputError, UsageError
from graphmerge.repair import available, repair_with_report
from graphmerge.repair.sites import sites


def mlp(seed: int) -> nn.Sequential:
    torch.manual_seed(seed)
    return nn.Sequential(nn.Linear(6, 16), nn.ReLU(), nn.Linear(16, 12), nn.ReLU(), nn.Linear(12, 3))


def vgg(seed: int, norm: bool) -> nn.Sequential:
    torch.manual_seed(seed)
    layers: list[nn.Module] = []
    for a, b in ((1, 8), (8, 10)):
        layers += [
            nn.Conv2d(a, b, 3, padding=1),
            *([nn.BatchNorm2d(b)] if norm else []),
            nn.ReLU(),
            nn.MaxPool2d(2),
        ]
    return nn.Sequential(*layers, nn.Flatten(), nn.Linear(40, 4))


class Reused(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.once, self.twice, self.last = nn.Linear(5, 7), nn.Linear(7, 7, bias=False), nn.Linear(7, 2)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        h = torch.relu(self.once(x))
        out: torch.Tensor = self.last(torch.relu(self.twice(torch.relu(self.twice(h)))))
        return out


def plain_repair(
    models: list[nn.Sequential], merged: nn.Sequential, x: torch.Tensor, weights: tuple[float, float]
) -> torch.Tensor:
    """The paper's way: a layer per pre-activation that normalises and rescales; outputs on ``x``."""
    h, ends = x, [x, x]
    for k, layer in enumerate(merged):
        h, ends = layer(h), [m[k](e) for m, e in zip(models, ends, strict=True)]
        if isinstance(layer, nn.Linear | nn.Conv2d) and k < len(merged) - 1:
            dims = [0, *range(2, h.ndim)]
            mean = sum(w * e.mean(dims, keepdim=True) for w, e in zip(weights, ends, strict=True))
            std = sum(w * e.std(dims, keepdim=True, correction=0) for w, e in zip(weights, ends, strict=True))
            h = (h - h.mean(dims, keepdim=True)) / h.std(dims, keepdim=True, correction=0) * std + mean
    return h


@pytest.mark.parametrize("kind", ["mlp", "vgg"])
def test_it_equals_the_papers_inserted_layers(kind: str) -> None:
    build = mlp if kind == "mlp" else lambda seed: vgg(seed, norm=False)
    a, b, middle = build(0), build(1), build(2)
    x = torch.randn(64, 6) if kind == "mlp" else torch.randn(64, 1, 8, 8)
    graph = gm.trace(a, (x[:2],))
    merged = gm.average([a.state_dict(), b.state_dict()], [0.3, 0.7])
    middle.load_state_dict(merged)
    wanted = plain_repair([a, b], middle, x, (0.3, 0.7))
    middle.load_state_dict(gm.repair(graph, merged, [a, b], [(x, None)], weights=(0.3, 0.7)))
    assert torch.allclose(middle(x), wanted, atol=1e-4)


def test_at_an_endpoint_nothing_changes() -> None:
    a, b, x = mlp(0), mlp(1), torch.randn(100, 6)
    graph = gm.trace(a, (x[:2],))
    repaired = gm.repair(graph, a.state_dict(), [a, b], [(x[:50],), (x[50:],)], weights=(1.0, 0.0))
    assert all(torch.allclose(repaired[n], t, atol=1e-5) for n, t in a.state_dict().items())


def test_statistics_reach_the_interpolated_goal() -> None:
    a, b, x = mlp(0), mlp(1), torch.randn(256, 6)
    graph = gm.trace(a, (x[:2],))
    merged = mlp(2)
    merged.load_state_dict(gm.repair(graph, gm.average([a.state_dict(), b.state_dict()]), [a, b], [(x,)]))
    for cut in (1, 3):
        za, zb, z = (m[:cut](x) for m in (a, b, merged))
        alive = za.std(0).gt(1e-3) & zb.std(0).gt(1e-3)
        assert torch.allclose(z.mean(0), (za.mean(0) + zb.mean(0)) / 2, atol=1e-4)
        assert torch.allclose(z.std(0)[alive], ((za.std(0) + zb.std(0)) / 2)[alive], atol=1e-4)


def test_sites_are_found_on_the_graph() -> None:
    graph = gm.trace(mlp(0), (torch.randn(2, 6),))
    found, skipped = sites(graph.program)
    assert [s.weight for s in found] == ["0.weight", "2.weight"]
    assert "output of the model" in skipped["4.weight"]
    reused = gm.trace(Reused(), (torch.randn(2, 5),))
    found, skipped = sites(reused.program)
    assert [s.weight for s in found] == ["once.weight"]
    assert "more than once" in skipped["twice.weight"]


def test_what_applies_depends_on_the_network() -> None:
    assert available(gm.trace(mlp(0), (torch.randn(2, 6),))) == ("repair",)
    assert available(gm.trace(vgg(0, norm=True), (torch.randn(2, 1, 8, 8),))) == ("bn-reset",)
    assert available(gm.trace(nn.Linear(3, 2), (torch.randn(2, 3),))) == ()


def test_dead_units_are_left_alone_and_counted() -> None:
    a, b, x = mlp(0), mlp(1), torch.randn(64, 6)
    for m in (a, b):
        with torch.no_grad():
            m[0].weight[2] = 0  # type: ignore[index, union-attr, operator]
    graph = gm.trace(a, (x[:2],))
    merged = gm.average([a.state_dict(), b.state_dict()])
    state, report = repair_with_report(graph, merged, [a, b], [(x,)])
    assert report.dead_units == {"0.weight": 1}
    assert torch.equal(state["0.weight"][2], merged["0.weight"][2])
    assert torch.equal(state["0.bias"][2], merged["0.bias"][2])
    assert all(bool(torch.isfinite(t).all()) for t in state.values())


def test_batchnorm_reset_is_torchs_own_on_one_batch_and_exact_over_several() -> None:
    model, x = vgg(0, norm=True), torch.randn(60, 1, 8, 8)
    state = gm.reset_batchnorm(model, model.state_dict(), [(x,)])
    torchs = vgg(0, norm=True).train()
    for m in torchs.modules():
        if isinstance(m, nn.BatchNorm2d):
            m.momentum = None
    torchs(x)
    assert all(
        torch.allclose(state[n], t, atol=1e-5) for n, t in torchs.state_dict().items() if "running" in n
    )
    parts = gm.reset_batchnorm(model, model.state_dict(), [(x[:20],), (x[20:40],), (x[40:],)])
    assert torch.allclose(parts["1.running_mean"], state["1.running_mean"], atol=1e-6)
    assert torch.allclose(parts["1.running_var"], state["1.running_var"], atol=1e-6)


def test_the_live_model_is_not_touched() -> None:
    model, x = vgg(0, norm=True).train(), torch.randn(40, 1, 8, 8)
    before = {n: t.clone() for n, t in model.state_dict().items()}
    gm.reset_batchnorm(model, model.state_dict(), [(x,)])
    assert model.training
    assert all(torch.equal(before[n], t) for n, t in model.state_dict().items())


def test_too_little_or_bad_data_is_refused() -> None:
    model = vgg(0, norm=True)
    with pytest.raises(InputError, match="32"):
        gm.reset_batchnorm(model, model.state_dict(), [(torch.randn(8, 1, 8, 8),)])
    with pytest.raises(InputError, match="NaN"):
        gm.reset_batchnorm(model, model.state_dict(), [(torch.full((40, 1, 8, 8), float("nan")),)])
    with pytest.raises(InputError, match="no batch"):
        gm.reset_batchnorm(model, model.state_dict(), [])
    with pytest.raises(UsageError, match="one-shot"):
        gm.reset_batchnorm(model, model.state_dict(), iter([(torch.randn(40, 1, 8, 8),)]))
