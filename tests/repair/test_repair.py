"""Repair: where it applies, what it reaches, and what it must not touch."""

from __future__ import annotations

import copy
from collections.abc import Callable
from functools import cache

import pytest
import torch
from torch import nn

import graphmerge as gm
from graphmerge.errors import InputError, UsageError
from graphmerge.repair import Task, add_biases, available, repair_with_report
from graphmerge.repair.sites import sites
from models_zoo.resnet import resnet20, resnet20_layernorm


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
    models: list[nn.Module], merged: nn.Module, x: torch.Tensor, weights: tuple[float, float]
) -> torch.Tensor:
    """The paper's way: after each operator but the last a layer that normalises and rescales."""
    names = [n for n, m in merged.named_modules() if isinstance(m, nn.Linear | nn.Conv2d)][:-1]
    goals: dict[str, list[tuple[torch.Tensor, torch.Tensor]]] = {n: [] for n in names}

    def dims(y: torch.Tensor) -> list[int]:
        return [0, *range(2, y.ndim)]

    def remember(name: str, y: torch.Tensor) -> None:
        goals[name].append((y.mean(dims(y), keepdim=True), y.std(dims(y), keepdim=True, correction=0)))

    def reset(name: str, y: torch.Tensor) -> torch.Tensor:
        (mean_a, std_a), (mean_b, std_b) = goals[name]
        y = (y - y.mean(dims(y), keepdim=True)) / y.std(dims(y), keepdim=True, correction=0)
        y = y * (weights[0] * std_a + weights[1] * std_b)
        return y + weights[0] * mean_a + weights[1] * mean_b

    for model, look in [*((m, remember) for m in models), (merged, reset)]:
        hooks = [
            model.get_submodule(n).register_forward_hook(lambda _, __, y, n=n, look=look: look(n, y))
            for n in names
        ]
        with torch.no_grad():
            outputs: torch.Tensor = model.eval()(x)
        for hook in hooks:
            hook.remove()
    return outputs


@cache
def with_biases() -> nn.Module:
    """ResNet20 without BatchNorm, every convolution with a bias, as in the paper's insertion."""
    return add_biases(resnet20_layernorm(), [], (torch.randn(2, 1, 8, 8),))[0].eval()


def residual(seed: int) -> nn.Module:
    """Random weights for it, and one in the place of every gain."""
    torch.manual_seed(seed)
    model = copy.deepcopy(with_biases())
    for p in model.parameters():
        nn.init.normal_(p, 0, 1 / p[0].numel() ** 0.5)
    return model


KINDS: dict[str, tuple[Callable[[int], nn.Module], tuple[int, ...]]] = {
    "mlp": (mlp, (64, 6)),
    "vgg": (lambda seed: vgg(seed, norm=False), (64, 1, 8, 8)),
    "resnet20": (residual, (64, 1, 8, 8)),
}


@pytest.mark.parametrize("kind", KINDS)
def test_it_equals_the_papers_inserted_layers(kind: str) -> None:
    build, shape = KINDS[kind]
    a, b, middle = build(0), build(1), build(2)
    x = torch.randn(*shape)
    graph = gm.trace(a, (x,))
    merged = gm.average([a.state_dict(), b.state_dict()], [0.3, 0.7])
    middle.load_state_dict(merged)
    wanted = plain_repair([a, b], middle, x, (0.3, 0.7))
    middle.load_state_dict(gm.repair(graph, merged, [a, b], [(x, None)], (0.3, 0.7), gains="no"))
    with torch.no_grad():
        assert torch.allclose(middle(x), wanted, atol=1e-4)


def test_a_resnet20_with_batchnorm_is_reset_as_in_the_paper() -> None:
    torch.manual_seed(0)
    a, b, x = resnet20(), resnet20(), torch.randn(64, 1, 8, 8)
    merged = gm.average([a.state_dict(), b.state_dict()])
    repaired = gm.reset_batchnorm(b, merged, [(x,)])
    a.load_state_dict(merged)
    for m in a.modules():
        if isinstance(m, nn.BatchNorm2d):
            m.momentum = None  # a cumulative average, over one pass in training mode
    with torch.no_grad():
        a.train()(x)
        wanted = a.eval()(x)
        b.load_state_dict(repaired)
        assert torch.allclose(b.eval()(x), wanted, atol=1e-4)


def test_statistics_reach_the_interpolated_goal() -> None:
    a, b, x = mlp(0), mlp(1), torch.randn(256, 6)
    graph = gm.trace(a, (x,))
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
    assert available(gm.trace(vgg(0, norm=True), (torch.randn(2, 1, 8, 8),))) == (
        "bn-reset", "closed-form", "temperature",
    )  # fmt: skip
    assert available(gm.trace(mlp(0), (torch.randn(2, 6),))) == (
        "repair", "rescale", "reshift", "closed-form", "temperature",
    )  # fmt: skip
    assert available(gm.trace(nn.Linear(3, 2), (torch.randn(2, 3),))) == ("temperature",)


def test_dead_units_are_left_alone_and_counted() -> None:
    a, b, x = mlp(0), mlp(1), torch.randn(64, 6)
    for m in (a, b):
        with torch.no_grad():
            m[0].weight[2] = 0  # type: ignore[index, union-attr, operator]
    graph = gm.trace(a, (x,))
    merged = gm.average([a.state_dict(), b.state_dict()])
    task = Task(graph, (a.state_dict(), b.state_dict()), [(x,)])
    for method in ("repair", "rescale", "reshift", "closed-form"):
        state, report = repair_with_report(task, merged, method=method)
        assert report.notes[method]["dead units"] == {"0.weight": 1}
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
