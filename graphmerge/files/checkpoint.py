"""Checkpoints in and out: safetensors and torch.save files in, byte-stable safetensors out."""

from __future__ import annotations

import hashlib
import json
from collections import OrderedDict
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from graphmerge.errors import InputError, SystemFault, listing, refusal
from graphmerge.files.header import METADATA, SEAL, UNSEALED, read_header, require_seal, seal
from graphmerge.files.pickled import read_pickled
from graphmerge.files.staging import publish_file, refuse_unless_file, staging, system_faults

WRAPPERS = ("state_dict", "model_state_dict", "model")
"""Keys under which training scripts keep the state dict, the first that fits is taken."""

FOREIGN = {
    b"version https://git-lfs": ("a git-lfs pointer", "run `git lfs pull` to fetch the weights themselves"),
    b"<": ("a web page or XML", "the download failed: fetch the file itself, perhaps logged in"),
    b"GGUF": ("a GGUF file", "take the original float weights of the model"),
    b"\x89HDF": ("an HDF5 file", "convert it to safetensors with the framework that wrote it"),
    b"\x1f\x8b": ("a gzip archive", "unpack it first"),
}
"""First bytes of files that people give by mistake: what they are, and what to do."""

PICKLES = (b"\x80\x02", b"\x80\x03", b"\x80\x04", b"\x80\x05")
"""How a pickle of protocol 2 to 5 begins."""

OWN_KEY = "graphmerge"


def load_checkpoint(path: str | Path) -> dict[str, Tensor]:
    """Read a state dict onto the CPU; what the file is follows from its bytes, not its name.

    Parameters
    ----------
    path
        A safetensors file, or one of torch.save that holds a state dict, or a dict that has one
        under a key of ``WRAPPERS``. Links are followed.

    Returns
    -------
    dict
        Names to tensors with the file's shapes and dtypes, in the file's order. An OrderedDict
        that keeps the module versions (``_metadata``) where the file has them.

    Raises
    ------
    InputError
        The file is missing, damaged, of another kind, carries code, or holds no state dict; or its
        bytes are not those that ``save_checkpoint`` sealed.
    SystemFault
        The file cannot be opened or read.
    """
    path = Path(path)
    start = _first_bytes(path)
    if start.startswith(b"PK\x03\x04"):
        return _state_in(read_pickled(path, zipped=True), path)
    if start[8:9] != b"{" and start.startswith(PICKLES):
        return _state_in(read_pickled(path, zipped=False), path)
    if start[8:9] == b"{" or (path.suffix == ".safetensors" and start and not _foreign(start)):
        return _read_safetensors(path)
    raise _unknown_kind(path, start)


def save_checkpoint(path: str | Path, state: Mapping[str, Tensor], metadata: Mapping[str, Any]) -> None:
    """Write a state dict as safetensors: whole or not at all, and the same bytes for the same input.

    Tensors that share memory are stored once under every name, since the format has no ties. The
    metadata, values of JSON, is kept as one entry of sorted JSON, beside the ``format`` entry that
    readers expect and the SHA-256 of the tensors' bytes, by which ``load_checkpoint`` finds damage.

    Raises
    ------
    UsageError
        ``path`` is a link, a folder or a device.
    SystemFault
        The disk is full or read-only, or another run writes this file.
    """
    target = Path(path)
    refuse_unless_file(target)
    needed = sum(tensor.numel() * tensor.element_size() for tensor in state.values())
    entries = {"format": "pt", OWN_KEY: json.dumps(dict(metadata), sort_keys=True), SEAL: UNSEALED}
    with staging(target, needed) as part:
        staged = part / target.name
        with system_faults("write", target):
            staged.touch()
            mode = staged.stat().st_mode
            _write(_unshared(state), staged, entries)
            staged.chmod(mode)
        publish_file(staged, target)


def read_metadata(path: str | Path) -> dict[str, Any]:
    """The metadata that ``save_checkpoint`` stored in a safetensors file; empty for other writers'.

    Raises InputError where the header is not sound.
    """
    path = Path(path)
    entries = read_header(path).get(METADATA) or {}
    try:
        return dict(json.loads(entries.get(OWN_KEY, "{}")))
    except (AttributeError, TypeError, ValueError, RecursionError) as error:
        raise unreadable(
            path, f"metadata {OWN_KEY!r} in JSON", str(error), "save it again with graphmerge"
        ) from error


