"""Damaged and strange files: a clear error or a correct result, never a crash, a hang, or code that runs.

Hypothesis damages sound files and makes up others; every example is small, and so many that they take
seconds. Whatever is raised but a refusal of ours fails the test; pytest fails on warnings.
"""

from __future__ import annotations

import contextlib
import json
import os
import struct
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from nets import Mlp
from safetensors.torch import save_file
from typed import Run, text

import graphmerge as gm
from graphmerge.errors import GraphMergeError, InputError, UsageError
from graphmerge.files import load_checkpoint, load_weights_of, read_metadata, shapes_of
from graphmerge.match import load_alignment, load_many_alignment
from graphmerge.recipe import echo, lock_text, read_recipe
from graphmerge.sources import check_data_file, load_data
from graphmerge.zoo import read_zoo
from graphmerge.zoo.baseline import read_baseline

EXAMPLES = 2000 if os.environ.get("GRAPHMERGE_SLOW") == "1" else 50
few = settings(
    max_examples=EXAMPLES, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)

plain = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**70), 2**70) | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    max_leaves=8,
)
"""Anything that JSON or YAML can hold."""

Damage = list[tuple[int, int]]
damage: st.SearchStrategy[Damage] = st.lists(
    st.tuples(st.integers(0, 1 << 20), st.integers(-1, 255)), min_size=1, max_size=6
)
"""Places in a file, modulo its length, and the byte to put there; -1 cuts the file off."""


def damaged(content: bytes, changes: Damage) -> bytes:
    found = bytearray(content)
    for place, byte in changes:
        if not found:
            break
        if byte < 0:
            del found[place % len(found) :]
        else:
            found[place % len(found)] = byte
    return bytes(found)


@pytest.fixture
def file(tmp_path: Path) -> Callable[..., Path]:
    def write(content: bytes, name: str = "x.safetensors") -> Path:
        (tmp_path / name).write_bytes(content)
        return tmp_path / name

    return write


def loads_or_refuses(path: Path) -> None:
    """All ways of reading a checkpoint agree on what it holds, or refuse it."""
    try:
        shapes = shapes_of(path)
    except InputError:
        shapes = None
    try:
        state = load_checkpoint(path)
    except InputError:
        return
    assert shapes is None or {n: (t.shape, t.dtype) for n, t in shapes.items()} == {
        n: (t.shape, t.dtype) for n, t in state.items()
    }


numbers = st.integers(-2, 40) | st.sampled_from([2**31, 2**63 - 1, 2**63, 2**64, 2**200, -(2**63)])
entries = st.fixed_dictionaries(
    {
        "dtype": st.sampled_from(["F32", "F16", "I64", "BOOL", "F8_E4M3", "F4", "", "f32"]) | plain,
        "shape": st.lists(numbers, max_size=4) | plain,
        "data_offsets": st.tuples(numbers, numbers) | plain,
    }
)
headers = st.dictionaries(st.sampled_from(["x", "y", "z", "", "__metadata__"]), entries | plain, max_size=4)


@few
@given(header=headers, data=st.integers(0, 64), length=st.none() | numbers.filter(lambda n: 0 <= n < 2**64))
@example({"x": {"dtype": "F32", "shape": [0, 2**63], "data_offsets": [0, 0]}}, 0, None)
@example({"x": {"dtype": "F32", "shape": [-1], "data_offsets": [0, 4]}}, 4, None)
@example({"x": {"dtype": "F32", "shape": [True], "data_offsets": [0, 4]}}, 4, None)
def test_made_up_headers(file: Any, header: Any, data: int, length: int | None) -> None:
    raw = json.dumps(header).encode()
    path = file(struct.pack("<Q", len(raw) if length is None else length) + raw + bytes(data))
    loads_or_refuses(path)
    with contextlib.suppress(InputError):
        assert isinstance(read_metadata(path), dict)


STATE = {"a.weight": torch.arange(6.0).reshape(2, 3), "a.bias": torch.ones(2), "n": torch.tensor(3)}


@few
@given(changes=damage)
def test_damaged_safetensors(file: Any, changes: Damage) -> None:
    path = file(b"")
    path.unlink()
    save_file(STATE, str(path))
    loads_or_refuses(file(damaged(path.read_bytes(), changes)))


@few
@given(changes=damage, zipped=st.booleans())
def test_damaged_files_of_torch(file: Any, changes: Damage, zipped: bool) -> None:
    path = file(b"", "x.pt")
    torch.save(STATE, path, _use_new_zipfile_serialization=zipped)
    loads_or_refuses(file(damaged(path.read_bytes(), changes), "x.pt"))


