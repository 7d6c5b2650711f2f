"""Rows of bad files: damaged, of another kind, with code, changed since, or with parts missing."""

from __future__ import annotations

import json
import struct
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import nn
from typed import MERGE, MODEL, Refused, Run, text

BAD = ("merge", "a.safetensors", "bad.safetensors", *MODEL)


def header(content: Any, data: bytes = b"") -> bytes:
    """A safetensors file with this header, sound or not."""
    raw = content if isinstance(content, bytes) else json.dumps(content).encode()
    return struct.pack("<Q", len(raw)) + raw + data


def entry(*offsets: int, shape: tuple[int, ...] = (2,)) -> dict[str, Any]:
    return {"dtype": "F32", "shape": shape, "data_offsets": offsets}


@pytest.mark.parametrize("raw", [b"{not json......}", b"\xff\xfe{}", b"[" * 5000, b"[1, 2]"])
def test_row_01_a_corrupt_header(raw: bytes, refused: Refused, tmp_path: Path) -> None:
    (tmp_path / "bad.safetensors").write_bytes(header(raw))
    refused(3, *BAD, says=("bad.safetensors", "header", "download or save it again"))


def test_row_02_an_absurd_length_of_the_header(refused: Refused, tmp_path: Path) -> None:
    """It is held against the size of the file before anything is read."""
    (tmp_path / "bad.safetensors").write_bytes(struct.pack("<Q", 1 << 62) + b"{}")
    refused(3, *BAD, says=("bad.safetensors", f"a header length of {1 << 62} in a file of 10 bytes"))


def test_row_03_a_truncated_file_with_both_sizes(refused: Refused, tmp_path: Path) -> None:
    whole = (tmp_path / "b.safetensors").read_bytes()
    (tmp_path / "bad.safetensors").write_bytes(whole[:-20])
    refused(3, *BAD, says=("bad.safetensors", f"{len(whole)} bytes", f"{len(whole) - 20} bytes", "truncated"))


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (b"", "an empty file"),
        (b"hello, I am a text file\n" * 4, "header length"),
        (b"<!DOCTYPE html><html></html>", "the download failed"),
        (b"version https://git-lfs.github.com/spec/v1\n", "git lfs pull"),
    ],
)
def test_row_04_an_empty_file_or_one_of_another_kind(
    content: bytes, says: str, refused: Refused, tmp_path: Path
) -> None:
    (tmp_path / "bad.safetensors").write_bytes(content)
    refused(3, *BAD, says=("bad.safetensors", says))


def test_row_04_a_wrong_extension_is_no_matter(run: Run, tmp_path: Path) -> None:
    """What a file is follows from its bytes."""
    torch.save(load_file(tmp_path / "b.safetensors"), tmp_path / "b.bin.safetensors")
    words = ("merge", "a.safetensors", "b.bin.safetensors", *MODEL, "--no-onnx", "--out", "out")
    assert run(*words).exit_code == 0


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (header({"x": entry(0, 8), "y": entry(4, 12)}, bytes(12)), "'y' to start at byte 8"),
        (header({"x": entry(0, 8), "y": entry(12, 20)}, bytes(20)), "leaves a gap"),
        (header(b'{"x": 1, "x": 2}'), "'x' is given twice"),
    ],
)
def test_row_05_offsets_that_overlap_and_names_given_twice(
    content: bytes, says: str, refused: Refused, tmp_path: Path
) -> None:
    (tmp_path / "bad.safetensors").write_bytes(content)
    refused(3, *BAD, says=("bad.safetensors", says))


