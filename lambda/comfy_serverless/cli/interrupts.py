"""Ctrl-C while a command is being loaded. It loads next to nothing itself: it must be there first."""

from __future__ import annotations

import os
import signal

TYPE_CHECKING = False
if TYPE_CHECKING:
    from types import FrameType, TracebackType

INTERRUPTED = 130
#: What shells add to the number of the signal that ended a program.
_BY_SIGNAL = 128


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


class ends_in_order:  # noqa: N801 - used as a function
    """Meanwhile SIGTERM and SIGHUP end this program as an exception does, so that what it has started is ended, too.

    The exit code is the shell's own for a signal, 143 or 129. While things are put in order, further signals wait.
    In another thread than the main one it changes nothing.
    """

    def __init__(self) -> None:
        self._previous: dict[int, object] = {}

    def __enter__(self) -> None:
        try:
            for number in (signal.SIGTERM, signal.SIGHUP):
                self._previous[number] = signal.signal(number, _leave)
        except ValueError:  # signals come to the main thread only
            pass

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        for number, previous in self._previous.items():
            signal.signal(number, previous)  # type: ignore[arg-type]


def _leave(number: int, _frame: FrameType | None) -> None:
    for one in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(one, signal.SIG_IGN)
    raise SystemExit(_BY_SIGNAL + number)


def _end(_number: int, _frame: FrameType | None) -> None:
    os._exit(INTERRUPTED)
