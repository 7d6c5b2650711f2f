"""Reading and writing checkpoints: every refusal of a bad file, and byte-stable, whole writes."""

import json
import os
import pickle
import struct
import subprocess
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import safetensors.torch
import torch
from torch import Tensor, nn

from graphmerge.errors import InputError, SystemFault, UsageError
from graphmerge.files import checkpoint as checkpoint_module
from graphmerge.files import load_checkpoint, read_metadata, same_bytes, save_checkpoint, sha256

F32 = {"dtype": "F32", "shape": [2]}


def state() -> dict[str, Tensor]:
    return {"b.weight": torch.arange(6.0).view(2, 3), "a.bias": torch.ones(3), "n": torch.tensor(4)}


def packed(header: object, data: bytes) -> bytes:
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return struct.pack("<Q", len(text)) + text + data


def sound() -> bytes:
    return safetensors.torch.save(state())


class Payload:
    """Pickles to a call that would leave a mark, were it ever run."""

    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, (str(self.mark),)


def refused(path: Path) -> str:
    with pytest.raises(InputError) as caught:
        load_checkpoint(path)
    assert caught.value.exit_code == 3
    message = str(caught.value)
    assert repr(str(path)) in message
    assert all(part in message for part in ("Expected:", "Seen:", "Meaning:", "To do:"))
    return message


DAMAGED: dict[str, tuple[bytes, list[str]]] = {
    "row 1, header not UTF-8": (
        sound()[:8] + b"\xff\xfe" + sound()[10:],
        ["header in JSON", "UnicodeDecodeError"],
    ),
    "row 1, header not JSON": (sound()[:8] + b"{nope" + sound()[13:], ["header in JSON", "JSONDecodeError"]),
    "row 1, header nested without end": (packed(b"[" * 200_000, b""), ["header in JSON", "RecursionError"]),
    "row 1, header a list": (packed([1], b""), ["maps names to tensors", "list"]),
    "row 2, length beyond the file": (
        struct.pack("<Q", 1 << 60) + sound()[8:],
        [str(1 << 60), f"{len(sound())} bytes"],
    ),
    "row 2, length beyond the cap": (
        struct.pack("<Q", 90_000_000) + sound()[8:],
        ["90000000", "inside the file"],
    ),
    "row 3, truncated": (sound()[:-5], [f"{len(sound())} bytes", f"{len(sound()) - 5} bytes", "truncated"]),
    "row 3, bytes too many": (sound() + b"xx", [f"{len(sound()) + 2} bytes", "after the last tensor"]),
    "row 4, empty": (b"", ["an empty file"]),
    "row 4, three bytes": (b"abc", ["header length of 0", "3 bytes"]),
    "row 5, overlap": (
        packed({"a": F32 | {"data_offsets": [0, 8]}, "b": F32 | {"data_offsets": [4, 12]}}, bytes(12)),
        ["tensor 'b' to start at byte 8", "overlaps"],
    ),
    "row 5, gap": (packed({"a": F32 | {"data_offsets": [4, 12]}}, bytes(12)), ["start at byte 0", "gap"]),
    "row 5, name twice": (
        packed(b'{"a":{"dtype":"F32","shape":[2],"data_offsets":[0,8]},"a":{}}', bytes(8)),
        ["'a' is given twice"],
    ),
    "no offsets": (packed({"a": F32}, bytes(8)), ["tensor 'a'", "data_offsets"]),
    "shape against size": (
        packed({"a": F32 | {"data_offsets": [0, 4]}}, bytes(4)),
        ["shapes and sizes that agree"],
    ),
    "unknown dtype": (
        packed({"a": {"dtype": "F99", "shape": [2], "data_offsets": [0, 8]}}, bytes(8)),
        ["F99"],
    ),
    "git-lfs pointer": (b"version https://git-lfs.github.com/spec/v1\n", ["git-lfs pointer", "git lfs pull"]),
}


@pytest.mark.parametrize("case", DAMAGED)
def test_damaged_safetensors_is_refused(case: str, tmp_path: Path) -> None:
    content, fragments = DAMAGED[case]
    path = tmp_path / "model.safetensors"
    path.write_bytes(content)
    message = refused(path)
    assert all(fragment in message for fragment in fragments), message


@pytest.mark.parametrize(
    ("content", "fragment"),
    [
        (b"", "an empty file"),
        (b"hello world", "b'hello wo'"),
        (b"<!DOCTYPE html>", "web page"),
        (b"GGUF....", "GGUF"),
    ],
)
def test_file_of_another_kind_is_refused(content: bytes, fragment: str, tmp_path: Path) -> None:
    path = tmp_path / "model.pt"
    path.write_bytes(content)
    assert fragment in refused(path)


