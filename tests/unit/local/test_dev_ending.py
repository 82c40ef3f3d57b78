"""How `make dev` is asked to end: a terminal, make and a second Ctrl-C each send a signal, at any moment."""

from __future__ import annotations

import signal
import sys
import threading
from collections.abc import Iterator
from typing import Any

import pytest

from local.dev.ending import Ending

SIGNALS = (signal.SIGINT, signal.SIGTERM)


@pytest.fixture(autouse=True)
def handlers() -> Iterator[None]:
    before = [signal.getsignal(number) for number in SIGNALS]
    yield
    for number, handler in zip(SIGNALS, before, strict=True):
        signal.signal(number, handler)


@pytest.mark.timeout(60)
def test_signals_in_the_middle_of_one_another_begin_the_end_once() -> None:
    begun: list[str] = []
    ending = Ending(lambda: begun.append(threading.current_thread().name))
    left = [200]

    def another(_frame: Any, _event: str, _argument: Any) -> None:
        """Send one more whenever something is called or has returned: in the middle of the handler, too."""
        if left[0]:
            left[0] -= 1
            signal.raise_signal(SIGNALS[left[0] % 2])

    sys.setprofile(another)
    try:
        signal.raise_signal(signal.SIGINT)
        ending.wait()
        for _ in range(200):
            len(begun)
    finally:
        sys.setprofile(None)
    assert left == [0]
    assert begun == ["the end"]


@pytest.mark.timeout(60)
def test_an_end_that_fails_to_begin_is_not_waited_for_for_ever(monkeypatch: pytest.MonkeyPatch) -> None:
    told: list[type[BaseException]] = []
    monkeypatch.setattr(threading, "excepthook", lambda failure: told.append(failure.exc_type))
    begun: list[threading.Thread] = []

    def fails() -> None:
        begun.append(threading.current_thread())
        raise BrokenPipeError("the terminal is gone")

    ending = Ending(fails)
    signal.raise_signal(signal.SIGTERM)
    ending.wait()
    begun[0].join()
    assert told == [BrokenPipeError]
