"""What holds for every test, wherever the suite is started from."""

from __future__ import annotations

import gc
import os
import signal

import pytest


def pytest_configure() -> None:
    """Ctrl-C reaches the programs that tests start: a shell's job in the background ignores it, and passes that on."""
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)
    os.environ.pop("COLUMNS", None)  # a terminal's width, which some shells pass on, folds what tests read
    gc.set_threshold(20_000, 20, 50)


@pytest.hookimpl(trylast=True)
def pytest_collection_finish() -> None:
    """Look for garbage among what tests make only: not among ten thousand tests and all libraries, again and again.

    A fifth of the processor time of most tests went into that.
    """
    gc.collect()
    gc.freeze()
