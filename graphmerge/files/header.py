"""The header of a safetensors file: 8 bytes of length, JSON, then the tensors' bytes.

Read here before the safetensors library does, to say which tensor and how many bytes are wrong,
and to refuse what JSON readers let pass (a name given twice). No tensor data is touched.
"""

from __future__ import annotations

import hashlib
import json
import math
import struct
from collections import Counter
from pathlib import Path
from typing import Any

from graphmerge.errors import InputError, refusal

PREFIX_BYTES = 8
LIMIT_BYTES = 100_000_000
LARGEST = 1 << 60
"""No tensor has as many entries, empty dimensions counted as one: larger products overflow."""

METADATA = "__metadata__"
SEAL = "graphmerge.sha256"
"""The metadata entry that holds the hash of the tensors, in files that graphmerge wrote."""
UNSEALED = "0" * 64


def read_header(path: Path) -> dict[str, Any]:
    """The header as written: ``{name: {dtype, shape, data_offsets}}`` and perhaps ``__metadata__``.

    Raises
    ------
    InputError
        The header is damaged or larger than the file, or its offsets overlap or miss the end.
    """
    size = path.stat().st_size
    with path.open("rb") as file:
        prefix = file.read(PREFIX_BYTES)
        length = struct.unpack("<Q", prefix)[0] if len(prefix) == PREFIX_BYTES else 0
        if not 2 <= length <= min(LIMIT_BYTES, size - PREFIX_BYTES):
            raise _unsound(
                path,
                f"a header of 2 to {LIMIT_BYTES} bytes inside the file",
                f"a header length of {length} in a file of {size} bytes",
            )
        header = _parse(file.read(length), path)
    _check_offsets(header, PREFIX_BYTES + length, size, path)
    return header


def seal(path: Path) -> None:
    """Write the hash of the tensors into a header that has room for it (``UNSEALED``).

    The metadata comes out in name order: the library's order changes by run.
    """
    header = read_header(path)
    ordered = header | {METADATA: dict(sorted(header[METADATA].items())) | {SEAL: _hash(path)}}
    text = json.dumps(ordered, separators=(",", ":"), ensure_ascii=False).encode()
    with path.open("r+b") as file:
        length = struct.unpack("<Q", file.read(PREFIX_BYTES))[0]
        file.write(text.ljust(length))


def require_seal(path: Path) -> None:
    """Refuse a file whose tensors are not those that were sealed; files without a seal pass.

    Raises InputError for that, and for an unsound header.
    """
    metadata = read_header(path).get(METADATA)
    wanted = metadata.get(SEAL) if isinstance(metadata, dict) else None
    seen = _hash(path) if wanted else None
    if seen != wanted:
        raise _unsound(path, f"tensors with SHA-256 {wanted}", f"{seen}: some bytes have changed since")


def _hash(path: Path) -> str:
    """The SHA-256 of the tensors' bytes."""
    with path.open("rb") as file:
        file.seek(struct.unpack("<Q", file.read(PREFIX_BYTES))[0], 1)
        return hashlib.file_digest(file, "sha256").hexdigest()


def _parse(raw: bytes, path: Path) -> dict[str, Any]:
    try:
        header = json.loads(raw.decode(), object_pairs_hook=_unique)
    except (ValueError, RecursionError) as error:
        raise _unsound(path, "a header in JSON", f"{type(error).__name__}: {error}") from error
    if not isinstance(header, dict):
        raise _unsound(path, "a header that maps names to tensors", f"a JSON {type(header).__name__}")
    return header


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    counts = Counter(name for name, _ in pairs)
    if len(counts) < len(pairs):
        raise ValueError(f"the name {counts.most_common(1)[0][0]!r} is given twice")
    return dict(pairs)


def _check_offsets(header: dict[str, Any], start: int, size: int, path: Path) -> None:
    """Tensors must follow one another without gap or overlap from ``start`` to the end of the file."""
    end = 0
    for begin, stop, name in sorted(
        _span(name, entry, path) for name, entry in header.items() if name != METADATA
    ):
        if begin != end or stop < begin:
            problem = "overlaps the tensor before it" if begin < end else "leaves a gap before it"
            raise _unsound(
                path, f"tensor {name!r} to start at byte {end}", f"it {problem}: bytes {begin} to {stop}"
            )
        end = stop
    if start + end != size:
        fault = "is truncated" if size < start + end else "has bytes after the last tensor"
        raise _unsound(path, f"{start + end} bytes, as the header says", f"{size} bytes: the file {fault}")


def _span(name: str, entry: Any, path: Path) -> tuple[int, int, str]:
    match entry:
        case {"dtype": str(), "shape": [*shape], "data_offsets": [int(begin), int(stop)]}:
            if _is_shape(shape):
                return begin, stop, name
    raise _unsound(path, f"tensor {name!r} to have dtype, shape and two data_offsets", repr(entry)[:80])


def _is_shape(shape: list[Any]) -> bool:
    whole = len(shape) <= 64 and all(type(n) is int and 0 <= n < LARGEST for n in shape)
    return whole and math.prod(max(n, 1) for n in shape) < LARGEST


def _unsound(path: Path, expected: str, seen: str) -> InputError:
    return InputError(
        refusal(
            f"{str(path)!r} is not a sound safetensors file.",
            expected=expected,
            seen=seen,
            means="the file is damaged, incomplete, or of another kind; no tensor was read",
            fix="download or save it again, and compare sizes with the source",
        )
    )
