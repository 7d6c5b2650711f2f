"""Checkpoints in several files: an index that names the file of every tensor, as Hugging Face writes them."""

from __future__ import annotations

import hashlib
import json
from collections import OrderedDict
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import Tensor

from graphmerge.errors import listing
from graphmerge.files.checkpoint import load_checkpoint, save_checkpoint, sha256, unreadable
from graphmerge.files.header import METADATA, read_header

WHOLE = "model.safetensors"
INDEX = "model.safetensors.index.json"
LIMIT_BYTES = 100_000_000


def weight_files(path: str | Path) -> tuple[Path, ...]:
    """The files that hold the weights: the file itself, or those of a folder or an index.

    Raises InputError where a folder has none, or its index does not agree with the files beside it.
    """
    path = Path(path)
    if not path.exists():
        raise unreadable(
            path, "a checkpoint file or a folder with one", "nothing at this path", "check the path"
        )
    if path.is_dir():
        if (path / WHOLE).is_file():
            return (path / WHOLE,)
        path = path / INDEX
        if not path.is_file():
            raise unreadable(path.parent, f"{WHOLE} or {INDEX}", "neither", "save the model as safetensors")
    if not path.name.endswith(".index.json"):
        return (path,)
    files = tuple(path.parent / name for name in sorted(set(read_index(path).values())))
    if missing := [f.name for f in files if not f.is_file()]:
        fix = "fetch the files that are missing, or save the model again"
        raise unreadable(path, f"the {len(files)} files that it names", f"missing: {listing(missing)}", fix)
    return files


def read_index(path: Path) -> dict[str, str]:
    """Names of tensors to names of files beside the index.

    Raises InputError where it is no such index, or names a file elsewhere.
    """
    try:
        if path.stat().st_size > LIMIT_BYTES:
            raise ValueError(f"larger than {LIMIT_BYTES} bytes")
        found = json.loads(path.read_text(encoding="utf-8"))["weight_map"]
        if not found or not all(isinstance(x, str) for pair in found.items() for x in pair):
            raise ValueError("weight_map does not map names to names")
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        seen = f"{type(error).__name__}: {error}"
        raise unreadable(path, "JSON with a weight_map", seen, "save the model again") from error
    away = sorted({f for f in found.values() if Path(f).name != f or f in (".", "..") or "\\" in f})
    if away:
        fix = "do not use this file unless you know where it is from"
        raise unreadable(path, "names of files in the same folder", f"paths {listing(away)}", fix)
    return dict(found)


def load_weights_of(path: str | Path) -> dict[str, Tensor]:
    """The state dict of a checkpoint, be it a file, a folder or an index; tensors are on the CPU.

    Raises InputError as ``load_checkpoint`` does, and where index and files do not agree.
    """
    path, files = Path(path), weight_files(path)
    require_index(path, {f: _names(f) for f in files} if files != (path,) else {})
    if len(files) == 1:
        return load_checkpoint(files[0])
    state: OrderedDict[str, Tensor] = OrderedDict()
    for file in files:
        state.update(load_checkpoint(file))
    return state


def require_index(path: Path, names: Mapping[Path, set[str]]) -> None:
    """InputError unless every file holds the tensors that the index says, and no others."""
    index = path if path.name.endswith(".index.json") else path / INDEX
    if not names or (path.is_dir() and (path / WHOLE).is_file()):
        return
    wanted = read_index(index)
    for file, own in names.items():
        said = {n for n, f in wanted.items() if f == file.name}
        if said != own:
            seen = f"{file.name}: {listing(sorted(said ^ own))} only in one of the two"
            raise unreadable(
                index, "each file to hold the tensors named for it", seen, "save the model again"
            )


def _names(file: Path) -> set[str]:
    return set(read_header(file)) - {METADATA}


def hash_of(path: str | Path) -> str:
    """The SHA-256 of a checkpoint: of the file, or of the names and hashes of a folder's files."""
    files = weight_files(path)
    if files == (Path(path),):
        return sha256(path)
    lines = "".join(f"{sha256(f)}  {f.name}\n" for f in files)
    return hashlib.sha256(lines.encode()).hexdigest()


def weight_bytes(path: str | Path) -> int:
    """How many bytes the files of a checkpoint have."""
    return sum(f.stat().st_size for f in weight_files(path))


def save_model(
    folder: Path, state: Mapping[str, Tensor], metadata: Mapping[str, Any], shard_size: int
) -> tuple[Path, ...]:
    """Write ``model.safetensors``, or files of at most ``shard_size`` bytes and their index.

    Tensors come in the order of their names; one larger than ``shard_size`` has a file of its own.
    Raises what ``save_checkpoint`` does.
    """
    parts = _parts(state, shard_size)
    if len(parts) == 1:
        save_checkpoint(folder / WHOLE, state, metadata)
        return (folder / WHOLE,)
    where: dict[str, str] = {}
    for k, names in enumerate(parts, 1):
        file = f"model-{k:05d}-of-{len(parts):05d}.safetensors"
        save_checkpoint(folder / file, {n: state[n] for n in names}, metadata)
        where |= dict.fromkeys(names, file)
    total = sum(t.numel() * t.element_size() for t in state.values())
    index = {"metadata": {"total_size": total}, "weight_map": dict(sorted(where.items()))}
    (folder / INDEX).write_text(json.dumps(index, indent=2) + "\n", encoding="utf-8")
    return tuple(folder / f for f in sorted(set(where.values())))


def _parts(state: Mapping[str, Tensor], shard_size: int) -> list[list[str]]:
    """Names in order, in parts that each fit."""
    parts: list[list[str]] = [[]]
    room = shard_size
    for name in sorted(state):
        size = state[name].numel() * state[name].element_size()
        if parts[-1] and size > room:
            parts.append([])
            room = shard_size
        parts[-1].append(name)
        room -= size
    return parts