@few
@given(
    where=st.dictionaries(st.sampled_from(list(STATE)), st.sampled_from(["one", "two", "", ".."]) | plain)
    | plain,
    more=plain,
)
def test_made_up_indexes(tmp_path: Path, where: Any, more: Any) -> None:
    folder = tmp_path / "sharded"
    folder.mkdir(exist_ok=True)
    save_file({"a.weight": STATE["a.weight"]}, str(folder / "one"))
    save_file({n: STATE[n] for n in ("a.bias", "n")}, str(folder / "two"))
    content = {"weight_map": where, "metadata": more}
    (folder / "model.safetensors.index.json").write_text(json.dumps(content))
    for read in (shapes_of, load_weights_of):
        with contextlib.suppress(InputError):
            assert read(folder).keys() == where.keys()


@few
@given(changes=damage)
def test_damaged_data(file: Any, changes: Damage) -> None:
    path = file(b"", "data.npz")
    np.savez_compressed(path, inputs=np.ones((6, 4), np.float32), targets=np.arange(6))
    file(damaged(path.read_bytes(), changes), "data.npz")
    try:
        x, y = check_data_file(path)["inputs"], load_data(str(path))
        assert sum(len(batch[0]) for batch in y) == len(x)
    except InputError:
        pass


@pytest.fixture(scope="module")
def aligned(tmp_path_factory: pytest.TempPathFactory) -> tuple[gm.ModelGraph, Path]:
    """A graph, and the alignment of two of its networks as it is saved; that of three is beside it."""
    torch.manual_seed(0)
    graph = gm.trace(Mlp(), (torch.randn(2, 4),))
    path = tmp_path_factory.mktemp("aligned") / "alignment.safetensors"
    gm.match(graph, Mlp(), Mlp()).save(path)
    gm.match_many(graph, [Mlp(), Mlp(), Mlp()]).save(path.with_name("many.safetensors"))
    return graph, path


def reads_or_refuses(path: Path, graph: gm.ModelGraph) -> None:
    try:
        found = load_alignment(path, graph)
    except InputError:
        return
    assert (found.transform.inverse() @ found.transform).is_identity
    json.dumps(found.to_json())


@few
@given(changes=damage)
def test_damaged_alignments(file: Any, aligned: Any, changes: Damage) -> None:
    graph, path = aligned
    reads_or_refuses(file(damaged(path.read_bytes(), changes)), graph)


FIELDS = (
    "method", "objective", "start", "seconds", "seed", "converged", "restarts", "moved", "history", "notes",
    "stages", "options", "gaps",
)  # fmt: skip


@few
@given(key=st.sampled_from(FIELDS), value=plain, gone=st.booleans())
def test_alignments_that_tell_nonsense(file: Any, aligned: Any, key: str, value: Any, gone: bool) -> None:
    graph, path = aligned
    told = read_metadata(path) | {key: value}
    if gone:
        del told[key]
    save_file(load_checkpoint(path), str(file(b"")), {"graphmerge": json.dumps(told)})
    reads_or_refuses(file(b"").parent / "x.safetensors", graph)


@few
@given(
    values=st.lists(st.integers(-9, 9) | st.just(2**40), min_size=8, max_size=8),
    dtype=st.sampled_from([torch.int64, torch.int8, torch.float32, torch.bool, torch.complex64]),
)
def test_alignments_that_are_no_permutation(file: Any, aligned: Any, values: list[int], dtype: Any) -> None:
    graph, path = aligned
    targets = {n: torch.tensor(values).reshape(t.shape).to(dtype) for n, t in load_checkpoint(path).items()}
    save_file(targets, str(file(b"")), {"graphmerge": json.dumps(read_metadata(path))})
    reads_or_refuses(file(b"").parent / "x.safetensors", graph)


RECIPE = {
    "model": "nets:Mlp", "example_inputs": ["2x4"], "inputs": ["a.safetensors", "b.safetensors"],
    "onnx": False,
    "merge": {"method": "average", "weights": [0.5, 0.5]}, "match": "weight", "seed": 0, "points": 3,
    "data": "nets:batches", "test": "t.npz", "rules": ["fc2.*=keep-a"], "freeze": ["fc2.*"],
    "stages": [{"name": "s", "inputs": ["a", "b"]}], "shard_size": "5GB", "repair": "none", "cache": "kept",
}  # fmt: skip


@few
@given(key=st.sampled_from(list(RECIPE)), value=plain, kept=st.sets(st.sampled_from(list(RECIPE))))
@example("model", "a\0b", set())
@example("inputs", ["\ud800", "b"], set())
def test_recipes_with_any_value(tmp_path: Path, key: str, value: Any, kept: set[str]) -> None:
    """What is read is written out and read again as the same."""
    content = {n: v for n, v in RECIPE.items() if n in kept | {"inputs"}} | {key: value}
    path = tmp_path / "recipe.yaml"
    path.write_text(yaml.safe_dump(content), encoding="utf-8", errors="surrogatepass")
    try:
        found = read_recipe(path)
    except (UsageError, InputError):
        return
    path.write_text(lock_text(echo(found), {}, tmp_path))
    again = read_recipe(path)
    assert {**echo(again), "out": None} == {**echo(found), "out": None}