def test_missing_file_and_folder_are_refused(tmp_path: Path) -> None:
    assert "nothing at this path" in refused(tmp_path / "absent.pt")
    assert "a folder" in refused(tmp_path)


@pytest.mark.parametrize("zipped", [True, False])
def test_pickled_code_is_refused_and_not_run(zipped: bool, tmp_path: Path) -> None:
    path, mark = tmp_path / "model.pt", tmp_path / "mark"
    torch.save({"w": Payload(mark)}, path, _use_new_zipfile_serialization=zipped)
    message = refused(path)
    assert "carries pickled code" in message
    assert "posix.mkdir" in message
    assert not mark.exists()


def test_bare_pickle_is_refused_and_not_run(tmp_path: Path) -> None:
    path, mark = tmp_path / "model.bin", tmp_path / "mark"
    path.write_bytes(pickle.dumps(Payload(mark)))
    refused(path)
    assert not mark.exists()


@pytest.mark.parametrize("zipped", [True, False])
def test_whole_module_is_refused_with_the_way_to_save_a_state_dict(zipped: bool, tmp_path: Path) -> None:
    path = tmp_path / "model.pt"
    torch.save(nn.Linear(2, 2), path, _use_new_zipfile_serialization=zipped)
    message = refused(path)
    assert "whole pickled module" in message
    assert "torch.save(model.state_dict()" in message


def test_archives_of_other_kinds_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "program.pt2"
    program = torch.export.export(nn.Linear(2, 2), (torch.ones(1, 2),))
    torch.export.save(program, path)
    assert "not a checkpoint of torch.save" in refused(path)


def test_truncated_torch_file_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "model.pt"
    torch.save({"w": torch.ones(1000)}, path)
    path.write_bytes(path.read_bytes()[:-500])
    assert "truncated?" in refused(path)


def test_compressed_torch_file_is_refused(tmp_path: Path) -> None:
    stored, path = tmp_path / "stored.pt", tmp_path / "bomb.pt"
    torch.save({"w": torch.zeros(100_000)}, stored)
    with zipfile.ZipFile(stored) as source, zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as bomb:
        for entry in source.namelist():
            bomb.writestr(entry, source.read(entry))
    assert "stored plainly" in refused(path)


@pytest.mark.parametrize(
    ("content", "fragment"),
    [
        ({"w": torch.ones(2), "epoch": 3}, "other values under 'epoch'"),
        ({"net": {"w": torch.ones(2)}, "epoch": 3}, "if the weights are under 'net'"),
        ([torch.ones(2)], "a list"),
        ({}, "an empty dict"),
        ({"\x1b[31mred": 1}, r"'\x1b[31mred'"),
    ],
)
def test_content_that_is_no_state_dict_is_refused(content: object, fragment: str, tmp_path: Path) -> None:
    path = tmp_path / "model.pt"
    torch.save(content, path)
    assert fragment in refused(path)


@pytest.mark.parametrize(
    "wrap", [lambda s: s, lambda s: {"state_dict": s, "epoch": 1}, lambda s: {"model": s}]
)
@pytest.mark.parametrize("zipped", [True, False])
@pytest.mark.parametrize("name", ["model.pt", "model.bin", "wrong.safetensors"])
def test_torch_files_load_whatever_their_name(
    wrap: Callable[[dict[str, Tensor]], object], zipped: bool, name: str, tmp_path: Path
) -> None:
    torch.save(wrap(state()), tmp_path / name, _use_new_zipfile_serialization=zipped)
    loaded = load_checkpoint(tmp_path / name)
    torch.testing.assert_close(loaded, state(), rtol=0, atol=0)


def test_module_versions_survive_loading(tmp_path: Path) -> None:
    torch.save(nn.BatchNorm1d(3).state_dict(), tmp_path / "norm.pt")
    assert load_checkpoint(tmp_path / "norm.pt")._metadata[""]["version"] == 2  # type: ignore[attr-defined]


def test_saved_checkpoint_loads_again_from_a_path_with_spaces_and_unicode(tmp_path: Path) -> None:
    path = tmp_path / "two seeds, größer" / "模型 v1.safetensors"
    save_checkpoint(path, state(), {"recipe": "{}", "b": "ä"})
    torch.testing.assert_close(load_checkpoint(path), state(), rtol=0, atol=0)
    assert read_metadata(path) == {"recipe": "{}", "b": "ä"}
    with safetensors.safe_open(path, "pt") as file:
        assert file.metadata()["format"] == "pt"
    assert [entry.name for entry in path.parent.iterdir()] == [path.name]


