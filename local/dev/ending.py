"""The end of `make dev`, for which somebody asks by a signal, once or as often as a terminal sends it."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable
from queue import SimpleQueue


class Ending:
    """Waits for SIGINT or SIGTERM.

    A handler comes in the middle of anything, also of another handler (make and a terminal each send one), so it must
    take no lock, as an Event does. It puts into a SimpleQueue, which is made for that; a thread does all else.

    Args:
        begin: called once, in that thread, at the first signal.
    """

    def __init__(self, begin: Callable[[], None]) -> None:
        self._asked: SimpleQueue[int] = SimpleQueue()
        self._has_begun = threading.Event()
        self._begin = begin
        self._is_asked = False
        threading.Thread(target=self._end, name="the end", daemon=True).start()
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, self._ask)

    @property
    def is_asked(self) -> bool:
        """Whether somebody has asked for the end: what fails from then on fails for that."""
        return self._is_asked

    def wait(self) -> None:
        """Return once `begin` has been called."""
        self._has_begun.wait()

    def _ask(self, number: int, _frame: object) -> None:
        self._is_asked = True
        self._asked.put(number)

    def _end(self) -> None:
        self._asked.get()
        try:
            self._begin()
        finally:  # it may have nobody left to tell
            self._has_begun.set()
