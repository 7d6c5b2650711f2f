"""Recipes as a user writes them: what is understood, what is refused, and what a refusal says."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from graphmerge.errors import GraphMergeError, InputError, UsageError
from graphmerge.match import METHODS as MATCHING
from graphmerge.match import WAYS
from graphmerge.merge import METHODS as MERGING
from graphmerge.recipe import Recipe, echo, read_recipe, recipe_from
from graphmerge.recipe.read import parse_yaml

LEAST: dict[str, Any] = {"model": "net:make", "inputs": ["a.safetensors", "b.safetensors"]}

FULL = """
version: 1
model: mypkg.nets:resnet18
inputs: [{path: a.safetensors}, b.safetensors]
example_inputs: {x: {shape: [batch, 3, 32, 32], dtype: float32}}
match: {method: weight, options: {restarts: 3}}
merge: {method: average, weights: [0.5, 5e-1]}
repair: {method: none}
rules: [{match: "fc.*", action: keep-a}]
out_dtype: same
"""


def written(folder: Path, text: str) -> Recipe:
    (folder / "r.yaml").write_text(text)
    return read_recipe(folder / "r.yaml")


def refused(content: dict[str, Any]) -> str:
    with pytest.raises(UsageError) as caught:
        recipe_from(content, "r.yaml")
    return str(caught.value)


def test_a_recipe_is_read_with_paths_relative_to_it(tmp_path: Path) -> None:
    recipe = written(tmp_path, FULL)
    assert [Path(f.path) for f in recipe.inputs] == [tmp_path / "a.safetensors", tmp_path / "b.safetensors"]
    assert recipe.model == "mypkg.nets:resnet18"
    assert recipe.example_inputs == ("x=2x3x32x32:float32",)
    assert recipe.merge.weights == (0.5, 0.5)
    assert recipe.rules[0].kept == 0


def test_short_forms_say_the_same_as_long_ones() -> None:
    short = LEAST | {"merge": "slerp", "match": "none", "rules": "fc.*=0.2,0.8", "example_inputs": "2x3"}
    long = LEAST | {
        "merge": {"method": "slerp"},
        "match": {"method": "none"},
        "rules": [{"match": "fc.*", "weights": [0.2, 0.8]}],
        "example_inputs": ["2x3"],
        "inputs": [{"path": "a.safetensors"}, {"path": "b.safetensors"}],
    }
    assert recipe_from(short, "") == recipe_from(long, "")


@pytest.mark.parametrize("method", MERGING)
def test_every_option_of_every_merge_method_is_checked_by_its_bounds(method: str) -> None:
    for name, option in MERGING[method].options.items():
        wrong = "none such" if option.choices else option.low - 1
        said = refused(LEAST | {"merge": {"method": method, "options": {name: wrong}}})
        assert f"option {name}={wrong!r}: expected {option.expected}" in said


@pytest.mark.parametrize("method", MATCHING)
def test_unknown_options_of_matching_are_refused_and_known_ones_echoed(method: str) -> None:
    said = refused(LEAST | {"match": {"method": method, "options": {"no_such": 1}}, "data": "net:batches"})
    assert "no option 'no_such'" in said
    recipe = recipe_from(LEAST | {"match": method, "data": "net:batches"}, "")
    defaults = {n: o.default for n, o in MATCHING[method].options.items() if o.default is not None}
    assert echo(recipe)["match"]["options"] == defaults | {"reference": 0}


@pytest.mark.parametrize("many", WAYS)
def test_an_echo_says_how_many_models_are_matched(many: str) -> None:
    """Options of the way too, and its own defaults: read again it is told the same."""
    first = {n: o.high if o.high < 9 else 2 for n, o in WAYS[many].options.items()}
    content = LEAST | {
        "inputs": ["a", "b", "c"],
        "match": {"method": "weight", "many": many, "options": first},
    }
    once = echo(recipe_from(content, ""))
    assert once["match"]["options"].items() >= first.items()
    assert echo(recipe_from(once, "again")) == once
    if WAYS[many].any_pairwise:
        assert once["match"]["options"]["restarts"] == WAYS[many].pair_options.get("restarts", 2)


MISTAKES: dict[str, tuple[dict[str, Any], str]] = {
    "a key with a typo": ({"mrege": "ties"}, "did you mean 'merge'?"),
    "a key one level too high": ({"wieghts": [1, 1]}, "did you mean 'merge.weights'?"),
    "a key of a part": ({"merge": {"methd": "ties"}}, "unknown key 'merge.methd'"),
    "a method with an underscore": ({"merge": "dare_ties"}, "did you mean 'dare-ties'?"),
    "an option with a typo": ({"match": {"options": {"restart": 3}}}, "did you mean 'restarts'?"),
    "a text for a number": ({"points": "many"}, "'points' is wrong"),
    "a boolean for a number": ({"seed": True}, "'seed' is wrong"),
    "one point": ({"points": 1}, "at least 2 points"),
    "an unknown dtype": ({"out_dtype": "int64"}, "'float16', 'bfloat16'"),
    "a shape": ({"example_inputs": "2xmany"}, "[name=]SHAPE[:dtype]"),
    "a hash": ({"inputs": [{"path": "a", "sha256": "12"}, "b"]}, "inputs[0].sha256"),
    "no input": ({"inputs": []}, "expected two checkpoints to merge, or more; seen: none"),
    "one input": ({"inputs": ["a.pt"]}, "expected two checkpoints to merge, or more; seen: a.pt"),
    "a way to merge as a matching": (
        {"match": "regmean"},
        "no matching, but a way to merge: --merge regmean",
    ),
    "weights of three": ({"merge": {"weights": [1, 1, 1]}}, "weight"),
    "a base that is missing": ({"merge": "ties"}, "needs base="),
    "data that are missing": ({"match": "activation"}, "needs data (--data)"),
    "repair without data": ({"repair": "repair"}, "needs data (--data)"),
    "a reference that is not there": ({"match": {"options": {"reference": 2}}}, "there are 2 models"),
    "a rule that says nothing": ({"rules": [{"match": "fc.*"}]}, "either action or weights"),
    "a rule for a third model": ({"rules": "fc.*=keep-c"}, "there are 2 models"),
    "two rules for one": ({"rules": ["a=keep-a", "a=keep-b"]}, "two rules"),
    "an unknown action": ({"rules": "fc.*=keepall"}, "keep-a, keep-b"),
    "a size": ({"shard_size": "large"}, "5GB, 300MB"),
    "a version from the future": ({"version": 2}, "'version' is wrong"),
}


@pytest.mark.parametrize("name", MISTAKES)
def test_a_mistake_is_named_with_its_key(name: str) -> None:
    change, fragment = MISTAKES[name]
    assert fragment in refused(LEAST | change)


def test_all_mistakes_are_listed_at_once() -> None:
    said = refused(LEAST | {"pionts": 3, "seed": "x", "merge": {"method": "magic"}})
    assert said.startswith("r.yaml: 3 mistakes.")
    assert all(word in said for word in ("'pionts'", "'seed'", "'magic'"))


@pytest.mark.parametrize(
    ("text", "fragment"),
    [
        ("model: a:b\nmodel: c:d\n", "line 2: the key 'model' is given twice"),
        ("merge: {method: ties, method: dare}", "line 1: the key 'method' is given twice"),
        ("- a\n- b\n", "expected keys and values"),
        ("model: [", "no YAML"),
        ("model: !!python/object/apply:os.system [echo]", "no YAML"),
        ("1: a", "no text"),
        ("", "expected keys and values"),
    ],
)
def test_yaml_that_is_no_recipe_is_refused(text: str, fragment: str, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"r\.yaml") as caught:
        written(tmp_path, text)
    assert fragment in str(caught.value)


def test_exponents_are_numbers() -> None:
    assert parse_yaml("a: 1e-3\nb: 2E+1\nc: .5\nd: 1e3x", "") == {"a": 1e-3, "b": 20.0, "c": 0.5, "d": "1e3x"}


def test_a_recipe_that_cannot_be_read_is_bad_input(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="there is no such file"):
        read_recipe(tmp_path / "none.yaml")
    (tmp_path / "b.yaml").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(InputError, match="cannot be read"):
        read_recipe(tmp_path / "b.yaml")


def test_the_recipe_of_the_readme_is_one(tmp_path: Path) -> None:
    text = (Path(__file__).parents[2] / "README.md").read_text(encoding="utf-8")
    shown = text.partition("```yaml\n")[2].partition("```")[0]
    assert [name for name, _ in written(tmp_path, shown).steps] == ["left", "all"]


def test_what_a_file_lacks_a_flag_may_say(tmp_path: Path) -> None:
    (tmp_path / "r.yaml").write_text("model: n:m\ninputs: [a, b]\nmatch: activation\n")
    assert read_recipe(tmp_path / "r.yaml", {"data": "n:batches"}).match.method == "activation"
    with pytest.raises(UsageError, match="needs data"):
        read_recipe(tmp_path / "r.yaml")


class TestStages:
    def recipe(self, *stages: dict[str, Any], **more: Any) -> Recipe:
        return recipe_from({"model": "net:make", "stages": list(stages)} | more, "r.yaml")

    def test_a_stage_takes_over_what_it_does_not_say(self) -> None:
        one = {"name": "one", "inputs": ["a", "b"]}
        two = {"name": "two", "inputs": ["one", "c"], "merge": "slerp"}
        recipe = self.recipe(one, two, match="none", seed=4)
        (_, first), (name, last) = recipe.steps
        assert (first.merge.method, first.match.method, first.seed) == ("average", "none", 4)
        assert (name, last.merge.method, last.match.method) == ("two", "slerp", "none")

    def test_names_of_stages_are_no_paths(self, tmp_path: Path) -> None:
        text = "model: n:m\nstages:\n- {name: one, inputs: [a, b]}\n- {name: two, inputs: [one, c]}\n"
        last = written(tmp_path, text).steps[-1][1]
        assert [f.path for f in last.inputs] == ["one", str(tmp_path / "c")]

    def test_a_stage_uses_only_what_was_made_before(self) -> None:
        with pytest.raises(UsageError, match="stage one: its input 'two' is not made"):
            self.recipe({"name": "one", "inputs": ["two", "c"]}, {"name": "two", "inputs": ["a", "b"]})
        with pytest.raises(UsageError, match="stage one: its input 'two' is not made"):
            self.recipe(
                {"name": "one", "inputs": ["a", "b"], "base": "two", "merge": "ties"},
                {"name": "two", "inputs": ["one", "c"]},
            )
        with pytest.raises(UsageError, match="two stages of this name"):
            self.recipe({"name": "one", "inputs": ["a", "b"]}, {"name": "one", "inputs": ["a", "b"]})


KEYS = st.sampled_from([*Recipe.model_fields, "method", "options", "path", "x", ""])
PLAIN = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=6) | KEYS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(KEYS, inner, max_size=4),
    max_leaves=12,
)


@settings(max_examples=100, deadline=None)
@given(st.dictionaries(KEYS, PLAIN, max_size=5))
def test_any_plain_data_is_a_recipe_or_refused(content: dict[str, Any]) -> None:
    try:
        recipe = recipe_from(LEAST | content, "r.yaml")
    except UsageError:
        return
    assert recipe_from(recipe.model_dump(mode="json"), "again") == recipe


@settings(max_examples=60, deadline=None)
@given(st.text(max_size=60))
def test_any_text_is_a_recipe_or_refused(text: str) -> None:
    with pytest.raises(GraphMergeError):
        recipe_from(parse_yaml(text, "r.yaml"), "r.yaml")
