"""Each method against cases worked by hand and against a plain writing of its paper."""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping
from functools import cache

import pytest
import torch
from families import State, close, family
from torch import Tensor, nn

import graphmerge as gm
from graphmerge.errors import InputError, UsageError
from graphmerge.merge import METHODS, merge_with_report


class Numbers(nn.Module):
    """A network that is one vector of weights, to work by hand."""

    def __init__(self, *values: float) -> None:
        super().__init__()
        self.w = nn.Parameter(torch.tensor(values))

    def forward(self, x: Tensor) -> Tensor:
        return x * self.w


@cache
def numbers(size: int) -> gm.ModelGraph:
    return gm.trace(Numbers(*[0.0] * size), (torch.randn(2, size),))


def by_hand(
    method: str, *models: list[float], base: list[float] | None = None, **more: object
) -> list[float]:
    """Merge models of one vector each."""
    start = None if base is None else {"w": torch.tensor(base)}
    states = [{"w": torch.tensor([float(x) for x in values])} for values in models]
    result = gm.merge(numbers(len(models[0])), states, method, base=start, **more)
    return [round(x, 5) for x in result["w"].tolist()]


def task_vectors(names: Mapping[str, Tensor], models: tuple[State, ...], base: State) -> list[Tensor]:
    """Each model's parameters less the base's as one vector."""
    return [torch.cat([(m[n] - base[n]).flatten() for n in names]) for m in models]


def parameters(graph: gm.ModelGraph) -> dict[str, Tensor]:
    return dict(graph.model.named_parameters())


def test_linear_takes_any_coefficients() -> None:
    assert by_hand("average", [1, 2], [3, 6]) == [2, 4]
    assert by_hand("average", [1, 2], [3, 6], weights=(2, -1)) == [-1, -2]
    assert by_hand("average", [1, 2], [3, 6], [5, 10]) == [3, 6]


def test_coefficients_by_parameter_and_by_group() -> None:
    f = family("cnn")
    a, b = f.models
    group = next(g for g in f.graph.groups if ("down.weight", 0) in g.members)
    rules = {"head.bias": (0.0, 1.0), group.name: (0.25, 0.75), "*": (1.0, 0.0)}
    result = gm.merge(f.graph, [a, b], weights=rules)
    assert torch.equal(result["head.bias"], b["head.bias"])
    assert torch.allclose(result["down.weight"], 0.25 * a["down.weight"] + 0.75 * b["down.weight"])
    assert torch.allclose(result["head.weight"], 0.25 * a["head.weight"] + 0.75 * b["head.weight"])
    assert torch.equal(result["stem.weight"], a["stem.weight"])
    halved = gm.merge(f.graph, [a, b], weights={"stem.*": (1.0, 0.0)})
    assert torch.equal(halved["stem.weight"], a["stem.weight"])
    assert torch.allclose(halved["down.weight"], (a["down.weight"] + b["down.weight"]) / 2)


@pytest.mark.parametrize(
    ("weights", "fragment"),
    [
        ((1.0,), "one weight per model"),
        ((math.nan, 1.0), "finite"),
        ({"nothing.*": (0.5, 0.5)}, "no parameter or group"),
        ({"stem.*": (0.5,)}, "one weight per model"),
    ],
)
def test_wrong_weights_are_refused(weights: object, fragment: str) -> None:
    f = family("cnn")
    with pytest.raises(UsageError, match=fragment):
        gm.merge(f.graph, f.models, weights=weights)
    with pytest.raises(UsageError, match="shares"):
        gm.merge(f.graph, f.models, "slerp", weights=(-1.0, 2.0))


def test_slerp_follows_the_arc() -> None:
    half = math.sqrt(0.5)
    assert by_hand("slerp", [1, 0], [0, 1]) == [round(half, 5)] * 2
    third = by_hand("slerp", [2, 0], [0, 1], weights=(2, 1))
    assert third == [round(2 * math.sin(math.pi / 3), 5), round(math.sin(math.pi / 6), 5)]
    assert by_hand("slerp", [1, 2], [2, 4]) == [1.5, 3]
    assert by_hand("slerp", [1, 0], [-1, 0], weights=(0.75, 0.25)) == [0.5, 0]
    assert by_hand("slerp", [0, 0], [1, 3]) == [0.5, 1.5]


