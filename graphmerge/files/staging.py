"""Writes that happen as a whole or not at all.

Everything is written into a hidden folder beside the target, on the target's file system, and
renamed into place when it is complete. One lock per target keeps a second run out; it also tells
the leftovers of a killed run (lock free: swept) from the work of a live one (lock held: let be).
"""

from __future__ import annotations

import ctypes
import errno
import fcntl
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TextIO

from graphmerge.errors import SystemFault, UsageError, amount, refusal

LOCK_SUFFIX = ".graphmerge-lock"
PART_SUFFIX = ".graphmerge-part"
PREVIOUS = "previous"
"""Within a staging folder: where an old output waits while the new one takes its place, if they cannot
change places at once."""

AT_FDCWD, RENAME_EXCHANGE = -100, 2
"""For renameat2: paths are relative to the current folder; both names exist and change places."""


@contextmanager
def staging(target: Path, needed_bytes: int = 0) -> Iterator[Path]:
    """An empty folder in which to build ``target``; gone at exit, however the block is left.

    Parents of the target are made. Staging folders of killed runs in the same parent are swept.

    Raises
    ------
    SystemFault
        The parent cannot be written, lacks ``needed_bytes``, or another run writes this target.
    """
    parent = target.absolute().parent
    with system_faults("prepare", target):
        parent.mkdir(parents=True, exist_ok=True)
    require_space(target, needed_bytes)
    part = parent / f".{target.name}{PART_SUFFIX}"
    with _lock(_lock_of(part), target):
        with system_faults("write beside", target):
            _sweep(parent, own=part)
            part.mkdir()
        try:
            yield part
        finally:
            _discard(part)


def publish_file(source: Path, target: Path) -> None:
    """Move a staged file to ``target``, replacing it at once; on disk even if the power fails."""
    with system_faults("write", target):
        _sync(source)
        source.replace(target)
        _sync(target.absolute().parent)


def publish_folder(source: Path, target: Path) -> None:
    """Move a staged folder to ``target``; an old output comes back should the move fail."""
    with system_faults("write", target):
        for path in [*source.rglob("*"), source]:
            if not path.is_symlink():
                _sync(path)
        if not target.exists():
            source.rename(target)
        elif not _exchange(source, target):
            target.rename(source.parent / PREVIOUS)
            source.rename(target)
        _sync(target.absolute().parent)


def _exchange(a: Path, b: Path) -> bool:
    """Let two folders change places at once, so that there is no moment without either.

    False where the system or the file system cannot (renameat2 of Linux can).
    """
    swap = getattr(ctypes.CDLL(None, use_errno=True), "renameat2", None)
    if swap is None:
        return False
    if swap(AT_FDCWD, os.fsencode(a), AT_FDCWD, os.fsencode(b), RENAME_EXCHANGE) == 0:
        return True
    code = ctypes.get_errno()
    if code in (errno.EINVAL, errno.ENOSYS, errno.ENOTSUP):
        return False
    raise OSError(code, os.strerror(code), str(b))


def refuse_unless_file(target: Path) -> None:
    """Outputs replace plain files only: no link is written through, no device or folder replaced."""
    if target.is_symlink() or (target.exists() and not target.is_file()):
        seen = "a symbolic link" if target.is_symlink() else "a folder or device"
        raise UsageError(
            refusal(
                f"The output {str(target)!r} is not a plain file.",
                expected="a new name, or a regular file to replace",
                seen=seen,
                means="writing here would destroy something that is not an earlier output",
                fix="give another output path",
            )
        )


def require_space(target: Path, needed_bytes: int) -> None:
    """Refuse before the first byte is written when the disk cannot hold the output.

    Raises SystemFault naming the bytes needed and the bytes free.
    """
    disk = shutil.disk_usage(target.absolute().parent)
    free = disk.free
    if disk.total and free < needed_bytes:  # a file system without a size, such as /proc, refuses by itself
        raise SystemFault(
            refusal(
                f"Too little disk space for {str(target)!r}.",
                expected=f"{amount(needed_bytes)} free",
                seen=f"{amount(free)} free",
                means="nothing was written; an earlier output is as it was",
                fix="free some space or write to another disk",
            )
        )


@contextmanager
def system_faults(doing: str, target: Path) -> Iterator[None]:
    """Turn an OSError of our own file work into a SystemFault that names the output."""
    try:
        yield
    except OSError as error:
        raise SystemFault(
            refusal(
                f"Cannot {doing} {str(target)!r}.",
                expected="a folder that can be written and has space",
                seen=str(error),
                means="the output was not written; an earlier one is as it was",
                fix="check permissions and space, or choose another output path",
            )
        ) from error


@contextmanager
def _lock(path: Path, target: Path) -> Iterator[None]:
    with system_faults("lock", target):
        handle = _acquire(path)
    if handle is None:
        raise SystemFault(
            refusal(
                f"Another run is writing {str(target)!r}.",
                expected=f"the lock {path.name!r} to be free",
                seen="held by a live process",
                means="two runs with one output would mix their files; this one wrote nothing",
                fix="wait for the other run, or choose another output path",
            )
        )
    try:
        yield
    finally:
        path.unlink(missing_ok=True)
        fcntl.flock(handle, fcntl.LOCK_UN)
        handle.close()


def _acquire(path: Path) -> TextIO | None:
    """The lock, or None when a live process holds it.

    A holder removes its lock file before it lets go, so a lock counts only if it is still on the
    file that ``path`` names.
    """
    while True:
        handle = path.open("a")
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            handle.close()
            return None
        if _names(path, handle):
            return handle
        handle.close()


def _names(path: Path, handle: TextIO) -> bool:
    """Whether ``path`` still leads to the open file."""
    return path.exists() and os.path.samestat(path.stat(), os.fstat(handle.fileno()))


def _lock_of(part: Path) -> Path:
    return part.with_name(part.name.removesuffix(PART_SUFFIX) + LOCK_SUFFIX)


def _sweep(parent: Path, own: Path) -> None:
    """Remove what killed runs left in ``parent``; ``own`` is under our lock, the rest may be live."""
    for part in parent.glob(f".*{PART_SUFFIX}"):
        if part == own:
            _discard(part)
        elif (handle := _acquire(_lock_of(part))) is not None:
            _discard(part)
            _lock_of(part).unlink(missing_ok=True)
            handle.close()


def _discard(part: Path) -> None:
    """Remove a staging folder; an output that was moved out of the way goes back first."""
    target = part.with_name(part.name.removeprefix(".").removesuffix(PART_SUFFIX))
    previous = part / PREVIOUS
    if previous.exists() and not target.exists():
        previous.rename(target)
    shutil.rmtree(part, ignore_errors=True)


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
