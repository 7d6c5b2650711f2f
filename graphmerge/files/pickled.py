"""Checkpoints of torch.save, read without running any code that they carry."""

from __future__ import annotations

import re
import struct
import warnings
import zipfile
from pathlib import Path
from pickle import UnpicklingError
from typing import Any

import torch

from graphmerge.errors import InputError, amount, listing, refusal

DAMAGE = (
    RuntimeError, OSError, EOFError, LookupError, ValueError, TypeError, AttributeError, AssertionError,
    ArithmeticError, struct.error, zipfile.BadZipFile,
)  # fmt: skip
"""What torch.load and zipfile raise on damaged bytes, besides UnpicklingError."""

SAVE_STATE = "where its code is trusted, load it and run torch.save(model.state_dict(), 'weights.pt')"


def read_pickled(path: Path, zipped: bool) -> Any:
    """What torch.save stored, on the CPU; tensors of the zip format stay on disk until read.

    Raises
    ------
    InputError
        The file asks for code or classes, is damaged, or is an archive of another kind.
    """
    if zipped:
        _check_archive(path)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return _load(path, zipped)
    except UnpicklingError as error:
        raise _code(path, zipped, str(error)) from error
    except DAMAGE as error:
        raise _damage(
            path, "a file as torch.save wrote it", f"{type(error).__name__}: {_first_line(error)}"
        ) from error


def _load(path: Path, zipped: bool) -> Any:
    """torch.load takes a file named .safetensors for one: such a misnomer is given as an open file."""
    if path.suffix != ".safetensors":
        return torch.load(path, map_location="cpu", weights_only=True, mmap=zipped)
    with path.open("rb") as file:
        return torch.load(file, map_location="cpu", weights_only=True)


def _check_archive(path: Path) -> None:
    """The zip must be complete, made by torch.save, and no larger unpacked than it is on disk."""
    size = path.stat().st_size
    try:
        with zipfile.ZipFile(path) as archive:
            entries = archive.infolist()
    except DAMAGE as error:
        raise _damage(
            path, "a complete zip archive", f"{_first_line(error)} ({size} bytes: truncated?)"
        ) from error
    names = {entry.filename.partition("/")[2] for entry in entries}
    if "data.pkl" not in names or "constants.pkl" in names:
        raise _kind(path, [entry.filename for entry in entries])
    unpacked = sum(entry.file_size for entry in entries)
    if unpacked > size or any(entry.compress_type != zipfile.ZIP_STORED for entry in entries):
        raise _damage(
            path, "entries stored plainly, as torch.save does", f"{amount(unpacked)} in {amount(size)}"
        )


def _kind(path: Path, names: list[str]) -> InputError:
    return InputError(
        refusal(
            f"{str(path)!r} is a zip archive, but not a checkpoint of torch.save.",
            expected="an archive with data.pkl, as torch.save(model.state_dict(), path) writes",
            seen=f"entries {listing(names)}",
            means="it may be TorchScript, an exported program (.pt2) or another tool's archive",
            fix="save the weights on their own with torch.save(model.state_dict(), path)",
        )
    )


def _code(path: Path, zipped: bool, reason: str) -> InputError:
    """A refusal of a pickled module, other pickled code, or a pickle that torch did not write."""
    found = re.search(r"GLOBAL (\S+)", reason)
    if found is None:
        return _damage(path, "a pickle as torch.save wrote it", _first_line(reason.rpartition("error: ")[2]))
    wanted = {found.group(1), *_wanted(path, zipped)}
    whole = any(name.startswith("torch.nn.modules.") for name in wanted)
    return InputError(
        refusal(
            f"{str(path)!r} " + ("is a whole pickled module." if whole else "carries pickled code."),
            expected="tensors only: a state dict",
            seen=f"a request to import {listing(sorted(wanted))}",
            means="loading it would run code from the file; graphmerge never does, and read nothing",
            fix=SAVE_STATE + ("" if whole else "; if you do not know where the file is from, delete it"),
        )
    )


def _wanted(path: Path, zipped: bool) -> list[str]:
    """Everything that the file would import beyond tensors, where the format tells without loading."""
    if not zipped:
        return []
    try:
        return torch.serialization.get_unsafe_globals_in_checkpoint(path)
    except (UnpicklingError, *DAMAGE):
        return []


def _damage(path: Path, expected: str, seen: str) -> InputError:
    return InputError(
        refusal(
            f"{str(path)!r} cannot be read as a checkpoint.",
            expected=expected,
            seen=seen,
            means="the file is damaged, incomplete, or of another kind",
            fix="download or save it again: safetensors, or torch.save(model.state_dict(), path)",
        )
    )


def _first_line(error: BaseException | str) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[0][:200] if lines else "no further reason given"
