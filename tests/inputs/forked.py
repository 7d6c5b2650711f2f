"""A part of a test in a process of its own that has everything imported: forked, and sent a signal."""

from __future__ import annotations

import os
import signal
import time
import warnings
from collections.abc import Callable

import torch


def killed(work: Callable[[], object], after: float, sent: signal.Signals = signal.SIGKILL) -> int:
    """Run ``work`` in a forked process and send it a signal ``after`` so many seconds.

    Its exit code as a shell gives it: 128 and the signal's number where that ended it. The
    parent must not have started threads of torch, which a fork does not take along.
    """
    torch.set_num_threads(1)
    ready, begun = os.pipe()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # of forking beside threads that only wait
        child = os.fork()
    if child == 0:
        code = 70
        try:
            signal.signal(signal.SIGINT, signal.default_int_handler)
            for stream in (1, 2):
                os.dup2(os.open(os.devnull, os.O_WRONLY), stream)
            os.write(begun, b".")
            work()
            code = 0
        except SystemExit as error:
            code = error.code if isinstance(error.code, int) else 0
        finally:
            os._exit(code)
    os.read(ready, 1)
    os.close(ready)
    os.close(begun)
    until = time.monotonic() + after
    while (left := until - time.monotonic()) > 0:
        if (done := os.waitpid(child, os.WNOHANG)) != (0, 0):
            return _code(done[1])
        time.sleep(min(left, 0.002))
    os.kill(child, sent)
    return _code(os.waitpid(child, 0)[1])


def _code(status: int) -> int:
    return 128 + os.WTERMSIG(status) if os.WIFSIGNALED(status) else os.WEXITSTATUS(status)
