"""Time and memory as multiples of a fixed step in the same run, so that machines can be compared.

Time is that of the processor on one thread: other work on the machine does not count, as it would where
threads spin while they wait for each other.
Memory is the peak of what torch's operators return and somebody still holds, counted, not sampled: it
is the same on every run.
"""

from __future__ import annotations

import gc
import time
import weakref
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, TypeVar

import torch
from torch import nn
from torch.utils import _pytree as pytree
from torch.utils._python_dispatch import TorchDispatchMode

T = TypeVar("T")

RUNS, ENOUGH = 3, 0.4
"""A stage is run so often and the fastest counts, or until so many seconds are spent."""


def reference_step() -> None:
    """The unit of time and memory: 40 batches of 128 samples through 8 layers of 128 units (float32)."""
    with torch.no_grad(), torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        layers = [m for _ in range(8) for m in (nn.Linear(128, 128), nn.ReLU())]
        model, x = nn.Sequential(*layers), torch.randn(128, 128)
        for _ in range(40):
            x = model(x)


def seconds(work: Callable[[], object]) -> float:
    """Processor seconds of the fastest of a few runs, on one thread and without the garbage collector."""
    found: list[float] = []
    with _undisturbed():
        while len(found) < RUNS and sum(found) < ENOUGH:
            start = time.process_time()
            work()
            found.append(time.process_time() - start)
    return min(found)


@contextmanager
def _undisturbed() -> Iterator[None]:
    """One thread, and no garbage collected: a sweep may take as long as a trace, and comes when it likes."""
    was, threads = gc.isenabled(), torch.get_num_threads()
    gc.collect()
    gc.disable()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)
        if was:
            gc.enable()


def in_steps(spent: float) -> float:
    """Processor seconds in reference steps, which are measured now."""
    return spent / seconds(reference_step)


class _Held(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Counts the bytes of all storages that operators return, while they live."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.now = self.peak = 0
        self._seen: dict[int, weakref.ref[Any]] = {}

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        found = func(*args, **(kwargs or {}))
        for t in pytree.tree_leaves(found):
            if isinstance(t, torch.Tensor) and t.layout == torch.strided:
                self._hold(t.untyped_storage())
        return found

    def _hold(self, storage: torch.UntypedStorage) -> None:
        key, size = storage._cdata, storage.nbytes()
        if key in self._seen:
            return

        def let_go(_: Any) -> None:
            self.now -= size
            del self._seen[key]

        self._seen[key] = weakref.ref(storage, let_go)
        self.now += size
        self.peak = max(self.peak, self.now)


def peak_bytes(work: Callable[[], T]) -> tuple[int, T]:
    """The most bytes that tensors made by ``work`` held at one time, and its result."""
    with _Held() as held:
        result = work()
    return held.peak, result