def test_slerp_of_the_whole_model_has_one_angle() -> None:
    f = family("mlp")
    names = parameters(f.graph)
    a, b = (torch.cat([s[n].flatten() for n in names]) for s in f.models)
    angle = torch.arccos(a @ b / a.norm() / b.norm())
    expected = (torch.sin(0.7 * angle) * a + torch.sin(0.3 * angle) * b) / torch.sin(angle)
    result = gm.merge(f.graph, f.models, "slerp", weights=(0.7, 0.3), scope="model")
    assert torch.allclose(torch.cat([result[n].flatten() for n in names]), expected)


def test_task_arithmetic_adds_what_was_learned_and_takes_it_away() -> None:
    assert by_hand("task-arithmetic", [2, 1], [1, 4], base=[1, 1], scale=1) == [2, 4]
    assert by_hand("task-arithmetic", [2, 1], base=[1, 1], weights=(-1,), scale=1) == [0, 1]
    assert by_hand("task-arithmetic", [2, 1], [1, 4], base=[1, 1]) == [1.4, 2.2]


def test_ties_trims_elects_and_merges() -> None:
    # task vectors 5 -1 2 0 and -4 3 3 1: of each the two largest are kept: 5 . 2 . and -4 3 3 . (a tie)
    base, a, b = [1.0] * 4, [6.0, 0.0, 3.0, 1.0], [-3.0, 4.0, 4.0, 2.0]
    assert by_hand("ties", a, b, base=base, density=0.5) == [6, 4, 3.5, 1]
    assert by_hand("ties", a, b, base=base, density=1.0) == [6, 4, 3.5, 2]
    assert by_hand("ties", a, b, base=base, density=1.0, scale=0.5) == [3.5, 2.5, 2.25, 1.5]
    assert by_hand("ties", a, b, base=base, density=1.0, weights=(1, 2)) == [-3, 4, round(1 + 8 / 3, 5), 2]
    assert by_hand("ties", [2.0], [0.0], base=[1.0], density=1.0) == [1]
    assert by_hand("ties", a, b, base=base, density=0.0) == base


def test_ties_is_algorithm_1_of_its_paper() -> None:
    f = family("vit")
    names = parameters(f.graph)
    rows = torch.stack(task_vectors(names, f.models, f.base))
    kept = torch.zeros_like(rows)
    for row, out in zip(rows, kept, strict=True):
        top = row.abs().argsort(descending=True)[: round(0.3 * len(row))]
        out[top] = row[top]
    sign = kept.sum(0).sign()
    agree = kept.sign() == sign
    mean = (kept * agree).sum(0) / agree.sum(0).clamp_min(1)
    result = gm.merge(f.graph, f.models, "ties", base=f.base, density=0.3, scale=0.8)
    (found,) = task_vectors(names, (result,), f.base)
    assert torch.allclose(found, 0.8 * mean)


def test_dare_keeps_the_share_told_scales_it_up_and_is_task_arithmetic_on_average() -> None:
    f = family("mlp")
    names = parameters(f.graph)
    (full,) = task_vectors(names, f.models[:1], f.base)
    expected = gm.merge(f.graph, f.models, "task-arithmetic", base=f.base, scale=1.0)
    one = gm.merge(f.graph, f.models[:1], "dare", base=f.base, density=0.25, scale=1.0)
    (found,) = task_vectors(names, (one,), f.base)
    kept = found.abs() > 1e-12
    assert 0.15 < kept.double().mean() < 0.35
    assert torch.allclose(found[kept], 4 * full[kept])
    options = {"base": f.base, "density": 0.5, "scale": 1.0}
    draws = [gm.merge(f.graph, f.models, "dare", seed=seed, **options) for seed in range(300)]
    mean = {n: torch.stack([d[n] for d in draws]).mean(0) for n in expected}
    spread = torch.cat([(mean[n] - expected[n]).flatten() for n in names]).square().mean().sqrt()
    whole = torch.stack(task_vectors(names, f.models, f.base)).square().sum(0).mean().sqrt()
    assert spread < 1.2 * whole / math.sqrt(300)
    again = gm.merge(f.graph, f.models, "dare", seed=7, **options)
    assert close(again, draws[7], 0.0)
    assert not close(again, draws[8], 1e-3)