def flip(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[-5] ^= 1
    path.write_bytes(content)


def test_row_06_a_flipped_bit_where_a_recipe_has_the_hash(run: Run, refused: Refused, tmp_path: Path) -> None:
    """The lock of an earlier run knows its inputs. Without any hash a flipped bit is a weight like others."""
    assert run(*MERGE, "--no-onnx", "--out", "first").exit_code == 0
    flip(tmp_path / "b.safetensors")
    refused(3, "merge", "first/recipe.lock.yaml", says=("b.safetensors", "SHA-256", "fetch that file again"))


def test_row_06_a_flipped_bit_in_a_file_of_ours(run: Run, refused: Refused, tmp_path: Path) -> None:
    assert run(*MERGE, "--no-onnx", "--out", "first").exit_code == 0
    flip(tmp_path / "first" / "model.safetensors")
    words = ("merge", "a.safetensors", "first/model.safetensors", *MODEL)
    refused(3, *words, says=("model.safetensors", "SHA-256", "some bytes have changed"))


def test_row_18_pickled_code_is_not_run(refused: Refused, tmp_path: Path) -> None:
    class Evil:
        def __reduce__(self) -> tuple[object, ...]:
            return (Path.touch, (tmp_path / "owned",))

    torch.save({"fc1.weight": Evil()}, tmp_path / "bad.pt")
    refused(3, "merge", "a.safetensors", "bad.pt", *MODEL, says=("bad.pt", "never does", "delete it"))
    assert not (tmp_path / "owned").exists()


def test_row_19_a_whole_module_is_refused_with_the_way_to_save_its_weights(
    refused: Refused, tmp_path: Path
) -> None:
    torch.save(nn.Linear(2, 2), tmp_path / "bad.pt")
    words = ("merge", "a.safetensors", "bad.pt", *MODEL)
    refused(3, *words, says=("bad.pt", "whole pickled module", "torch.save(model.state_dict()"))


def test_row_20_a_tensor_declared_larger_than_its_file(refused: Refused, tmp_path: Path) -> None:
    huge = entry(0, 1 << 45, shape=(1 << 43,))
    (tmp_path / "bad.safetensors").write_bytes(header({"x": huge}, bytes(64)))
    refused(3, *BAD, says=("bad.safetensors", "truncated"))
    huge = entry(0, 0, shape=(1 << 62, 1 << 62, 0))
    (tmp_path / "bad.safetensors").write_bytes(header({"x": huge}))
    refused(3, *BAD, says=("bad.safetensors", "'x'"))


def test_row_20_a_zip_bomb(refused: Refused, tmp_path: Path) -> None:
    torch.save({"x": torch.zeros(1 << 20)}, tmp_path / "plain.pt")
    with (
        zipfile.ZipFile(tmp_path / "plain.pt") as plain,
        zipfile.ZipFile(tmp_path / "bad.pt", "w", zipfile.ZIP_DEFLATED) as packed,
    ):
        for name in plain.namelist():
            packed.writestr(name, plain.read(name))
    words = ("merge", "a.safetensors", "bad.pt", *MODEL)
    refused(3, *words, says=("bad.pt", "entries stored plainly", "4.0 MiB in"))


def test_row_20_data_that_do_not_fit_into_memory(
    refused: Refused, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    arrays = {"inputs": np.zeros((500, 1, 4, 4), np.float32), "targets": np.zeros(500, np.int64)}
    np.savez_compressed(tmp_path / "data.npz", **arrays)
    monkeypatch.setattr("graphmerge.sources.data.memory_bytes", lambda: 10_000)
    says = ("data.npz", "does not fit into memory", "give fewer samples")
    refused(3, *MERGE, "--data", "data.npz", says=says)


def test_row_20_an_array_declared_larger_than_its_entry(refused: Refused, tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "data.npz", "w") as archive:
        for name in ("inputs", "targets"):
            text = f"{{'descr': '<f4', 'fortran_order': False, 'shape': ({1 << 50},), }}".ljust(117) + "\n"
            archive.writestr(f"{name}.npy", b"\x93NUMPY\x01\x00" + struct.pack("<H", 118) + text.encode())
    refused(3, *MERGE, "--data", "data.npz", says=("data.npz", f"{1 << 52} bytes, and has 0"))


def index(tmp_path: Path, **where: str) -> Path:
    """A folder with an index that names these files."""
    folder = tmp_path / "sharded"
    folder.mkdir()
    state = load_file(tmp_path / "b.safetensors")
    save_file(state, str(folder / "one.safetensors"))
    content = {"weight_map": dict.fromkeys(state, "one.safetensors") | where}
    (folder / "model.safetensors.index.json").write_text(json.dumps(content))
    return folder


@pytest.mark.parametrize("away", ["../a.safetensors", "/etc/passwd", "..", "sub/one.safetensors", "a\\b"])
def test_row_43_an_index_that_leads_out_of_its_folder(away: str, refused: Refused, tmp_path: Path) -> None:
    folder = index(tmp_path, **{"fc1.weight": away})
    words = ("merge", "a.safetensors", folder, *MODEL)
    refused(3, *words, says=("index.json", repr(away), "same folder"))


def test_row_43_a_config_that_leads_to_code(refused: Refused, tmp_path: Path) -> None:
    folder = index(tmp_path)
    config = {"auto_map": {"AutoModel": "../evil--modeling.Net"}}
    (folder / "config.json").write_text(json.dumps(config))
    refused(2, "merge", folder, "a.safetensors", says=("config.json", "no code out of a model folder"))


def test_row_45_a_missing_shard(refused: Refused, tmp_path: Path) -> None:
    folder = index(tmp_path, **{"fc1.weight": "two.safetensors"})
    words = ("merge", "a.safetensors", folder, *MODEL)
    refused(3, *words, says=("index.json", "missing: 'two.safetensors'"))


def test_row_45_an_index_that_says_otherwise_than_its_files(refused: Refused, tmp_path: Path) -> None:
    folder = index(tmp_path)
    save_file({"fc1.weight": torch.ones(2)}, str(folder / "one.safetensors"))
    words = ("merge", "a.safetensors", folder, *MODEL)
    refused(3, *words, says=("index.json", "only in one of the two"))


def test_row_46_unicode_and_spaces_in_paths(run: Run, tmp_path: Path) -> None:
    (tmp_path / "b.safetensors").rename(tmp_path / "größe zwei.safetensors")
    two = "größe zwei.safetensors"
    words = ("merge", "a.safetensors", two, *MODEL, "--quiet", "--no-onnx", "--out", "aus gabe")
    result = run(*words)
    assert result.exit_code == 0, text(result)
    assert (tmp_path / "aus gabe" / "model.safetensors").exists()
