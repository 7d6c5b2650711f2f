"""A part of a test in a process of its own that has everything imported: forked, and sent a signal."""

from __future__ import annotations

import io
import os
import signal
import sys
import time
import warnings
from collections.abc import Callable

import torch

PATIENCE = 60.0
"""Seconds until a child that does not end is killed, with the exit code that tells so."""


def killed(work: Callable[[], object], after: float, sent: signal.Signals = signal.SIGKILL) -> int:
    """Run ``work`` in a forked process, send it a signal ``after`` so many seconds, and wait for its end.

    Its exit code as a shell gives it: 128 and the signal's number where that ended it, 70 after an exception.
    """
    ready, begun = os.pipe()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # of forking beside threads, which only wait
        child = os.fork()
    if child == 0:
        _run(work, begun)
    os.read(ready, 1)
    for end in (ready, begun):
        os.close(end)
    code = _wait(child, after)
    if code is None:
        os.kill(child, sent)
        code = _wait(child, PATIENCE)
    if code is None:
        os.kill(child, signal.SIGKILL)
        code = _wait(child, PATIENCE)
    assert code is not None
    return code


def _run(work: Callable[[], object], begun: int) -> None:
    """The child: threads of torch are not taken along by a fork, so that it has none."""
    code = 70
    try:
        torch.set_num_threads(1)
        signal.signal(signal.SIGINT, signal.default_int_handler)
        sys.stdout = sys.stderr = io.StringIO()
        os.write(begun, b".")
        work()
        code = 0
    except SystemExit as error:
        code = error.code if isinstance(error.code, int) else 0
    finally:
        os._exit(code)


def _wait(child: int, seconds: float) -> int | None:
    """The exit code of a child; None where it has not ended by then."""
    until = time.monotonic() + seconds
    while True:
        done, status = os.waitpid(child, os.WNOHANG)
        if done:
            return 128 + os.WTERMSIG(status) if os.WIFSIGNALED(status) else os.WEXITSTATUS(status)
        left = until - time.monotonic()
        if left <= 0:
            return None
        time.sleep(min(left, 0.001))