def sha256(path: str | Path) -> str:
    """The SHA-256 of a file's bytes, as 64 hexadecimal digits."""
    with Path(path).open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def same_bytes(a: str | Path, b: str | Path) -> bool:
    """Whether two files hold the same bytes: the same file given twice, or a copy."""
    first, second = Path(a), Path(b)
    if first.samefile(second):
        return True
    return first.stat().st_size == second.stat().st_size and sha256(first) == sha256(second)


def _first_bytes(path: Path) -> bytes:
    if not path.is_file():
        raise unreadable(
            path,
            "a checkpoint file",
            "a folder" if path.is_dir() else "nothing at this path",
            "check the path",
        )
    try:
        with path.open("rb") as file:
            return file.read(64)
    except OSError as error:
        raise SystemFault(
            refusal(
                f"Cannot read {str(path)!r}.",
                expected="a file that this user may read",
                seen=str(error),
                means="no tensor was taken from it",
                fix="check the permissions and the disk",
            )
        ) from error


def _read_safetensors(path: Path) -> dict[str, Tensor]:
    require_seal(path)
    try:
        return _state_in(OrderedDict(load_file(path)), path)
    except SafetensorError as error:
        raise unreadable(
            path, "dtypes, shapes and sizes that agree", str(error), "download or save it again"
        ) from error


def _state_in(content: Any, path: Path) -> dict[str, Tensor]:
    """The state dict within what a file held: itself, or one level down under a known key."""
    mappings = (
        {key: content[key] for key in content if isinstance(content[key], Mapping)} if _named(content) else {}
    )
    state = next((mappings[key] for key in WRAPPERS if key in mappings), content)
    if not _named(state) or not state:
        seen = f"an empty {type(state).__name__}" if _named(state) else f"a {type(state).__name__}"
        raise unreadable(
            path, "a state dict: names to tensors", seen, "save it with torch.save(model.state_dict(), path)"
        )
    other = [name for name, value in state.items() if not isinstance(value, Tensor)]
    if other:
        nested = f"; if the weights are under {listing(mappings)}, save that entry alone" if mappings else ""
        fix = "save only the tensors: torch.save(model.state_dict(), path)" + nested
        raise unreadable(path, "tensors only", f"other values under {listing(other)}", fix)
    result = OrderedDict((name, value.detach()) for name, value in state.items())
    if hasattr(state, "_metadata"):
        result._metadata = state._metadata  # type: ignore[attr-defined]
    return result


def _named(content: Any) -> bool:
    return isinstance(content, Mapping) and all(isinstance(key, str) for key in content)


def _unshared(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Contiguous tensors in name order, each with memory of its own."""
    taken: set[int] = set()
    result = {}
    for name in sorted(state):
        tensor = state[name].detach().contiguous()
        storage = tensor.untyped_storage().data_ptr()
        result[name] = tensor.clone() if storage in taken else tensor
        taken.add(storage)
    return result


def _write(tensors: dict[str, Tensor], path: Path, metadata: dict[str, str]) -> None:
    try:
        save_file(tensors, path, metadata=metadata)
    except SafetensorError as error:
        raise SystemFault(
            refusal(
                f"Cannot write {str(path.name)!r}.",
                expected="a disk that takes the whole file",
                seen=str(error),
                means="the output was not written; an earlier one is as it was",
                fix="check free space and permissions",
            )
        ) from error
    seal(path)


def _foreign(start: bytes) -> tuple[str, str] | None:
    return next((known for magic, known in FOREIGN.items() if start.startswith(magic)), None)


def _unknown_kind(path: Path, start: bytes) -> InputError:
    known = _foreign(start)
    fallback = (
        "an empty file" if not start else f"bytes {start[:8]!r}",
        "check that this is the file you meant",
    )
    return unreadable(path, "a safetensors file or one of torch.save", *(known or fallback))


def unreadable(path: Path, expected: str, seen: str, fix: str) -> InputError:
    """The refusal of a file or folder that should hold weights."""
    return InputError(
        refusal(
            f"{str(path)!r} is not a checkpoint that can be read.",
            expected=expected,
            seen=seen,
            means="no tensor was taken from it",
            fix=fix,
        )
    )