def test_link_to_a_checkpoint_is_followed(tmp_path: Path) -> None:
    save_checkpoint(tmp_path / "blob", state(), {})
    (tmp_path / "model.safetensors").symlink_to(tmp_path / "blob")
    assert load_checkpoint(tmp_path / "model.safetensors").keys() == state().keys()


def test_same_input_gives_the_same_bytes_in_any_process(tmp_path: Path) -> None:
    script = (
        "import sys, torch; from graphmerge.files.checkpoint import save_checkpoint;"
        "s = {'b.weight': torch.arange(6.0).view(2, 3), 'a.bias': torch.ones(3), 'n': torch.tensor(4)};"
        "save_checkpoint(sys.argv[1], s, {'z': '1', 'a': '2'})"
    )
    subprocess.run([sys.executable, "-c", script, tmp_path / "other"], check=True)
    save_checkpoint(tmp_path / "one", dict(reversed(state().items())), {"a": "2", "z": "1"})
    assert same_bytes(tmp_path / "one", tmp_path / "other")


def test_row_6_a_flipped_bit_in_a_file_of_ours_is_found(tmp_path: Path) -> None:
    path = tmp_path / "m.safetensors"
    save_checkpoint(path, state(), {"recipe": {"seed": 3}})
    assert read_metadata(path) == {"recipe": {"seed": 3}}
    content = bytearray(path.read_bytes())
    content[-3] ^= 4
    path.write_bytes(content)
    with pytest.raises(InputError, match="SHA-256") as caught:
        load_checkpoint(path)
    assert caught.value.exit_code == 3


def test_a_file_without_a_seal_passes(tmp_path: Path) -> None:
    safetensors.torch.save_file(state(), tmp_path / "m.safetensors", {"format": "pt"})
    assert load_checkpoint(tmp_path / "m.safetensors").keys() == state().keys()


def test_tied_and_strided_tensors_are_stored_under_every_name(tmp_path: Path) -> None:
    table = torch.arange(12.0).view(3, 4)
    given = {"embed": table, "head": table, "turned": table.t(), "row": table[1]}
    save_checkpoint(tmp_path / "m", given, {})
    torch.testing.assert_close(load_checkpoint(tmp_path / "m"), dict(sorted(given.items())), rtol=0, atol=0)


def test_failed_write_leaves_the_old_file_and_nothing_else(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "m.safetensors"
    save_checkpoint(path, state(), {})
    before = sha256(path)

    def break_off(_: object, staged: Path, **__: object) -> None:
        staged.write_bytes(b"half")
        raise safetensors.SafetensorError("No space left on device")

    monkeypatch.setattr(checkpoint_module, "save_file", break_off)
    with pytest.raises(SystemFault, match="No space left") as caught:
        save_checkpoint(path, {"w": torch.ones(2)}, {})
    assert caught.value.exit_code == 5
    assert sha256(path) == before
    assert list(tmp_path.iterdir()) == [path]


def test_leftovers_of_a_killed_write_are_swept(tmp_path: Path) -> None:
    leftover = tmp_path / ".other.safetensors.graphmerge-part"
    leftover.mkdir()
    (leftover / "half").write_bytes(b"half")
    save_checkpoint(tmp_path / "m", state(), {})
    assert [entry.name for entry in tmp_path.iterdir()] == ["m"]


def test_link_and_folder_are_not_written_over(tmp_path: Path) -> None:
    (tmp_path / "kept").write_bytes(b"kept")
    (tmp_path / "link").symlink_to(tmp_path / "kept")
    for target in (tmp_path / "link", tmp_path):
        with pytest.raises(UsageError, match="not a plain file") as caught:
            save_checkpoint(target, state(), {})
        assert caught.value.exit_code == 2
    assert (tmp_path / "kept").read_bytes() == b"kept"


def test_same_bytes_tells_copies_from_others(tmp_path: Path) -> None:
    for name, content in {"a": b"x", "copy": b"x", "other": b"y"}.items():
        (tmp_path / name).write_bytes(content)
    assert same_bytes(tmp_path / "a", tmp_path / "a")
    assert same_bytes(tmp_path / "a", tmp_path / "copy")
    assert not same_bytes(tmp_path / "a", tmp_path / "other")
    assert sha256(tmp_path / "a") == "2d711642b726b04401627ca9fbac32f5c8530fb1903cc4db02258717921a4881"
