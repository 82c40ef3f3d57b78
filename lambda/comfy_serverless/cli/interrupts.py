"""Ctrl-C while a command is being loaded. It loads next to nothing itself: it must be there first."""

from __future__ import annotations

import os
import signal

TYPE_CHECKING = False
if TYPE_CHECKING:
    from types import FrameType, TracebackType

INTERRUPTED = 130


class interrupt_ends:  # noqa: N801 - used as a function
    """While modules are loaded, Ctrl-C ends this process at once: there is nothing yet to be put in order.

    Python would raise KeyboardInterrupt wherever it is. Inside the machinery of imports that prints a traceback and
    goes on, and libraries make other errors of it. In another thread than the main one it changes nothing.
    """

    def __enter__(self) -> None:
        try:
            self._previous = signal.signal(signal.SIGINT, _end)
        except ValueError:  # signals come to the main thread only
            self._previous = None

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if self._previous is not None:
            signal.signal(signal.SIGINT, self._previous)


def _end(_number: int, _frame: FrameType | None) -> None:
    os._exit(INTERRUPTED)
