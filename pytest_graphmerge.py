"""The pytest plugin: ``pytest --graphmerge-zoo PATH`` makes every check of a zoo a test.

It stands outside of the package so that a run of pytest without the option does not import torch.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from graphmerge.zoo import Check, Entry, ZooFolder


def pytest_addoption(parser: pytest.Parser) -> None:
    """``--graphmerge-zoo``, which may be given several times."""
    group = parser.getgroup("graphmerge")
    group.addoption(
        "--graphmerge-zoo", action="append", default=[], metavar="PATH",
        help="also run the checks of the zoo in this folder, each as a test",
    )  # fmt: skip


def pytest_configure(config: pytest.Config) -> None:
    """The zoos are collected besides what pytest would collect anyway."""
    for folder in config.getoption("graphmerge_zoo"):
        target = str(Path(folder) / "zoo.yml")
        if not Path(target).is_file():
            raise pytest.UsageError(f"--graphmerge-zoo {folder}: there is no zoo.yml in it")
        if target not in config.args:
            config.args.append(target)


def pytest_collect_file(file_path: Path, parent: pytest.Collector) -> pytest.Collector | None:
    """A zoo.yml that was asked for."""
    folders = {Path(f).resolve() for f in parent.config.getoption("graphmerge_zoo")}
    if file_path.name == "zoo.yml" and file_path.parent.resolve() in folders:
        return ZooFile.from_parent(parent, path=file_path)
    return None


class ZooFile(pytest.File):
    """A zoo: its entries."""

    def collect(self) -> Iterator[pytest.Collector]:
        """An ``EntryChecks`` for every entry."""
        from graphmerge.errors import GraphMergeError
        from graphmerge.zoo import read_baseline, read_zoo
        from graphmerge.zoo.run import missing

        try:
            zoo, baseline = read_zoo(self.path.parent), read_baseline(self.path.parent)
        except GraphMergeError as error:
            raise self.CollectError(str(error)) from error
        for name in zoo.entries:
            yield EntryChecks.from_parent(self, name=name, zoo=zoo, baseline=baseline.get(name))
        for check in missing(zoo, baseline):
            yield Missing.from_parent(self, name=check.entry, checks={check.name: check})


class Missing(pytest.Collector):
    """An entry that the baseline has and the zoo has no more: its one check fails."""

    def __init__(self, checks: dict[str, Check], **more: Any) -> None:
        super().__init__(**more)
        self.checks = checks

    def collect(self) -> Iterator[pytest.Item]:
        """An item for the check."""
        return (CheckItem.from_parent(self, name=what) for what in self.checks)


class EntryChecks(pytest.Collector):
    """An entry, measured when the first of its checks runs."""

    def __init__(self, zoo: ZooFolder, baseline: Any, **more: Any) -> None:
        super().__init__(**more)
        self.zoo, self.baseline = zoo, baseline

    @property
    def entry(self) -> Entry:
        """What zoo.yml tells of it."""
        return self.zoo.entries[self.name]

    def collect(self) -> Iterator[pytest.Item]:
        """An item for every check that applies; with pytest-xdist's loadgroup one worker runs them all."""
        from graphmerge.zoo.measure import names_of

        for what in names_of(self.entry):
            item = CheckItem.from_parent(self, name=what)
            if self.config.pluginmanager.hasplugin("xdist"):
                item.add_marker(pytest.mark.xdist_group(f"zoo-{self.name}"))
            yield item

    @cached_property
    def checks(self) -> dict[str, Check]:
        """The checks by name; the warnings of exporters are no concern of the tests around."""
        from graphmerge.zoo import judge, measure
        from graphmerge.zoo.subject import Subject

        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            found = measure(self.name, Subject(self.zoo, self.entry))
        return {c.name: c for c in judge(found, self.entry, self.baseline)}


class CheckItem(pytest.Item):
    """One check of one entry."""

    def runtest(self) -> None:
        """Fail with what moved; skip where another check of the entry kept it from being made."""
        assert isinstance(self.parent, EntryChecks | Missing)
        check = self.parent.checks[self.name]
        if check.outcome == "SKIP":
            pytest.skip(check.text)
        if check.outcome == "FAIL":
            pytest.fail("\n".join([check.text, *check.details]), pytrace=False)

    def repr_failure(self, excinfo: pytest.ExceptionInfo[BaseException], style: Any = None) -> str:
        """What moved, without a traceback; a defect of the check itself with one."""
        if isinstance(excinfo.value, pytest.fail.Exception):
            return str(excinfo.value)
        return str(super().repr_failure(excinfo, style))

    def reportinfo(self) -> tuple[Path, int | None, str]:
        """Where the check is told of, and its name."""
        assert self.parent is not None
        return self.path, None, f"zoo/{self.parent.name} {self.name}"
