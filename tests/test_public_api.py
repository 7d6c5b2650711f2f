"""The names promised to users: present, and what they were promised to be."""

from __future__ import annotations

import inspect

import pytest
import torch
from torch import nn

import graphmerge as gm

FUNCTIONS = {
    "trace": ("model", {"kwargs"}),
    "verify": ("graph", set()),
    "match": ("graph", {"method", "data", "seed"}),
    "match_many": ("graph", {"method", "data", "seed"}),
    "merge": ("graph", {"method", "alignment", "weights", "base", "data", "own_data", "out_dtype"}),
    "merge_heads": ("a", {"head", "keep", "labels"}),
    "repair": ("graph", {"data"}),
    "barrier": ("graph", {"data", "points", "repair"}),
    "export_onnx": ("model", set()),
}
"""For each function its first parameter and those that are passed by name."""


@pytest.mark.parametrize("name", FUNCTIONS)
def test_the_function_is_there(name: str) -> None:
    first, by_name = FUNCTIONS[name]
    parameters = list(inspect.signature(getattr(gm, name)).parameters)
    assert parameters[0] == first
    assert by_name <= set(parameters)


def test_all_lists_what_is_public() -> None:
    assert set(FUNCTIONS) <= set(gm.__all__)
    assert [n for n in gm.__all__ if not hasattr(gm, n)] == []


@pytest.fixture
def mlp() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(5, 8), nn.ReLU(), nn.Linear(8, 4))


class TestModelGraph:
    def test_groups_have_the_promised_attributes(self, mlp: nn.Module) -> None:
        (group,) = gm.trace(mlp, (torch.randn(3, 5),)).groups
        assert (group.name, group.size, group.kind, group.within) == ("0", 8, "permutation", ())
        assert group.members == (("0.weight", 0), ("0.bias", 0), ("2.weight", 1))

    def test_constraints_are_a_graph_of_tensor_dimensions(self, mlp: nn.Module) -> None:
        graph = gm.trace(mlp, (torch.randn(3, 5),))
        assert ("0.weight", 0) in graph.constraints
        assert ("0.bias", 0) in graph.constraints

    def test_summary_and_explain_are_texts(self, mlp: nn.Module) -> None:
        graph = gm.trace(mlp, (torch.randn(3, 5),))
        assert "8" in graph.summary()
        assert "2.weight" in graph.explain("0.weight", 0)
        assert "fixed" in graph.explain("0.weight", 1)

    def test_transforms_apply_invert_and_compose(self, mlp: nn.Module) -> None:
        graph = gm.trace(mlp, (torch.randn(3, 5),))
        t, state = graph.random_transform(seed=0), mlp.state_dict()
        moved = t.apply(state)
        assert list(moved) == list(state)
        assert not torch.equal(moved["0.weight"], state["0.weight"])
        assert (t.inverse() @ t).is_identity
        back = t.inverse().apply(moved)
        assert all(torch.equal(back[n], state[n]) for n in state)


def test_a_verification_has_the_promised_attributes(mlp: nn.Module) -> None:
    verification = gm.verify(gm.trace(mlp, (torch.randn(3, 5),)), mlp)
    assert verification.passed
    assert 0 <= verification.max_error <= 1e-9
    assert [g.name for g in verification.groups] == ["0"]


def test_an_alignment_has_the_promised_attributes(mlp: nn.Module) -> None:
    graph = gm.trace(mlp, (torch.randn(3, 5),))
    a = mlp.state_dict()
    b = graph.random_transform(seed=1).apply(a)
    alignment = gm.match(graph, a, b, method="weight", data=None, seed=0)
    assert isinstance(float(alignment.objective), float)
    assert len(alignment.history) >= 1
    aligned = alignment.apply(b)
    assert alignment.apply(mlp).keys() == a.keys()
    assert all(torch.equal(aligned[n], a[n]) for n in a)
    assert alignment.transform == graph.random_transform(seed=1).inverse()


def test_a_merge_is_a_state_dict(mlp: nn.Module) -> None:
    graph = gm.trace(mlp, (torch.randn(3, 5),))
    a = mlp.state_dict()
    merged = gm.merge(graph, [a, a], method="average")
    assert list(merged) == list(a)
    assert all(torch.allclose(merged[n], a[n]) for n in a)


def test_what_is_no_model_is_refused_by_name() -> None:
    model = nn.Linear(3, 2)
    graph = gm.trace(model, (torch.randn(2, 3),))
    with pytest.raises(gm.UsageError, match=r"seen: one tensor. Write \(x,\)"):
        gm.trace(model, torch.randn(2, 3))
    with pytest.raises(gm.UsageError, match=r"a module or a state dict; seen: NoneType"):
        gm.match(graph, model, None)  # type: ignore[arg-type]
    with pytest.raises(gm.UsageError, match=r"seen: str \(gm.load_checkpoint reads a file\)"):
        gm.merge(graph, ["a.pt", "b.pt"])  # type: ignore[list-item]
    with pytest.raises(gm.UsageError, match="did you mean 'weight'"):
        gm.match(graph, model, model, "wieght")
    with pytest.raises(gm.UsageError, match="did you mean 'average'"):
        gm.merge(graph, [model, model], "averge")