def test_dare_with_ties_elects_signs_among_what_was_kept() -> None:
    # nothing dropped: the task vectors 5 -1 2 and -4 3 3 elect + + +
    assert by_hand("dare-ties", [5, -1, 2], [-4, 3, 3], base=[0, 0, 0], density=1.0) == [5, 3, 2.5]
    values = by_hand("dare-ties", [1.0] * 200, base=[0.0] * 200, density=0.5)
    assert set(values) == {0.0, 2.0}


def test_model_stock_trusts_the_average_by_the_angle() -> None:
    base = [0.0, 0.0]
    assert by_hand("model-stock", [1, 0], [0, 1], base=base) == base  # at right angles: nothing in common
    cosine = 0.6
    ratio = 2 * cosine / (1 + cosine)
    expected = [round(ratio * (1 + cosine) / 2, 5), round(ratio * 0.8 / 2, 5)]
    assert by_hand("model-stock", [1, 0], [0.6, 0.8], base=base) == expected
    assert by_hand("model-stock", [1, 0], [-1, 0.1], base=base) == base  # below 0 counts as 0


def test_model_stock_takes_the_mean_cosine_of_all_pairs_of_each_parameter() -> None:
    f = family("cnn")
    models = [*f.models, {n: 2 * t - f.base[n] if "weight" in n else t for n, t in f.models[0].items()}]
    result, report = merge_with_report(f.graph, models, "model-stock", base=f.base)
    for name in parameters(f.graph):
        moved = [(m[name] - f.base[name]).flatten() for m in models]
        pairs = [torch.cosine_similarity(x, y, dim=0) for x, y in itertools.combinations(moved, 2)]
        cosine = max(0.0, float(torch.stack(pairs).mean()))
        ratio = 3 * cosine / (1 + 2 * cosine)
        assert report.notes["t"][name] == pytest.approx(ratio)
        mean = torch.stack(moved).mean(0).reshape(f.base[name].shape)
        assert torch.allclose(result[name], f.base[name] + ratio * mean)


def plain_tsv(updates: list[Tensor]) -> Tensor:
    """TSV-M's algorithm, one singular triplet after the other."""
    k = min(updates[0].shape) // len(updates)
    left, sizes, right = [], [], []
    for m in updates:
        u, s, v = torch.linalg.svd(m, full_matrices=False)
        for i in range(k):
            left.append(u[:, i])
            sizes.append(s[i])
            right.append(v[i])
    nearest = []
    for columns in (torch.stack(left, 1), torch.stack(right, 1)):
        p, _, q = torch.linalg.svd(columns, full_matrices=False)
        nearest.append(p @ q)
    return nearest[0] @ torch.diag(torch.stack(sizes)) @ nearest[1].T


def plain_iso(updates: list[Tensor]) -> Tensor:
    """Iso-C's: the sum of the task matrices with equal singular values."""
    u, s, v = torch.linalg.svd(torch.stack(updates).sum(0), full_matrices=False)
    return s.mean() * u @ v


@pytest.mark.parametrize(("method", "plain"), [("tsv-m", plain_tsv), ("iso-c", plain_iso)])
def test_spectral_methods_are_their_papers_on_matrices_and_average_the_rest(
    method: str, plain: object
) -> None:
    f = family("cnn")
    assert callable(plain)
    result = gm.merge(f.graph, f.models, method, base=f.base, scale=0.7)
    for name in parameters(f.graph):
        moved = [m[name] - f.base[name] for m in f.models]
        if moved[0].ndim > 1:
            flat = [m.reshape(len(m), -1) for m in moved]
            update = plain(flat).reshape(moved[0].shape)
        else:
            update = torch.stack(moved).mean(0)
        assert torch.allclose(result[name], f.base[name] + 0.7 * update), name


