"""What is measured layer by layer, each against a plain computation."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from plainly import Residual, conv, labelled, middle, mlp, steps, traced
from torch import nn

import graphmerge as gm
from graphmerge.errors import InputError, UsageError
from graphmerge.evaluate import cka, lewc, llfc, stitch, variance_path
from graphmerge.evaluate.layers import affine_layers, layers
from graphmerge.evaluate.stitch import cuts


def test_layers_are_the_values_that_leave_their_module() -> None:
    found = layers(traced(mlp, 12, 5).program)
    assert [(y.name, y.depth) for y in found] == [("0", 1), ("1", 1), ("2", 2), ("3", 2), ("4", 3)]
    named = [y.name for y in layers(traced(Residual, 12, 5).program)]
    assert named == ["stem", "relu", "block", "tanh", "head"]  # the sum stays within the outermost module
    picture = traced(conv, 8, 1, 6, 6).program
    assert [y.name for y in layers(picture)] == ["0", "1", "2", "4"]  # flattening computes nothing
    assert [(y.name, y.unit_dim) for y in affine_layers(picture)] == [("0", 1), ("4", -1)]
    assert [y.name for y in layers(picture, ["[12]"])] == ["1", "2"]
    with pytest.raises(UsageError, match="no layer fits nothing"):
        layers(picture, ["nothing"])


@pytest.mark.parametrize("at", [0.5, 0.2])
def test_llfc_and_lewc_are_those_of_their_equations(at: float) -> None:
    a, b, data = mlp(0), mlp(1), labelled()
    x = torch.cat([batch[0] for batch in data])
    fa, fb, fm = (steps(m, x) for m in (a, b, middle(a, b, mlp(2), at)))  # type: ignore[arg-type]
    graph = traced(mlp, 12, 5)
    for measure, weights in (
        (llfc, [(1 - at, at)] * 5),
        (lewc, [((1 - at) ** k, at**k) for k in (1, 1, 2, 2, 3)]),
    ):
        rows = measure(graph, a, b, data, at).rows
        for row, p, q, m, (v, w) in zip(rows, fa, fb, fm, weights, strict=True):
            mixed = v * p + w * q
            cos = F.cosine_similarity(m, mixed)
            assert row.deviation == pytest.approx(float((1 - cos).mean()), abs=1e-6)
            assert row.baseline == pytest.approx(float((1 - F.cosine_similarity(p, q)).mean()), abs=1e-6)
            length = cos * m.norm(dim=1) / mixed.norm(dim=1)
            assert row.coefficient == pytest.approx(float(length.mean()), rel=1e-5)


def test_between_a_model_and_itself_features_are_connected() -> None:
    a, data = mlp(0), labelled()
    graph = traced(mlp, 12, 5)
    for row in llfc(graph, a, a, data).rows:
        assert row.deviation == pytest.approx(0, abs=1e-6)
        assert row.baseline == pytest.approx(0, abs=1e-6)
        assert row.coefficient == pytest.approx(1, abs=1e-6)
    last = lewc(graph, a, a, data).rows[-1]
    assert last.coefficient == pytest.approx(4)  # f(a) against (1/8 + 1/8) f(a) at depth 3


def test_connectivity_of_a_deep_network_does_not_underflow() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(*(nn.Linear(4, 4, bias=False) for _ in range(180)))
    for p in model.parameters():
        nn.init.orthogonal_(p)
    graph = gm.trace(model, (torch.randn(8, 4),))
    last = lewc(graph, model, model, [torch.randn(8, 4)]).rows[-1]
    assert last.deviation == pytest.approx(0, abs=1e-5)
    assert last.coefficient == pytest.approx(2.0**179, rel=1e-4)  # 2 / 2^180 of the features is the mixture


def test_where_all_features_are_zero_nothing_shrinks() -> None:
    model = mlp(0)
    for p in model.parameters():
        nn.init.constant_(p, -1.0)  # the first ReLU is shut
    rows = llfc(traced(mlp, 12, 5), model, model, [(torch.rand(12, 5), None)]).rows
    assert [r.deviation for r in rows] == pytest.approx([0] * 5, abs=1e-9)
    assert [r.coefficient for r in rows] == pytest.approx([1] * 5)


def test_lengths_of_features_are_not_rounded_to_bfloat16() -> None:
    model, data = mlp(0).bfloat16(), [(x.bfloat16(), y) for x, y in labelled()]
    graph = gm.trace(model, (data[0][0],))
    assert [r.coefficient for r in llfc(graph, model, model, data).rows] == pytest.approx([1.0] * 5, abs=1e-6)


def test_variance_is_that_of_the_units_over_samples_and_space() -> None:
    a, b = conv(0), conv(1)
    x = torch.randn(8, 1, 6, 6)
    path = variance_path(traced(conv, 8, 1, 6, 6), a, b, [(x, None)], points=3)
    wanted = []
    for m in (a, middle(a, b, conv(2)), b):
        z, out = m[0](x).detach(), m(x).detach()  # type: ignore[index, operator]
        wanted.append([float(z.var((0, 2, 3), correction=0).sum()), float(out.var(0, correction=0).sum())])
    assert torch.allclose(torch.tensor(path.variance), torch.tensor(wanted), rtol=1e-5)
    assert path.ratio[0] == path.ratio[2] == (1.0, 1.0)
    assert path.ratio[1][0] == pytest.approx(wanted[1][0] / ((wanted[0][0] + wanted[2][0]) / 2), rel=1e-5)
    assert path.layers == ("0", "4")


def test_repair_restores_the_variance() -> None:
    a, b, data = mlp(0), mlp(1), labelled(60, 12)
    graph = traced(mlp, 12, 5)
    plain = variance_path(graph, a, b, data, points=3).ratio[1]
    repaired = variance_path(
        graph, a, b, data, 3, lambda s, t: gm.repair(graph, s, [a, b], data, (1 - t, t))
    ).ratio[1]
    assert plain[1] < 0.9
    assert repaired[1] > plain[1] + 0.05


def plain_hsic(k: torch.Tensor, other: torch.Tensor) -> float:
    """Song et al. 2012, equation 5, term by term."""
    n = len(k)
    k, other = k - k.diag().diag(), other - other.diag().diag()
    one = torch.ones(n, dtype=k.dtype)
    ends = (one @ k @ one) * (one @ other @ one) / ((n - 1) * (n - 2))
    return float(((k @ other).trace() + ends - 2 / (n - 2) * (one @ k @ other @ one)) / (n * (n - 3)))


def test_cka_is_the_unbiased_estimator_summed_over_batches() -> None:
    a, b, data = mlp(0), mlp(1), labelled()
    found = cka(traced(mlp, 12, 5), a, b, data)
    sums = torch.zeros(3, 5, 5)
    for x, _ in data:
        grams = [[(f.double() @ f.double().T) for f in steps(m, x)] for m in (a, b)]
        for k, (left, right) in enumerate(((0, 1), (0, 0), (1, 1))):
            for i in range(5):
                for j in range(5):
                    sums[k, i, j] += plain_hsic(grams[left][i], grams[right][j])
    wanted = sums[0] / (sums[1].diagonal()[:, None] * sums[2].diagonal()).sqrt()
    assert torch.allclose(torch.tensor(found.values), wanted, atol=1e-5)
    assert found.layers == ("0", "1", "2", "3", "4")


def test_cka_is_blind_to_the_order_of_units_and_one_for_the_same_model() -> None:
    a, data = mlp(0), labelled()
    graph = traced(mlp, 12, 5)
    moved = graph.random_transform(1).apply(a.state_dict())
    assert cka(graph, a, moved, data).diagonal == pytest.approx([1.0] * 5, abs=1e-5)
    with pytest.raises(InputError, match="at least 4"):
        cka(graph, a, a, [(data[0][0][:3], None)])


def test_layers_that_never_vary_have_no_cka() -> None:
    model, (x, _) = mlp(0).double(), labelled(9, 9)[0]
    nn.init.zeros_(model[2].weight)  # type: ignore[arg-type]
    nn.init.constant_(model[2].bias, 0.7)  # type: ignore[arg-type]
    values = torch.tensor(cka(gm.trace(model, (x.double(),)), model, model, [x.double()]).values)
    assert values[:2, :2].isfinite().all()
    assert values[2:].isnan().all()
    assert values[:, 2:].isnan().all()


def test_stitching_runs_the_first_part_of_one_and_the_rest_of_the_other() -> None:
    a, b, data = mlp(0), mlp(1), labelled()
    found = stitch(traced(mlp, 12, 5), a, b, data)
    assert found.cuts == ("0", "1", "2", "3")
    x, y = (torch.cat(t) for t in zip(*data, strict=True))
    for k, score in enumerate(found.scores):
        out = nn.Sequential(*a[: k + 1], *b[k + 1 :])(x)
        assert score.loss == pytest.approx(F.cross_entropy(out, y).item(), rel=1e-5)
        assert score.accuracy == pytest.approx((out.argmax(1) == y).float().mean().item())


def test_a_network_is_cut_only_where_everything_flows_through() -> None:
    a, b, data = Residual(0), Residual(1), labelled()
    graph = traced(Residual, 12, 5)
    assert [c.name for c in cuts(graph.program)] == ["stem", "relu", "tanh"]  # not inside the block
    x, y = (torch.cat(t) for t in zip(*data, strict=True))
    h = torch.relu(a.stem(x))
    wanted = b.head(torch.tanh(h + torch.relu(b.block(h))))
    assert stitch(graph, a, b, data).scores[1].loss == pytest.approx(F.cross_entropy(wanted, y).item())


def test_models_that_are_one_another_permuted_stitch_without_loss_once_aligned() -> None:
    a, data = mlp(0), labelled()
    graph = traced(mlp, 12, 5)
    moved = graph.random_transform(1).apply(a.state_dict())
    back = gm.match(graph, a, moved).apply(moved)
    own = gm.evaluate(a, a.state_dict(), data).loss
    assert [s.loss for s in stitch(graph, a, back, data).scores] == pytest.approx([own] * 4)
    assert stitch(graph, a, moved, data).scores[1].loss != pytest.approx(own, rel=1e-3)


def test_what_skips_every_layer_cannot_be_stitched() -> None:
    class Skip(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.one = nn.Linear(3, 3)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            out: torch.Tensor = x + self.one(x)
            return out

    graph = gm.trace(Skip(), (torch.randn(4, 3),))
    with pytest.raises(UsageError, match="cannot be stitched"):
        stitch(graph, graph.model, graph.model, [(torch.randn(4, 3), torch.zeros(4).long())])
