"""Fisher-weighted averaging: the diagonal against gradients by hand, for any architecture."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from families import Data, State, family
from torch import Tensor, nn

import graphmerge as gm
from graphmerge.errors import InputError, TraceError, UsageError
from graphmerge.merge.fisher import diagonal_fisher
from graphmerge.merge.job import Job
from models_zoo.lstm import lstm


def fisher(graph: gm.ModelGraph, state: State, data: Data, labels: str, seed: int = 0) -> State:
    """The diagonal of every parameter."""
    names = {n: graph.names.get(n, n) for n in state}
    parameters = frozenset(names[n] for n, _ in graph.model.named_parameters())
    return diagonal_fisher(Job(graph, (), {}, parameters, names), state, data, labels, seed)


def by_autograd(model: nn.Module, data: Data, draws: int | None = None) -> State:
    """Mean of squared gradients, example by example; over all classes by their probability, or targets."""
    named = dict(model.named_parameters())
    total = {n: torch.zeros_like(p) for n, p in named.items()}
    for x, y in ((x[None], y) for batch in data for x, y in zip(*batch, strict=True)):
        log_p = model(x).flatten(0, -2).log_softmax(-1)
        classes = range(log_p.shape[-1]) if draws is None else [None]
        for c in classes:
            chosen = log_p[0, c] if c is not None else -F.nll_loss(log_p, y.reshape(-1), reduction="sum")
            share = 1.0 if c is None else float(log_p[0, c].detach().exp())
            gradients = torch.autograd.grad(chosen, list(named.values()), retain_graph=True)
            for n, g in zip(named, gradients, strict=True):
                total[n] += share * g.square()
    return {n: t / sum(len(y) for _, y in data) for n, t in total.items()}


def test_logistic_regression_by_hand() -> None:
    torch.manual_seed(0)
    model = nn.Linear(3, 4).double()
    x = torch.randn(20, 3, dtype=torch.float64)
    p = model(x).softmax(-1)
    graph = gm.trace(model, (x[:2],))
    found = fisher(graph, model.state_dict(), [(x, torch.zeros(20).long())], "exact")
    # the gradient of log p_y by the logit of class c is [y = c] - p_c, of variance p_c (1 - p_c)
    variance = p * (1 - p)
    assert torch.allclose(found["bias"], variance.mean(0))
    assert torch.allclose(found["weight"], variance.T @ x.square() / 20)


@pytest.mark.parametrize("name", ["mlp", "cnn", "vit"])
def test_the_exact_expectation_is_that_of_gradients_one_by_one(name: str) -> None:
    f = family(name)
    f.graph.model.load_state_dict(f.models[0])
    data = [(x[:3], y[:3]) for x, y in f.data[0]]
    expected = by_autograd(f.graph.model, data)
    found = fisher(f.graph, f.models[0], data, "exact")
    assert all(torch.allclose(found[n], t) for n, t in expected.items())


def test_the_empirical_one_adds_up_the_predictions_of_a_text_and_the_uses_of_a_tied_weight() -> None:
    f = family("gpt")
    f.graph.model.load_state_dict(f.models[0])
    expected = by_autograd(f.graph.model, f.data[0], draws=1)
    found = fisher(f.graph, f.models[0], f.data[0], "empirical")
    assert all(torch.allclose(found[f.graph.names[n]], t) for n, t in expected.items())


def test_recurrent_networks_and_single_precision() -> None:
    torch.manual_seed(0)
    model = lstm(hidden=6, classes=3).eval()
    data = [(torch.randn(4, 1, 28, 28), torch.randint(0, 3, (4,)))]
    found = fisher(gm.trace(model, (data[0][0],)), model.state_dict(), data, "empirical")
    expected = by_autograd(model, data, draws=1)
    assert all(torch.allclose(found[n], t, rtol=1e-3, atol=1e-8) for n, t in expected.items())


def test_sampled_labels_have_the_exact_expectation() -> None:
    f = family("mlp")
    x, y = f.data[0][0]
    many = [(x.repeat(400, 1), y.repeat(400))]
    exact = fisher(f.graph, f.models[0], [(x, y)], "exact")
    found = fisher(f.graph, f.models[0], many, "sampled")
    assert all(torch.allclose(found[n], t, rtol=0.2, atol=0.02 * float(t.max())) for n, t in exact.items())
    again = fisher(f.graph, f.models[0], many, "sampled")
    assert all(torch.equal(found[n], t) for n, t in again.items())
    other = fisher(f.graph, f.models[0], many, "sampled", seed=1)
    assert not torch.equal(found["0.weight"], other["0.weight"])


def test_the_merge_is_the_weighted_mean_and_the_plain_one_where_nothing_depends_on_an_entry() -> None:
    f = family("mlp")
    a, b = ({n: t.clone() for n, t in s.items()} for s in f.models)
    for s in (a, b):
        s["0.bias"][0] = -1e6  # a dead unit
    found = [fisher(f.graph, s, d, "exact") for s, d in zip((a, b), f.data, strict=True)]
    result = gm.merge(f.graph, [a, b], "fisher", weights=(1, 3), own_data=f.data)
    for n, t in result.items():
        fa, fb = (g[n] + 1e-10 for g in found)
        assert torch.allclose(t, (fa * a[n] + 3 * fb * b[n]) / (fa + 3 * fb))
    dead = result["0.weight"][0]
    assert torch.allclose(dead, (a["0.weight"][0] + 3 * b["0.weight"][0]) / 4)


class ByName(nn.Module):
    """Takes its input by name, with a scale that is the same for all examples."""

    def __init__(self) -> None:
        super().__init__()
        self.fc = nn.Linear(3, 2)

    def forward(self, x: Tensor, scale: Tensor) -> Tensor:
        out: Tensor = self.fc(x) * scale
        return out


def test_inputs_by_name_and_inputs_without_an_example_dimension() -> None:
    model = ByName()
    x, scale = torch.randn(5, 3), torch.tensor([1.0, 2.0])
    graph = gm.trace(model, (), {"x": x, "scale": scale})
    found = fisher(graph, model.state_dict(), [({"x": x, "scale": scale}, torch.zeros(5).long())], "exact")
    p = model(x, scale).softmax(-1)
    assert torch.allclose(found["fc.bias"], (p[:, :1] * p[:, 1:]).mean(0) * torch.tensor([1.0, 4.0]))


class Noisy(ByName):
    """Adds noise of its own, which no example can have to itself."""

    def forward(self, x: Tensor, scale: Tensor) -> Tensor:
        return super().forward(x + torch.rand_like(x), scale)


def test_what_cannot_be_measured_is_refused() -> None:
    noisy, inputs = Noisy(), {"x": torch.randn(5, 3), "scale": torch.ones(2)}
    with pytest.raises(TraceError, match="example by example"):
        gm.merge(gm.trace(noisy, (), inputs), [noisy, noisy], "fisher", data=[(inputs, None)])
    f, text = family("mlp"), family("gpt")
    with pytest.raises(UsageError, match="sampled"):
        gm.merge(text.graph, text.models, "fisher", data=text.data[0])
    with pytest.raises(InputError, match="no batch"):
        gm.merge(f.graph, f.models, "fisher", data=[])
    with pytest.raises(InputError, match="targets"):
        gm.merge(f.graph, f.models, "fisher", data=[x for x, _ in f.data[0]], labels="empirical")
    with pytest.raises(UsageError, match="one-shot"):
        gm.merge(f.graph, f.models, "fisher", data=iter(f.data[0]))
