"""An output, folder or file, written as a whole: complete under its name, or not there at all."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from graphmerge.errors import UsageError, refusal
from graphmerge.files.staging import publish_file, publish_folder, refuse_unless_file, staging, system_faults


@contextmanager
def staged_output(
    path: str | Path,
    force: bool = False,
    *,
    inputs: Sequence[str | Path] = (),
    needed_bytes: int = 0,
) -> Iterator[Path]:
    """Yield an empty folder; leaving the block puts it at ``path``, an exception throws it away.

    Until then an output that is already at ``path`` stays exactly as it was, and any exception,
    Ctrl-C included, leaves it so. With ``force`` a whole earlier folder is replaced.

    Parameters
    ----------
    path
        The output folder. Missing parents are made.
    force
        Whether a folder that holds something may be replaced.
    inputs
        Files and folders that the run reads: none may lie in the output.
    needed_bytes
        What the output will take on disk, checked before the block starts.

    Raises
    ------
    UsageError
        ``path`` holds something and ``force`` is off, is a link or a file, or contains an input
        or the current folder.
    SystemFault
        The parent is read-only, lacks space, or another live run writes the same output.
    """
    target = Path(path)
    require_free(target, force, inputs=inputs)
    with staging(target, needed_bytes) as part:
        folder = part / "new"
        folder.mkdir()
        yield folder
        publish_folder(folder, target)


def require_free(path: str | Path, force: bool, *, inputs: Sequence[str | Path] = ()) -> None:
    """UsageError unless an output may be put at ``path``; as for ``staged_output``."""
    _refuse_overlap(Path(path), inputs)
    _refuse_occupied(Path(path), force)


def write_text(path: str | Path, text: str) -> None:
    """Put ``text`` (UTF-8) at ``path`` at once; an earlier plain file is replaced.

    Raises UsageError where ``path`` is a link, a folder or a device, SystemFault where it cannot be written.
    """
    target = Path(path)
    refuse_unless_file(target)
    content = text.encode()
    with staging(target, len(content)) as part:
        with system_faults("write", target):
            (part / target.name).write_bytes(content)
        publish_file(part / target.name, target)


def _refuse_overlap(target: Path, inputs: Sequence[str | Path]) -> None:
    for source in (*map(Path, inputs), Path.cwd()):
        if _contains(target, source):
            raise UsageError(
                refusal(
                    f"The output {str(target)!r} contains {str(source)!r}, which this run needs.",
                    expected="an output folder that holds no input and not the current folder",
                    seen="an input inside the output (or the same path)",
                    means="replacing the output would destroy the input",
                    fix="choose another output folder; --force does not change this",
                )
            )


def _contains(target: Path, source: Path) -> bool:
    """Whether ``source`` lies in ``target`` as it is written or once links are followed."""
    return source.absolute().is_relative_to(target.absolute()) or source.resolve().is_relative_to(
        target.resolve()
    )


def _refuse_occupied(target: Path, force: bool) -> None:
    seen, fix = "", "choose another output folder"
    if target.is_symlink():
        seen = "a symbolic link, which is never written through"
    elif target.exists() and not target.is_dir():
        seen = "a file"
    elif target.is_dir() and any(target.iterdir()) and not force:
        seen, fix = (
            "a folder that is not empty",
            "choose another output folder, or pass --force to replace it whole",
        )
    if seen:
        raise UsageError(
            refusal(
                f"The output {str(target)!r} already exists.",
                expected="a new or empty folder",
                seen=seen,
                means="writing here would overwrite something; nothing was changed",
                fix=fix,
            )
        )
