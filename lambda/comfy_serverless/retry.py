"""Tries a call again that may have failed by accident."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Attempt:
    """One of several attempts."""

    pause_s: float | None
    until: float

    @property
    def is_last(self) -> bool:
        """Whether none follows: there is no pause left, or the time would be over after it."""
        return self.pause_s is None or time.monotonic() + self.pause_s >= self.until


def attempts(
    pauses_s: Sequence[float], *, until: float = math.inf, pause: Callable[[float], object] | None = None
) -> Iterator[Attempt]:
    """Yield one attempt more than there are pauses, and pause between them. Leave the loop on success.

    Args:
        until: on the monotonic clock; see `Attempt.is_last`, on which a loop raises its failure.
        pause: in place of `time.sleep`; returns whether to give up.
    """
    for pause_s in (*pauses_s, None):
        yield Attempt(pause_s, until)
        if pause_s is None or (pause or time.sleep)(pause_s):
            return
