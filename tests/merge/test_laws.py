"""Laws that hold for every method of the table, and for which they do not."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from families import FAMILIES, Family, State, close, family

import graphmerge as gm
from graphmerge.errors import UsageError
from graphmerge.merge import METHODS, merge_with_report

PLAIN: dict[str, dict[str, Any]] = {
    "task-arithmetic": {"scale": 0.5},
    "ties": {"density": 1.0},
    "dare": {"density": 1.0, "scale": 0.5},
    "dare-ties": {"density": 1.0},
}
"""Options under which nothing is trimmed or dropped, and two task vectors count as their mean."""

QUICK: dict[str, dict[str, Any]] = {"ode-m": {"step": 0.1}}
"""Options under which a method is as lawful, and sooner done."""

SPECTRAL = {"tsv-m", "iso-c"}
"""These give no model back: they change singular values on purpose."""


def merged(f: Family, method: str, models: tuple[State, ...], base: State, **more: Any) -> State:
    """Merge with all that any method may need."""
    options: dict[str, Any] = {**QUICK.get(method, {}), **more}
    if method == "fisher" and f.graph.model.__class__.__name__ == "Gpt":
        options = {"labels": "sampled", **options}
    own = None if METHODS[method].data == "held-out" else f.data
    return gm.merge(f.graph, models, method, base=base, data=f.data[0], own_data=own, **options)


@pytest.mark.parametrize("name", FAMILIES)
@pytest.mark.parametrize("method", METHODS)
def test_merging_commutes_with_every_symmetry(method: str, name: str) -> None:
    f = family(name)
    move = f.graph.random_transform(seed=3)
    options = {"density": 1.0} if method.startswith("dare") else {}  # what is dropped depends on the place
    stays = merged(f, method, f.models, f.base, **options)
    moved = merged(f, method, tuple(move.apply(s) for s in f.models), move.apply(f.base), **options)
    assert not close(stays, moved, 1e-4)
    assert close(move.apply(stays), moved, 1e-7)


@pytest.mark.parametrize("name", ["cnn", "gpt"])
@pytest.mark.parametrize("method", [m for m in METHODS if m not in SPECTRAL])
def test_a_model_merged_with_itself_is_given_back(method: str, name: str) -> None:
    f = family(name)
    a = f.models[0]
    assert close(merged(f, method, (a, a), f.base, **PLAIN.get(method, {})), a)


@pytest.mark.parametrize("method", [m for m in METHODS if METHODS[m].weights != "none"])
def test_all_the_weight_on_one_model_gives_it_back(method: str) -> None:
    f = family("mlp")
    options = PLAIN.get(method, {}) | ({"scale": 1.0} if "scale" in METHODS[method].options else {})
    for weights, expected in (((1.0, 0.0), f.models[0]), ((0.0, 1.0), f.models[1])):
        assert close(merged(f, method, f.models, f.base, weights=weights, **options), expected, 1e-8)


@pytest.mark.parametrize("method", [m for m in METHODS if METHODS[m].weights == "none"])
def test_methods_that_find_the_shares_take_no_weights(method: str) -> None:
    f = family("mlp")
    with pytest.raises(UsageError, match="takes no weights"):
        merged(f, method, f.models, f.base, weights=(0.5, 0.5))


@pytest.mark.parametrize("method", [m for m in METHODS if METHODS[m].base])
def test_models_that_never_left_the_base_give_the_base(method: str) -> None:
    f = family("cnn")
    assert close(merged(f, method, (f.base, f.base), f.base), f.base)


@pytest.mark.parametrize("method", METHODS)
def test_tied_weights_stay_tied_and_buffers_follow_their_rules(method: str) -> None:
    f = family("gpt")
    aliases = {n: t for n, t in f.graph.names.items() if n != t}
    result = merged(f, method, f.models, f.base)
    assert all(torch.equal(result[n], result[t]) for n, t in aliases.items())
    c = family("cnn")
    a, b = ({**s, "norm.num_batches_tracked": torch.tensor(k)} for s, k in zip(c.models, (3, 8), strict=True))
    result = merged(c, method, (a, b), c.base)
    if method != "greedy-soup":  # whose soup may be one model
        assert result["norm.num_batches_tracked"].item() == 8
        assert torch.allclose(result["norm.running_var"], (a["norm.running_var"] + b["norm.running_var"]) / 2)


@pytest.mark.parametrize("method", METHODS)
def test_the_dtype_is_that_of_the_first_model_or_as_told(method: str) -> None:
    f = family("mlp", torch.float32)
    for wanted, dtype in ((None, torch.float32), (torch.bfloat16, torch.bfloat16)):
        result = merged(f, method, f.models, f.base, out_dtype=wanted)
        assert {t.dtype for t in result.values()} == {dtype}


@pytest.mark.parametrize(("method", "option"), [(m, o) for m in METHODS for o in METHODS[m].options])
def test_options_are_checked_against_their_bounds(method: str, option: str) -> None:
    f, facts = family("mlp"), METHODS[method].options[option]
    wrong = (
        ["nothing"] if facts.choices else [facts.low - 1, facts.high + 1, float("nan"), "many", True, None]
    )
    for value in wrong:
        with pytest.raises(UsageError, match=f"option {option}="):
            merged(f, method, f.models, f.base, **{option: value})
    assert facts.read(option, str(facts.default)) == facts.default
    assert facts.expected


@pytest.mark.parametrize("method", METHODS)
def test_what_a_method_lacks_is_named(method: str) -> None:
    f, facts = family("mlp"), METHODS[method]
    with pytest.raises(UsageError, match=f"{method.replace('+', '.')} has no option 'colour'; there are: "):
        gm.merge(f.graph, f.models, method, colour=1)
    if facts.base:
        with pytest.raises(UsageError, match="needs base="):
            gm.merge(f.graph, f.models, method, data=f.data[0])
    if facts.data:
        with pytest.raises(UsageError, match="own_data=" if facts.data == "own" else "data="):
            gm.merge(f.graph, f.models, method, data=f.data[0] if facts.data == "own" else None)
    assert facts.source
    assert facts.text


def test_two_models_for_slerp_and_at_least_two_for_model_stock() -> None:
    f = family("mlp")
    with pytest.raises(UsageError, match="slerp merges 2 models, got 3"):
        gm.merge(f.graph, [*f.models, f.base], "slerp")
    with pytest.raises(UsageError, match="model-stock merges at least 2 models, got 1"):
        gm.merge(f.graph, f.models[:1], "model-stock", base=f.base)


@pytest.mark.parametrize("method", METHODS)
def test_three_models_merge_and_the_report_names_all_options(method: str) -> None:
    f = family("mlp")
    if METHODS[method].models[1] < 3:
        return
    own = None if METHODS[method].data == "held-out" else [*f.data, f.data[0]]
    result, report = merge_with_report(
        f.graph, [*f.models, f.base], method, base=f.base, data=f.data[0], own_data=own
    )
    assert all(bool(torch.isfinite(t).all()) for t in result.values())
    assert report.method == method
    assert report.options == {n: o.default for n, o in METHODS[method].options.items()}
