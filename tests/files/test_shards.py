"""Checkpoints in several files: what is written is read again; an index is believed only if it is right."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import save_file

from graphmerge.errors import InputError
from graphmerge.files import hash_of, load_weights_of, save_model, shapes_of, weight_files

STATE = {f"layer{k}.weight": torch.full((k + 1, 8), float(k)) for k in range(6)}
INDEX = "model.safetensors.index.json"


def edited(folder: Path, **change: str) -> None:
    """The index with other files for some tensors."""
    save_model(folder, STATE, {}, 200)
    index = json.loads((folder / INDEX).read_text())
    index["weight_map"] |= {n.replace("_", "."): f for n, f in change.items()}
    (folder / INDEX).write_text(json.dumps(index))


@pytest.mark.parametrize("limit", [1, 100, 200, 10**9])
def test_what_is_written_is_read_again(limit: int, tmp_path: Path) -> None:
    files = save_model(tmp_path, STATE, {"note": 1}, limit)
    assert weight_files(tmp_path) == files
    found = load_weights_of(tmp_path)
    assert found.keys() == STATE.keys()
    assert all(torch.equal(found[n], t) for n, t in STATE.items())
    assert {n: (t.shape, t.dtype) for n, t in shapes_of(tmp_path).items()} == {
        n: (t.shape, t.dtype) for n, t in STATE.items()
    }


def test_no_file_is_larger_than_the_limit_but_for_a_single_tensor(tmp_path: Path) -> None:
    for file in save_model(tmp_path, STATE, {}, 300):
        sizes = [t.numel() * t.element_size() for t in load_weights_of(file).values()]
        assert sum(sizes) <= 300 or len(sizes) == 1


@pytest.mark.parametrize("away", ["../secret.safetensors", "/etc/passwd", "sub/x.safetensors", "..", "a\\b"])
def test_an_index_that_leads_elsewhere_is_refused(away: str, tmp_path: Path) -> None:
    edited(tmp_path, layer0_weight=away)
    with pytest.raises(InputError, match="same folder"):
        load_weights_of(tmp_path)


def test_an_index_that_does_not_agree_with_its_files_is_refused(tmp_path: Path) -> None:
    edited(tmp_path, layer0_weight="model-00003-of-00004.safetensors")
    for read in (load_weights_of, shapes_of):
        with pytest.raises(InputError, match="only in one of the two"):
            read(tmp_path)


def test_a_missing_shard_is_named(tmp_path: Path) -> None:
    save_model(tmp_path, STATE, {}, 200)[1].unlink()
    with pytest.raises(InputError, match="missing: 'model-00002"):
        load_weights_of(tmp_path)


def test_a_folder_without_weights_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="neither"):
        load_weights_of(tmp_path)
    with pytest.raises(InputError, match="nothing at this path"):
        load_weights_of(tmp_path / "none")


def test_the_hash_of_a_folder_tells_its_bytes(tmp_path: Path) -> None:
    first, *_ = save_model(tmp_path, STATE, {}, 200)
    before = hash_of(tmp_path)
    assert hash_of(tmp_path) == before
    save_file({"layer0.weight": torch.ones(1, 8)}, first)
    assert hash_of(tmp_path) != before


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=8,
)


def encoded(content: object) -> bytes:
    return json.dumps(content).encode()


@settings(max_examples=150, deadline=None)
@given(st.binary(max_size=40) | (JSON | st.builds(lambda x: {"weight_map": x}, JSON)).map(encoded))
def test_any_index_of_nothing_is_refused(tmp_path_factory: pytest.TempPathFactory, content: bytes) -> None:
    folder = tmp_path_factory.mktemp("fuzz")
    (folder / INDEX).write_bytes(content)
    with pytest.raises(InputError):
        load_weights_of(folder)
