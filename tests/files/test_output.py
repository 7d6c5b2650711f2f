"""The output folder appears whole, or the old one stays as it was."""

import fcntl
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from graphmerge.errors import GraphMergeError, SystemFault, UsageError
from graphmerge.files import staged_output


@pytest.fixture
def old(tmp_path: Path) -> Iterator[Path]:
    """An earlier output, which must be alone and unchanged at the end of the test."""
    target = tmp_path / "out"
    (target / "sub").mkdir(parents=True)
    (target / "sub" / "weights").write_text("old")
    yield target
    assert (target / "sub" / "weights").read_text() == "old"
    assert [path.name for path in target.iterdir()] == ["sub"]
    assert not list(tmp_path.glob(".*"))


def refusal(error: type[GraphMergeError], code: int, target: Path, **options: object) -> str:
    with pytest.raises(error) as caught, staged_output(target, **options):  # type: ignore[arg-type]
        pytest.fail("the block must not start")
    assert caught.value.exit_code == code
    return str(caught.value)


def test_output_appears_when_the_block_ends(tmp_path: Path) -> None:
    target = tmp_path / "deep" / "out put ü"
    with staged_output(target) as folder:
        (folder / "weights").write_text("new")
        assert not target.exists()
        assert folder.stat().st_dev == target.parent.stat().st_dev
    assert (target / "weights").read_text() == "new"
    assert list(target.parent.iterdir()) == [target]


def break_off(folder: Path, error: type[BaseException]) -> None:
    (folder / "weights").write_text("half")
    raise error


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt, SystemExit])
def test_exception_throws_the_staged_output_away(error: type[BaseException], old: Path) -> None:
    with pytest.raises(error), staged_output(old, force=True) as folder:
        break_off(folder, error)


def test_exception_leaves_nothing_where_nothing_was(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="stop"), staged_output(tmp_path / "out"):
        raise ValueError("stop")
    assert not list(tmp_path.iterdir())


def test_folder_that_holds_something_is_refused(old: Path) -> None:
    message = refusal(UsageError, 2, old)
    assert "not empty" in message
    assert "--force" in message


def test_force_replaces_the_whole_folder(tmp_path: Path) -> None:
    target = tmp_path / "out"
    target.mkdir()
    (target / "stale").write_text("old")
    with staged_output(target, force=True) as folder:
        (folder / "weights").write_text("new")
        assert (target / "stale").exists()
    assert [path.name for path in target.iterdir()] == ["weights"]
    assert list(tmp_path.iterdir()) == [target]


def test_empty_folder_is_taken(tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    with staged_output(tmp_path / "out") as folder:
        (folder / "weights").write_text("new")
    assert (tmp_path / "out" / "weights").exists()


@pytest.mark.parametrize("inside", ["", "sub/weights"])
def test_input_inside_the_output_is_refused_even_with_force(inside: str, old: Path) -> None:
    assert "contains" in refusal(UsageError, 2, old, force=True, inputs=[old / inside])


def test_input_that_is_a_link_out_of_the_output_is_refused(tmp_path: Path) -> None:
    target = tmp_path / "out"
    target.mkdir()
    (tmp_path / "blob").write_text("weights")
    (target / "model").symlink_to(tmp_path / "blob")
    assert "contains" in refusal(UsageError, 2, target, force=True, inputs=[target / "model"])
    assert (target / "model").read_text() == "weights"


def test_current_folder_is_never_replaced(old: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(old / "sub")
    assert "contains" in refusal(UsageError, 2, old, force=True)


def test_file_and_link_are_refused(old: Path, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    (tmp_path / "link").symlink_to(old)
    assert "a file" in refusal(UsageError, 2, tmp_path / "file", force=True)
    assert "symbolic link" in refusal(UsageError, 2, tmp_path / "link", force=True)


def test_read_only_parent_is_refused(old: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def denied(self: Path, *_: object, **__: object) -> None:
        raise PermissionError(13, "Permission denied", str(self))

    with monkeypatch.context() as patch:
        patch.setattr(Path, "open", denied)
        message = refusal(SystemFault, 5, old, force=True)
    assert "Permission denied" in message


def test_full_disk_is_refused_before_the_start(old: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    usage = shutil.disk_usage(old)._replace(free=1000)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage)
    message = refusal(SystemFault, 5, old, force=True, needed_bytes=3 << 30)
    assert "3.0 GiB free" in message
    assert "1000 bytes free" in message


def test_a_file_system_without_a_size_is_not_said_to_be_full(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    usage = shutil.disk_usage(tmp_path)._replace(total=0, free=0)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage)
    with staged_output(tmp_path / "out", needed_bytes=1) as folder:
        (folder / "a").write_text("b")
    assert (tmp_path / "out" / "a").read_text() == "b"


def test_second_run_on_one_output_is_refused(tmp_path: Path) -> None:
    target = tmp_path / "out"
    with staged_output(target) as folder:
        assert "Another run" in refusal(SystemFault, 5, target)
        (folder / "weights").write_text("first")
    assert (target / "weights").read_text() == "first"


def test_live_staging_of_another_output_is_let_be(tmp_path: Path) -> None:
    with staged_output(tmp_path / "one") as first, staged_output(tmp_path / "two"):
        assert first.exists()
    assert (tmp_path / "one").exists()


KILLED = """
import os, signal, sys
from graphmerge.files.output import staged_output
with staged_output(sys.argv[1], force=True) as folder:
    (folder / "weights").write_text("half")
    os.kill(os.getpid(), signal.SIGKILL)
"""


def test_killed_run_leaves_the_old_output_and_is_swept_by_the_next(tmp_path: Path) -> None:
    target = tmp_path / "out"
    target.mkdir()
    (target / "weights").write_text("old")
    died = subprocess.run([sys.executable, "-c", KILLED, target], check=False)
    assert died.returncode == -signal.SIGKILL
    assert (target / "weights").read_text() == "old"
    assert len(list(tmp_path.iterdir())) == 3
    with staged_output(tmp_path / "next"):
        pass
    assert sorted(path.name for path in tmp_path.iterdir()) == ["next", "out"]


def test_old_output_comes_back_after_a_kill_between_the_two_renames(tmp_path: Path) -> None:
    part = tmp_path / ".out.graphmerge-part"
    (part / "previous").mkdir(parents=True)
    (part / "previous" / "weights").write_text("old")
    with staged_output(tmp_path / "next"):
        pass
    assert (tmp_path / "out" / "weights").read_text() == "old"
    assert not part.exists()


def test_failing_rename_puts_the_old_output_back(old: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rename = Path.rename

    def fail_on_new(self: Path, target: Path) -> Path:
        if self.name == "new":
            raise OSError(28, "No space left on device")
        return rename(self, target)

    monkeypatch.setattr(Path, "rename", fail_on_new)
    monkeypatch.setattr("graphmerge.files.staging._exchange", lambda *_: False)
    with pytest.raises(SystemFault, match="No space left"), staged_output(old, force=True):
        pass


def test_lock_taken_on_a_removed_file_is_not_trusted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The holder unlinks and lets go between our open and our flock: the lock must be taken anew."""
    flock, removed = fcntl.flock, list[Path]()

    def unlink_first(handle: object, operation: int) -> None:
        if not removed:
            removed.append(tmp_path / ".out.graphmerge-lock")
            removed[0].unlink()
        flock(handle, operation)  # type: ignore[arg-type]

    monkeypatch.setattr(fcntl, "flock", unlink_first)
    with staged_output(tmp_path / "out"):
        assert removed[0].exists()
        assert "Another run" in refusal(SystemFault, 5, tmp_path / "out")
