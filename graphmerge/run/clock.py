"""What was said during a run, and when: the times of its stages."""

from __future__ import annotations

import time

from graphmerge.progress import Progress

Log = list[tuple[float, str]]
"""Seconds since the start, and what was said then."""


def noted(say: Progress) -> tuple[Progress, Log]:
    """``say``, and the list in which all that is said through it is noted."""
    since, log = time.perf_counter(), Log()

    def both(text: str) -> None:
        log.append((time.perf_counter() - since, text))
        say(text)

    return both, log
