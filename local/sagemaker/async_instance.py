"""An instance of an asynchronous endpoint: one container, pinged all its life."""

from __future__ import annotations

import contextlib
import os
import signal
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from http import HTTPStatus

import requests

from local.aws.processes import LOOPBACK, LocalProcess, free_port

#: SageMaker's: how long a container may take to answer a ping, to start, and to end after SIGTERM.
PING_TIMEOUT_S, STARTUP_S, STOP_S = 2.0, 8 * 60.0, 30.0
_POLL_S = 0.05

#: Starts a container (or a process that is one) which listens on a port.
Start = Callable[[int], LocalProcess]


@dataclass(frozen=True, slots=True)
class Health:
    """How an instance is watched. AWS documents neither how often it pings nor how many misses it bears.

    Attributes:
        every_s: between two pings.
        startup_s: how long it may take until the first 200.
        patience_s: how long it may go without a 200 after that.
    """

    every_s: float = 1.0
    startup_s: float = STARTUP_S
    patience_s: float = 10.0


class Instance:
    """One container.

    Args:
        give_up: called once, from the instance's own thread, when it has gone without a 200 for too long.
    """

    def __init__(self, start: Start, health: Health, *, give_up: Callable[[Instance], None]) -> None:
        port = free_port()
        self.url = f"http://{LOOPBACK}:{port}"
        self.process = start(port)
        self.session = requests.Session()
        self.session.trust_env = False  # proxies of the environment are not for loopback
        self.is_healthy = False
        self.is_leaving = False
        self._health = health
        self._give_up = give_up
        threading.Thread(target=self._watch, name="endpoint pings", daemon=True).start()

    @property
    def is_alive(self) -> bool:
        """Whether the process lives."""
        return self.process.exit_code is None

    @property
    def is_usable(self) -> bool:
        """Whether invocations may be given to it."""
        return self.is_alive and self.is_healthy and not self.is_leaving

    def leave(self) -> None:
        """Take it away in order, as when an endpoint scales in: SIGTERM to the container's program, 30 s, SIGKILL."""
        self.is_leaving = True
        with contextlib.suppress(ProcessLookupError):
            os.kill(self.process.pid, signal.SIGTERM)
        end = time.monotonic() + STOP_S
        while self.is_alive and time.monotonic() < end:
            time.sleep(_POLL_S)
        self.process.stop(grace_s=1.0)

    def cut_off(self) -> None:
        """End it at once, with all it does."""
        self.is_leaving = True
        for pid in self.process.members():
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        self.process.stop(grace_s=1.0)

    def _watch(self) -> None:
        bears_until = time.monotonic() + self._health.startup_s
        with requests.Session() as session:
            session.trust_env = False
            while self.is_alive and not self.is_leaving:
                self.is_healthy = self._answers(session)
                if self.is_healthy:
                    bears_until = time.monotonic() + self._health.patience_s
                elif time.monotonic() >= bears_until:
                    self._give_up(self)
                    return
                # Pinged more often while it starts, so that its first job does not wait for the next ping.
                time.sleep(self._health.every_s if self.is_healthy else min(_POLL_S, self._health.every_s))

    def _answers(self, session: requests.Session) -> bool:
        try:
            return session.get(f"{self.url}/ping", timeout=PING_TIMEOUT_S).status_code == HTTPStatus.OK
        except requests.RequestException:
            return False
