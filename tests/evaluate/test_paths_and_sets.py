"""Planes, paths, sets of models, distances, and the gate that alignment passes."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from plainly import conv, labelled, middle, mlp, traced
from torch import nn

import graphmerge as gm
from graphmerge.errors import GateError, InputError, UsageError
from graphmerge.evaluate import (
    BarrierCurve,
    CurveSpread,
    Score,
    barrier_matrix,
    barrier_path,
    distances,
    plane_through,
    random_plane,
    require_unmoved,
)
from graphmerge.evaluate.matrix import clustered
from graphmerge.evaluate.plane import filter_normalised


def flat(model: nn.Module) -> torch.Tensor:
    return nn.utils.parameters_to_vector(model.parameters()).detach().double()


def test_a_plane_through_three_models_by_plain_geometry() -> None:
    a, b, c = (mlp(k) for k in range(3))
    data = labelled()
    plane = plane_through(traced(mlp, 12, 5), [a, b, c], data, points=3, margin=0.0)
    u, v = flat(b) - flat(a), flat(c) - flat(a)
    along = v @ u / u.norm()
    assert plane.marks["a"] == (0.0, 0.0)
    assert plane.marks["b"] == pytest.approx((float(u.norm()), 0.0), rel=1e-6)
    assert plane.marks["c"] == pytest.approx((float(along), math.sqrt(v @ v - along**2)), rel=1e-6)
    x, y = (torch.cat(t) for t in zip(*data, strict=True))
    up = (v - along * u / u.norm()) / math.sqrt(v @ v - along**2)
    for i in range(3):
        for j in range(3):
            theta = flat(a) + plane.x[j] * u / u.norm() + plane.y[i] * up
            model = mlp(3)
            nn.utils.vector_to_parameters(theta.float(), model.parameters())
            wanted = F.cross_entropy(model(x), y).item()
            assert plane.scores[i][j].loss == pytest.approx(wanted, rel=1e-4)


def test_a_plane_goes_beyond_the_models_and_needs_three_that_differ() -> None:
    a, b, data = mlp(0), mlp(1), labelled()
    graph = traced(mlp, 12, 5)
    plane = plane_through(graph, [a, b, mlp(2)], data, points=2, margin=0.5)
    width = plane.marks["b"][0]
    assert plane.x == pytest.approx((-width / 2, 1.5 * width))
    with pytest.raises(UsageError, match="one line"):
        plane_through(graph, [a, b, middle(a, b, mlp(2))], data)
    with pytest.raises(UsageError, match="3 models, got 2"):
        plane_through(graph, [a, b], data)


def test_random_directions_have_the_norms_of_the_filters_and_spare_biases() -> None:
    model = conv(0)
    graph = traced(conv, 8, 1, 6, 6)
    state = model.state_dict()
    direction = filter_normalised(graph, state, torch.Generator().manual_seed(0))
    assert sorted(direction) == ["0.weight", "4.weight"]
    for name, d in direction.items():
        assert torch.allclose(d.flatten(1).norm(dim=1), state[name].flatten(1).norm(dim=1), rtol=1e-5)
    data = [(torch.randn(8, 1, 6, 6), torch.zeros(8).long())]
    plane = random_plane(graph, model, data, points=3, seed=4)
    assert plane.scores[1][1].loss == pytest.approx(gm.evaluate(model, state, data).loss, rel=1e-6)
    assert plane.x == (-1.0, 0.0, 1.0)
    assert plane == random_plane(graph, model, data, points=3, seed=4)
    assert plane != random_plane(graph, model, data, points=3, seed=5)


class Tied(nn.Module):
    """One matrix embeds classes and tells them apart."""

    def __init__(self) -> None:
        super().__init__()
        self.embed, self.head = nn.Embedding(6, 4), nn.Linear(4, 6, bias=False)
        self.head.weight = self.embed.weight

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        out: torch.Tensor = self.head(self.embed(x))
        return out


def test_tied_weights_move_together_on_a_random_plane() -> None:
    torch.manual_seed(0)
    model, data = Tied(), [(torch.arange(6), torch.arange(6).roll(1))]
    graph, state = gm.trace(model, (torch.arange(6),)), model.state_dict()
    plane = random_plane(graph, model, data, points=2, seed=4)
    generator = torch.Generator().manual_seed(4)
    x, y = (d for _ in range(2) for d in filter_normalised(graph, state, generator).values())
    for i, t in enumerate(plane.y):
        for j, s in enumerate(plane.x):
            w = state["embed.weight"] + s * x + t * y
            wanted = F.cross_entropy(w @ w.T, data[0][1]).item()
            assert plane.scores[i][j].loss == pytest.approx(wanted, rel=1e-5)


def test_the_extent_of_a_plane_does_not_suffer_from_bfloat16() -> None:
    models = [mlp(k).bfloat16() for k in range(3)]
    plane = plane_through(traced(mlp, 12, 5), models, [(x.bfloat16(), y) for x, y in labelled()], points=2)
    wanted = (flat(models[1]) - flat(models[0])).norm()
    assert plane.marks["b"][0] == pytest.approx(float(wanted), rel=1e-6)


def test_a_path_through_many_models_is_made_of_barriers() -> None:
    a, b, c = (mlp(k) for k in range(3))
    data = labelled()
    graph = traced(mlp, 12, 5)
    path = barrier_path(graph, [a, b, c], data, points=3)
    assert path == (gm.barrier(graph, a, b, data, 3), gm.barrier(graph, b, c, data, 3))
    with pytest.raises(UsageError, match="at least 2 models"):
        barrier_path(graph, [a], data)


def test_the_matrix_holds_the_barrier_of_every_pair() -> None:
    models, data = [mlp(k) for k in range(3)], labelled()
    graph = traced(mlp, 12, 5)
    found = barrier_matrix(graph, models, data, points=3, names=["p", "q", "r"])
    for i in range(3):
        assert found.values[i][i] == 0
        for j in range(3):
            wanted = gm.barrier(graph, models[i], models[j], data, 3).loss_above_line
            assert found.values[i][j] == pytest.approx(wanted, abs=1e-6)
    assert found.threshold == pytest.approx(max(map(max, found.values)) / 2)


def test_clusters_are_models_without_barriers_between_them() -> None:
    values = np.full((5, 5), 2.0)
    for group in ((0, 2, 4), (1, 3)):
        values[np.ix_(group, group)] = 0.1
    np.fill_diagonal(values, 0)
    found = clustered("abcde", values, None)
    assert found.clusters == (0, 1, 0, 1, 0)
    assert {frozenset(found.order[:3]), frozenset(found.order[2:])} & {frozenset({0, 2, 4})}
    assert clustered("abcde", values, 3.0).clusters == (0,) * 5
    assert clustered("abcde", values, 0.01).clusters == (0, 1, 2, 3, 4)
    values[0, 1] = values[1, 0] = np.nan
    assert clustered("abcde", values, None).clusters == (0, 1, 0, 1, 0)


@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_a_path_that_leaves_the_finite_has_no_finite_barrier(bad: float) -> None:
    scores = [Score(1.0, 0.5, 4), Score(bad, 0.25, 4), Score(1.0, 0.5, 4)]
    curve = BarrierCurve((0.0, 0.5, 1.0), tuple(scores))
    assert not math.isfinite(curve.loss)
    assert not math.isfinite(curve.loss_above_line)
    assert curve.error == curve.error_above_line == 0.25


def test_models_with_no_finite_barrier_share_no_cluster() -> None:
    for bad in (math.nan, math.inf):
        assert clustered("ab", np.array([[0, bad], [bad, 0]]), None).clusters == (0, 1)
        values = np.array([[0, 0.1, bad], [0.1, 0, bad], [bad, bad, 0]])
        assert clustered("abc", values, 1.0).clusters == (0, 0, 1)


def test_distances_and_angles_by_hand() -> None:
    model = nn.Sequential(nn.Linear(1, 2, bias=False), nn.ReLU(), nn.Linear(2, 1, bias=False))
    graph = gm.trace(model, (torch.randn(4, 1),))
    a = {"0.weight": torch.tensor([[1.0], [0.0]]), "2.weight": torch.tensor([[2.0, 0.0]])}
    b = {"0.weight": torch.tensor([[0.0], [1.0]]), "2.weight": torch.tensor([[0.0, 2.0]])}
    found = distances(graph, a, b, gm.match(graph, a, b).apply(b))
    first = found.parameters[0]
    assert (first.name, first.entries) == ("0.weight", 2)
    assert first.distance_before == pytest.approx(math.sqrt(2))
    assert first.angle_before == pytest.approx(90)
    assert first.distance_after == 0
    assert first.angle_after == 0
    assert found.total.distance_before == pytest.approx(math.sqrt(2 + 8))
    assert found.total.gain == 1
    assert [m.name for m in found.modules] == ["0", "2"]


def test_the_angle_to_a_model_that_is_no_number_is_none() -> None:
    a = {n: t.detach() for n, t in mlp(0).named_parameters()}
    b = {n: t * math.nan for n, t in a.items()}
    assert math.isnan(distances(traced(mlp, 12, 5), a, b, b).total.angle_before)


def test_buffers_do_not_count_as_distance() -> None:
    a, b = conv(0), conv(0)
    b[1].running_mean.add_(5)  # type: ignore[union-attr, operator]
    found = distances(traced(conv, 8, 1, 6, 6), a, b, b)
    assert found.total.distance_before == 0
    assert "1.running_mean" not in [p.name for p in found.parameters]


def test_alignment_passes_the_gate_and_what_is_no_symmetry_does_not() -> None:
    a, data = mlp(0), labelled()
    graph = traced(mlp, 12, 5)
    moved = graph.random_transform(3).apply(a.state_dict())
    assert require_unmoved(graph, a, moved, data) < 1e-5
    with pytest.raises(GateError, match="is not the model that it was"):
        require_unmoved(graph, a, moved | {"0.bias": a.state_dict()["0.bias"] + 1}, data)
    with pytest.raises(GateError, match="nan"):
        require_unmoved(graph, a, moved | {"0.bias": a.state_dict()["0.bias"] * math.nan}, data)
    with pytest.raises(InputError, match="no batch"):
        require_unmoved(graph, a, moved | {"0.bias": a.state_dict()["0.bias"] + 1}, [])


def test_seeds_are_summarised_by_mean_and_deviation() -> None:
    def curve(*losses: float) -> BarrierCurve:
        return BarrierCurve((0.0, 0.5, 1.0), tuple(Score(x, x / 10, 5) for x in losses))

    spread = CurveSpread((curve(1, 3, 1), curve(1, 5, 1)))
    assert [s.loss for s in spread.mean.scores] == [1, 4, 1]
    assert spread.deviations(lambda s: s.loss) == pytest.approx([0, math.sqrt(2), 0])
    assert spread.to_json()["barriers"]["loss"] == pytest.approx({"mean": 3, "std": math.sqrt(2)})
    assert CurveSpread((curve(1, 3, 1),)).deviations(lambda s: s.loss) == [0, 0, 0]
    with pytest.raises(UsageError, match="same places"):
        CurveSpread((curve(1, 3, 1), BarrierCurve((0.0, 1.0), (Score(1, 1, 1),) * 2)))
