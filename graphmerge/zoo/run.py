"""Run the checks of a zoo: which entries, in how many processes, judged against the baseline."""

from __future__ import annotations

import multiprocessing
import re
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from fnmatch import fnmatchcase
from pathlib import Path

import torch

from graphmerge.errors import UsageError
from graphmerge.progress import Progress, silent
from graphmerge.zoo.config import ZooFolder, read_zoo
from graphmerge.zoo.judge import Check
from graphmerge.zoo.kept import measured
from graphmerge.zoo.measure import Measured, names_of
from graphmerge.zoo.subject import Subject


def select(zoo: ZooFolder, patterns: Sequence[str] = (), shard: str | None = None) -> list[str]:
    """The entries whose name contains or fits one of ``patterns``, of these the share ``i/n`` of ``shard``.

    Raises UsageError where there are no entries, a pattern fits nothing, or the shard is none.
    """
    if not zoo.entries:
        raise UsageError(f"{zoo.folder} has no entries, so nothing would be checked: graphmerge zoo add NAME")
    for pattern in patterns:
        if not any(_fits(name, pattern) for name in zoo.entries):
            raise UsageError(f"-k {pattern}: no entry fits; there are: {', '.join(zoo.entries)}")
    return share([n for n in zoo.entries if not patterns or any(_fits(n, p) for p in patterns)], shard)


def share(names: Sequence[str], shard: str | None) -> list[str]:
    """Every n-th of ``names``, from the i-th on, for a ``shard`` ``i/n``; all without one."""
    if shard is None:
        return list(names)
    told = re.fullmatch(r"(\d+)/(\d+)", shard)
    k, n = (int(told[1]), int(told[2])) if told else (0, 0)
    if not 1 <= k <= n:
        raise UsageError(f"--shard {shard}: expected I/N with I from 1 to N, such as 1/4")
    return list(names[k - 1 :: n])


def _fits(name: str, pattern: str) -> bool:
    return pattern in name or fnmatchcase(name, pattern)


def run(
    zoo: ZooFolder,
    names: Sequence[str],
    jobs: int = 1,
    cache: Path | None = None,
    progress: Progress = silent,
) -> Iterator[Measured]:
    """The measurements of the entries called ``names``, in that order, each as soon as it is there.

    With ``jobs`` above 1 that many processes measure, and share torch's threads.
    """
    if jobs == 1 or len(names) < 2:
        for name in names:
            yield measured(name, Subject(zoo, zoo.entries[name]), cache, progress)
        return
    threads = max(1, torch.get_num_threads() // jobs)
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(jobs, context, torch.set_num_threads, (threads,)) as pool:
        waiting = [pool.submit(_in_process, str(zoo.folder), name, cache) for name in names]
        try:
            for name, one in zip(names, waiting, strict=True):
                try:
                    yield one.result()
                except BrokenProcessPool:
                    yield _died(zoo, name)
        finally:
            pool.shutdown(wait=False, cancel_futures=True)


def _in_process(folder: str, name: str, cache: Path | None) -> Measured:
    zoo = read_zoo(folder)
    return measured(name, Subject(zoo, zoo.entries[name]), cache)


def _died(zoo: ZooFolder, name: str) -> Measured:
    first, *others = names_of(zoo.entries[name])
    text = "a process was killed, and with it all that were left; is there enough memory? Try fewer --jobs"
    return Measured(name, {}, {first: text}, dict.fromkeys(others, first))


def missing(zoo: ZooFolder, baseline: Mapping[str, object], shard: str | None = None) -> list[Check]:
    """A failed check for every entry of the baseline that left the zoo: nothing goes unseen."""
    why = ("the baseline has it, zoo.yml has not: run `graphmerge zoo update`",)
    return [Check(n, "listed", "FAIL", "no such entry", why) for n in share(strays(zoo, baseline), shard)]


def strays(zoo: ZooFolder, baseline: Mapping[str, object]) -> list[str]:
    """Entries of the baseline that the zoo has no more."""
    return [name for name in baseline if name not in zoo.entries]