def test_tsv_m_of_one_model_is_that_model_and_iso_c_keeps_the_sum_of_its_singular_values() -> None:
    f = family("mlp")
    one = gm.merge(f.graph, f.models[:1], "tsv-m", base=f.base)
    assert close(one, f.models[0])
    iso = gm.merge(f.graph, f.models[:1], "iso-c", base=f.base)
    found, own = ((s["2.weight"] - f.base["2.weight"]).svd().S for s in (iso, f.models[0]))
    assert torch.allclose(found, own.mean().expand(7))


class TestGreedySoup:
    """On data that one of three models has made."""

    def setup_method(self) -> None:
        f = self.f = family("mlp")
        torch.manual_seed(1)
        x = torch.randn(400, 5, dtype=torch.float64)
        truth = gm.merge(f.graph, f.models)
        self.held_out = [(x, torch.func.functional_call(f.graph.model, truth, (x,)).argmax(-1).detach())]
        noise = {n: t + 3 * torch.randn_like(t) for n, t in f.base.items()}
        self.models = [noise, *f.models]

    def accuracy(self, state: State) -> float:
        return gm.evaluate(self.f.graph.model, state, self.held_out).accuracy

    def test_it_takes_what_helps_and_leaves_what_does_not(self) -> None:
        result, report = merge_with_report(self.f.graph, self.models, "greedy-soup", data=self.held_out)
        assert report.notes["ingredients"] == [1, 2]
        assert report.notes["accuracy"] == 1.0
        assert close(result, gm.average(self.models[1:]))

    def test_it_never_falls_below_its_best_ingredient(self) -> None:
        for seed in range(5):
            torch.manual_seed(seed)
            models = [{n: t + 0.4 * torch.randn_like(t) for n, t in self.f.base.items()} for _ in range(4)]
            result, report = merge_with_report(self.f.graph, models, "greedy-soup", data=self.held_out)
            assert report.notes["accuracies"] == [self.accuracy(m) for m in models]
            assert self.accuracy(result) == report.notes["accuracy"] >= max(report.notes["accuracies"])


def test_half_precision_is_merged_in_float32_and_stored_as_told() -> None:
    f = family("mlp", torch.float32)
    graph = f.graph
    half = [{n: t.half() for n, t in s.items()} for s in (*f.models, f.base)]
    single = [{n: t.float() for n, t in s.items()} for s in half]
    for method in ("average", "slerp", "task-arithmetic", "ties", "model-stock", "tsv-m"):
        expected = gm.merge(graph, single[:2], method, base=single[2])
        stored = gm.merge(graph, half[:2], method, base=half[2])
        wide = gm.merge(graph, half[:2], method, base=half[2], out_dtype=torch.float32)
        assert all(torch.equal(stored[n], t.half()) for n, t in expected.items())
        assert all(torch.equal(wide[n], t) for n, t in expected.items())


def test_a_variance_stays_one_whatever_the_weights() -> None:
    f = family("cnn")
    a, b = f.models
    result = gm.merge(f.graph, [a, b], weights=(3.0, -2.0))
    assert torch.equal(result["norm.running_var"], a["norm.running_var"])
    assert torch.allclose(result["stem.weight"], 3 * a["stem.weight"] - 2 * b["stem.weight"])


def test_the_base_stays_in_the_frame_of_the_first_model() -> None:
    f = family("mlp")
    move = f.graph.random_transform(seed=5)
    moved = move.apply(f.models[1])
    found = gm.merge(f.graph, [f.models[0], moved], "ties", alignment=move.inverse(), base=f.base)
    assert close(found, gm.merge(f.graph, f.models, "ties", base=f.base))


def test_models_that_do_not_fit_are_refused() -> None:
    f = family("mlp")
    a = f.models[0]
    with pytest.raises(InputError, match=r"model 2 lacks tensor 0\.bias"):
        gm.merge(f.graph, [a, {n: t for n, t in a.items() if n != "0.bias"}])
    with pytest.raises(InputError, match="merge_heads"):
        gm.merge(f.graph, [a, {**a, "4.weight": torch.zeros(6, 7), "4.bias": torch.zeros(6)}])
    with pytest.raises(InputError, match="the base lacks"):
        gm.merge(f.graph, [a], "ties", base={})
    assert "magic" not in METHODS
