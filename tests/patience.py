"""Time on a machine that has other things to do.

A wall clock cannot tell code that is slow from code that nobody lets run. `QuietClock` can: it stands while a thread of
this process, or of a process started by it, could run and has to wait for a processor. Code that sleeps, waits for the
wrong thing or computes too much moves it as ever, so that a bound held by it is as sharp as on a quiet machine.

`slack` is for what the product itself measures on the wall (a lease, a deadline): tests give it that much more.
Waiting for something to happen needs neither: wait up to `PATIENCE_S`, which costs time only where it fails.
"""

from __future__ import annotations

import contextlib
import os
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from functools import cache
from pathlib import Path
from types import TracebackType

#: How long a test waits for what should happen at once, before it gives up.
PATIENCE_S = 120.0
#: The load of a machine changes: what was not seen of a process that has ended is at most this long.
_SAMPLE_S = 0.25
_MAX_SLACK = 10.0


class QuietClock:
    """Seconds, as `time.monotonic`, without those in which the machine was starved. `close` it.

    Where the kernel does not say how long threads have waited (anything but Linux) it is a wall clock.

    Args:
        waits: how long each thread has waited for a processor so far, in seconds, by its id; of the threads whose time
            is measured.
        now: the wall clock.
    """

    def __init__(
        self, *, waits: Callable[[], Mapping[int, float]] | None = None, now: Callable[[], float] = time.monotonic
    ) -> None:
        self._waits = waits or self._waits_of_tree
        self._now = now
        self._lock = threading.Lock()
        self._seconds = 0.0
        self._last, self._last_waits = now(), self._waits()
        self._closed = threading.Event()
        self._sampler = threading.Thread(target=self._sample, name="quiet-clock", daemon=True)
        self._sampler.start()

    def __call__(self) -> float:
        """Now. Only differences mean something."""
        with self._lock:
            now, waits = self._now(), self._waits()
            # An id below what it was is another thread: all that it has waited is new.
            starved = sum(
                waited - before if (before := self._last_waits.get(thread, 0.0)) <= waited else waited
                for thread, waited in waits.items()
            )
            self._seconds += max(0.0, now - self._last - starved)
            self._last, self._last_waits = now, waits
            return self._seconds

    def close(self) -> None:
        """End its thread."""
        self._closed.set()
        self._sampler.join()

    def __enter__(self) -> QuietClock:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _sample(self) -> None:
        while not self._closed.wait(_SAMPLE_S):
            self()

    def _waits_of_tree(self) -> dict[int, float]:
        mine = getattr(getattr(self, "_sampler", None), "native_id", None)
        return {thread: waited for thread, waited in _tree_waits(os.getpid()) if thread != mine}


def _tree_waits(pid: int) -> Iterator[tuple[int, float]]:
    """Each thread of a process and its descendants, and how long it has waited for a processor."""
    with contextlib.suppress(OSError):
        for task in Path(f"/proc/{pid}/task").iterdir():
            with contextlib.suppress(OSError):
                yield int(task.name), int((task / "schedstat").read_text().split()[1]) / 1e9
                for child in (task / "children").read_text().split():
                    yield from _tree_waits(int(child))


@cache
def slack() -> float:
    """How many times longer than on a quiet machine things take here, from 1 to 10; measured when first asked."""
    ratios = sorted(_starvation() for _ in range(5))
    return min(_MAX_SLACK, max(1.0, ratios[-2]))


def _starvation() -> float:
    """Wall time by processor time, of a moment's work."""
    begun, cpu = time.monotonic(), time.thread_time()
    while (used := time.thread_time() - cpu) < 0.02:
        pass
    return (time.monotonic() - begun) / used


def wait_until(condition: Callable[[], object], *, within_s: float = PATIENCE_S) -> bool:
    """Whether something becomes so; it is asked for until it does, or patience ends."""
    end = time.monotonic() + within_s
    while not (is_so := bool(condition())) and time.monotonic() < end:
        time.sleep(0.02)
    return is_so


def is_alive(pid: int) -> bool:
    """Whether a process runs: one that has ended and that nobody has waited for does not."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):  # gone before it was opened, or read
        return False
