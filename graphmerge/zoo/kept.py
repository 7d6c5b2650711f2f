"""Measurements kept on disk under a hash of all that they depend on: an interrupted check goes on."""

from __future__ import annotations

import hashlib
import importlib
import json
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path

import graphmerge.errors as own_code
from graphmerge.errors import GraphMergeError, InputError
from graphmerge.files import sha256, write_text
from graphmerge.progress import Progress, silent
from graphmerge.sources import is_import
from graphmerge.trace.fingerprint import content_hash, fingerprint
from graphmerge.zoo.baseline import read_baseline, versions
from graphmerge.zoo.judge import judge, passed
from graphmerge.zoo.measure import Measured, measure
from graphmerge.zoo.subject import Subject, also_importable


def key(subject: Subject) -> str:
    """SHA-256 over code, versions, settings, weights and data of an entry.

    The code is that of graphmerge and of the package (or single file) that makes the model, with the
    source files of the model's classes; the data are what the loaders give.
    """
    args, kwargs = subject.example
    parts = [
        json.dumps(versions(), sort_keys=True),
        subject.entry.model_dump_json(),
        fingerprint(subject.model, args, kwargs),
        *(sha256(subject.zoo.path(w)) for w in subject.entry.inputs),
        *(f"{p.name} {sha256(p)}" for p in _code(Path(own_code.__file__).parent)),
        *(f"{p.name} {sha256(p)}" for p in _model_code(subject)),
        content_hash(subject.data),
        content_hash(subject.test),
    ]
    return hashlib.sha256("\0".join(parts).encode()).hexdigest()


def _code(folder: Path) -> list[Path]:
    return sorted(folder.rglob("*.py"))


def _model_code(subject: Subject) -> Iterator[Path]:
    """The files of the package that the factory is in; of a lone module its file."""
    if not is_import(subject.entry.model):
        return
    top = subject.entry.model.partition(":")[0].partition(".")[0]
    with also_importable(subject.zoo.folder):
        module = importlib.import_module(top)
    for folder in getattr(module, "__path__", ()):
        yield from _code(Path(folder))
    if not hasattr(module, "__path__") and module.__file__:
        yield Path(module.__file__)


def _read(file: Path, name: str) -> Measured:
    try:
        return Measured(**json.loads(file.read_text(encoding="utf-8")) | {"entry": name})
    except (OSError, ValueError, TypeError) as error:
        raise InputError(f"{str(file)!r} is damaged ({error}): delete it to measure anew") from error


def measured(name: str, subject: Subject, cache: Path | None = None, progress: Progress = silent) -> Measured:
    """``measure``, or what it gave before for the same content, kept in ``cache``.

    Only what passed is kept, so that a failure by chance (of time) is not repeated. Where there is no key,
    for the model, its weights or its data cannot be had, measuring tells why.
    """
    try:
        file = cache / f"{key(subject)}.json" if cache else None
    except (GraphMergeError, OSError):
        file = None
    if file is not None and file.exists():
        progress(f"{name}: kept in {file}")
        return _read(file, name)
    found = measure(name, subject, progress)
    baseline = read_baseline(subject.zoo.folder).get(name)
    if file is not None and passed(judge(found, subject.entry, baseline)):
        write_text(file, json.dumps(asdict(found), indent=1, sort_keys=True) + "\n")
    return found
