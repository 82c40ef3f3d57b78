"""Watches whether a container's engine can be given work, which `/ping` reports."""

from __future__ import annotations

import threading
from collections.abc import Callable
from enum import StrEnum
from typing import TYPE_CHECKING

from comfy_serverless.observability import log
from comfy_serverless.worker.outcomes import Outcome

if TYPE_CHECKING:
    from comfy_serverless.connector.connector import ComfyConnector

#: The time between two checks of an engine that has nothing to do, in seconds.
LOOK_EVERY_S = 2.0


class Health(StrEnum):
    """The answer to a ping."""

    STARTING = "starting"
    HEALTHY = "healthy"
    BROKEN = "broken"
    DRAINING = "draining"


class EngineWatch:
    """Knows how the engine is, and starts it again unless it is busy: then the job does that, and reports it."""

    def __init__(self, connector: ComfyConnector, *, is_busy: Callable[[], bool]) -> None:
        self._connector = connector
        self._is_busy = is_busy
        self._is_over = threading.Event()
        self.health = Health.STARTING

    def start(self) -> None:
        """Begin to watch, in a separate thread."""
        threading.Thread(target=self._watch, name="engine-watch", daemon=True).start()

    def drain(self) -> None:
        """Note that the end has begun: no more invocations are wanted."""
        self._is_over.set()
        self.health = Health.DRAINING

    def see(self, outcome: Outcome) -> None:
        """Learn from how a job ended."""
        error = outcome.job.error
        if error is not None and error.code == "engine_unavailable" and not self._is_over.is_set():
            self.health = Health.BROKEN

    def _watch(self) -> None:
        while not self._is_over.is_set():
            if self.health is not Health.HEALTHY or not self._is_busy():
                self._check()
            self._is_over.wait(LOOK_EVERY_S)

    def _check(self) -> None:
        try:
            self._connector.wait_ready()
            health = Health.HEALTHY
        except Exception:  # noqa: BLE001  (whatever it is, a ping must report it)
            log.exception("ComfyUI does not run, and cannot be started")
            health = Health.BROKEN
        if not self._is_over.is_set():
            self.health = health
