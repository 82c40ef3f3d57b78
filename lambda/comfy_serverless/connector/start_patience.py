"""How long a caller waits for the start of an engine."""

from __future__ import annotations

import math
import threading
import time

from comfy_serverless.errors import Canceled, DeadlineExceeded

#: Longest delay before a cancel is noticed during the start, in seconds.
_CANCEL_HEARD_S = 0.1


class StartPatience:
    """How long a caller waits for the start: until a deadline or a cancel."""

    def __init__(self, timeout_s: float | None, canceled: threading.Event | None) -> None:
        self._deadline = math.inf if timeout_s is None else time.monotonic() + timeout_s
        self._canceled = canceled

    def next_s(self) -> float:
        """How long to wait before the next `check`, in seconds."""
        return max(0.0, min(_CANCEL_HEARD_S, self._deadline - time.monotonic()))

    def check(self) -> None:
        """Raise if no patience is left."""
        if self._canceled is not None and self._canceled.is_set():
            raise Canceled("the job was canceled on request before it was submitted")
        if time.monotonic() >= self._deadline:
            raise DeadlineExceeded("the deadline passed while ComfyUI was still starting")