@few
@given(changes=damage)
def test_damaged_recipes(tmp_path: Path, changes: Damage) -> None:
    path = tmp_path / "recipe.yaml"
    path.write_bytes(damaged(yaml.safe_dump(RECIPE).encode(), changes))
    with contextlib.suppress(UsageError, InputError):
        read_recipe(path)


@settings(few, max_examples=EXAMPLES // 5)
@given(key=st.sampled_from(["model", "inputs", "example_inputs", "data", "freeze", "rules"]), value=plain)
@example("inputs", ["x" * 300, "b.safetensors"])
@example("freeze", ["[", "*"])
@example("model", "os:system")
@example("model", "os:getcwd")
def test_plans_of_recipes_with_any_value(run: Run, tmp_path: Path, key: str, value: Any) -> None:
    for name, seed in (("a", 0), ("b", 1)):
        torch.manual_seed(seed)
        save_file(Mlp().state_dict(), str(tmp_path / f"{name}.safetensors"))
    keys = ("model", "example_inputs", "inputs")
    content = {n: RECIPE[n] for n in keys} | {key: value}
    (tmp_path / "recipe.yaml").write_text(yaml.safe_dump(content))
    result = run("plan", "recipe.yaml")
    assert result.exception is None or isinstance(result.exception, SystemExit), text(result)
    assert result.exit_code in (0, 2, 3, 4, 5)


ZOO: dict[str, Any] = {
    "version": 1,
    "models": {
        "one": {
            "model": "nets:Mlp", "example_inputs": ["2x4"], "inputs": [{"path": "a"}, {"path": "b"}],
            "data": "nets:batches", "match": {"method": "weight"}, "merge": {"weights": [0.5, 0.5]},
            "seed": 1, "tolerances": {"time": 3.0}, "repair": "none", "points": 3, "onnx": "none",
        }
    },
}  # fmt: skip


@few
@given(key=st.sampled_from(list(ZOO["models"]["one"])) | st.text(max_size=5), value=plain, changes=damage)
def test_zoos_with_any_value_and_damaged_ones(tmp_path: Path, key: str, value: Any, changes: Damage) -> None:
    entry = {**ZOO["models"]["one"], key: value}
    whole = yaml.safe_dump({**ZOO, "models": {"one": entry}}).encode("utf-8", "surrogatepass")
    for content in (whole, damaged(yaml.safe_dump(ZOO).encode(), changes)):
        (tmp_path / "zoo.yml").write_bytes(content)
        with contextlib.suppress(UsageError, InputError):
            assert read_zoo(tmp_path).entries.keys()


@few
@given(content=plain, text=st.text(max_size=20) | st.just("[" * 5000))
def test_made_up_baselines(tmp_path: Path, content: Any, text: str) -> None:
    for written in (json.dumps({"models": content}), json.dumps({"models": {"one": content}}), text):
        (tmp_path / "baseline.json").write_text(written, encoding="utf-8", errors="surrogatepass")
        with contextlib.suppress(InputError):
            assert isinstance(read_baseline(tmp_path), dict)


@few
@given(key=st.sampled_from(["way", "alignments", "history", "objective", "notes"]), value=plain)
def test_alignments_of_many_that_tell_nonsense(file: Any, aligned: Any, key: str, value: Any) -> None:
    graph, path = aligned
    path = path.with_name("many.safetensors")
    tensors, told = load_checkpoint(path), read_metadata(path) | {key: value}
    path = file(b"", "y.safetensors")
    save_file(tensors, str(path), {"graphmerge": json.dumps(told)})
    with contextlib.suppress(InputError):
        json.dumps(load_many_alignment(path, graph).to_json())


BOMB = "a: &a [x, x, x, x, x, x, x, x, x]\n" + "".join(
    f"{n}: &{n} [{', '.join(9 * ['*' + p])}]\n" for p, n in zip("abcdefgh", "bcdefghi", strict=True)
)


@pytest.mark.parametrize("bomb", [BOMB, "inputs: &a [*a]\n", "inputs: " + "[" * 5000, "seed: " + "9" * 9000])
def test_yaml_that_grows_when_it_is_read(bomb: str, tmp_path: Path) -> None:
    """Nine lists of nine lists ... are 9^9 entries, which no message writes out."""
    (tmp_path / "recipe.yaml").write_text(bomb)
    since = time.monotonic()
    with pytest.raises(UsageError) as refused:
        read_recipe(tmp_path / "recipe.yaml")
    assert time.monotonic() - since < 5
    assert len(str(refused.value)) < 5000


def test_yaml_that_asks_for_code(tmp_path: Path) -> None:
    for tag in ("!!python/object/apply:os.system [touch owned]", "!!python/name:os.system", "!evil x"):
        (tmp_path / "recipe.yaml").write_text(f"model: {tag}\n")
        with pytest.raises(GraphMergeError):
            read_recipe(tmp_path / "recipe.yaml")
    assert not (tmp_path / "owned").exists()
