"""Throws faults at the engine, one at a time, with calm between them, and remembers what it threw and when."""

from __future__ import annotations

import os
import random
import signal
import threading
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import requests

from comfy_serverless import ComfyConnector

#: A prompt is run once more after any of these; a job sent again must succeed.
_RESTARTED = frozenset({"engine_crashed", "engine_unavailable"})
_STALLED = _RESTARTED | {"engine_stalled"}
OUT_OF_MEMORY = "out of memory"
#: The longest that the replacement of a broken engine may take, in seconds.
RECOVERY_S = 60.0


@dataclass(slots=True)
class Trouble:
    """A thrown fault.

    Attributes:
        allows: codes that a job may fail with if it ran at the time.
        began: on the monotonic clock.
        ended: when nothing of it is left; infinite until then.
    """

    name: str
    allows: frozenset[str]
    began: float
    ended: float = float("inf")
    is_recovered: bool = True


class Thrower:
    """A thread that throws one fault after the other until it is stopped."""

    def __init__(self, connector: ComfyConnector, *, seed: int) -> None:
        self.thrown: list[Trouble] = []
        self.counts: Counter[str] = Counter()
        self._connector = connector
        self._draw = random.Random(seed)
        self._stop = threading.Event()
        self._thread: threading.Thread | None = None
        self._faults: list[tuple[int, str, Callable[[], bool], frozenset[str]]] = [
            *[(2, f"crash at {at}", self._arming("crash", at=at, exit_code=7), _RESTARTED) for at in _POINTS],
            (2, "exit 137 at node", self._arming("crash", at="node", exit_code=137), _RESTARTED),
            (2, "SIGKILL", lambda: self._signal(signal.SIGKILL), _RESTARTED),
            (2, "SIGSEGV", lambda: self._signal(signal.SIGSEGV), _RESTARTED),
            (3, "SIGSTOP for a moment", self._freeze, frozenset()),
            *[(1, f"drop sockets at {at}", self._arming("drop_sockets", at=at), frozenset()) for at in _POINTS],
            (2, "drop sockets again and again", self._drop_often, frozenset()),
            (3, "mute", self._arming("mute", at="start"), frozenset()),
            (3, "slow answers", self._arming("slow_answers", seconds=0.2), frozenset()),
            (3, OUT_OF_MEMORY, self._arming("out_of_memory", at="node"), frozenset()),
            (2, "out of memory twice", self._arming("out_of_memory", at="node", times=2), frozenset({"out_of_memory"})),
            (1, "hang at node", self._arming("hang", at="node"), _STALLED),
            (1, "hang at prompt", self._arming("hang", at="prompt"), _STALLED),
            (1, "worker ends", self._arming("end_worker", at="start"), _STALLED),
            (2, "CUDA error", self._arming("cuda_error", at="node"), _RESTARTED),
        ]

    @property
    def starts(self) -> int:
        """How many times the engine has been started."""
        return self._connector.starts

    def start(self) -> None:
        """Begin."""
        self._stop.clear()
        self._thread = threading.Thread(target=self._run, name="soak-trouble")
        self._thread.start()

    def stop(self) -> None:
        """Throw no more faults. The last one may take a while to pass, and needs a job if it has ended the engine."""
        self._stop.set()

    @property
    def is_busy(self) -> bool:
        """Whether something of a fault is left."""
        return self._thread is not None and self._thread.is_alive()

    def during(self, began: float, ended: float) -> list[Trouble]:
        """The faults that were active between two moments."""
        return [trouble for trouble in self.thrown if trouble.began <= ended and trouble.ended >= began]

    def _run(self) -> None:
        while not self._stop.wait(self._draw.uniform(0.1, 1.0)):
            weights = [weight for weight, *_ in self._faults]
            _, name, throw, allows = self._draw.choices(self._faults, weights=weights)[0]
            trouble = Trouble(name, allows, time.monotonic())
            self.thrown.append(trouble)
            if throw():
                self.counts[name] += 1
                self._stop.wait(self._draw.uniform(0.05, 0.8))
            trouble.is_recovered = self._recover()
            trouble.ended = time.monotonic()

    def _recover(self) -> bool:
        """Disarm what has not struck, and wait until the engine answers again and has ended the prompts of that time.

        A prompt that hangs never leaves the queue: then the wait ends with the engine's replacement.
        """
        until = time.monotonic() + RECOVERY_S
        ran: set[str] | None = None
        while time.monotonic() < until:
            try:
                requests.delete(f"{self._connector.server_address}/lite/faults", timeout=1).raise_for_status()
                queue = requests.get(f"{self._connector.server_address}/queue", timeout=1).json()
                runs = {item[1] for item in queue["queue_running"]}
                ran = runs if ran is None else ran
                if not ran & runs:
                    return True
            except requests.RequestException:
                pass
            time.sleep(0.02)
        return False

    def _arming(self, fault: str, **details: Any) -> Callable[[], bool]:
        return lambda: self._post({"fault": fault, **details})

    def _post(self, fault: dict[str, Any]) -> bool:
        try:
            return requests.post(f"{self._connector.server_address}/lite/faults", json=fault, timeout=1).ok
        except requests.RequestException:
            return False

    def _signal(self, number: signal.Signals) -> bool:
        process = self._connector._engine.process
        pid = process.pid if process is not None else None
        if pid is None:
            return False
        try:
            os.kill(pid, number)
        except ProcessLookupError:
            return False
        return True

    def _freeze(self) -> bool:
        if not self._signal(signal.SIGSTOP):
            return False
        time.sleep(self._draw.uniform(0.2, 2.0))
        return self._signal(signal.SIGCONT)

    def _drop_often(self) -> bool:
        for _ in range(5):
            if not self._post({"fault": "drop_sockets"}):
                return False
            time.sleep(0.1)
        return True


_POINTS = ("now", "prompt", "start", "node", "end")
