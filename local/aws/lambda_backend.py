"""`make dev` with BACKEND=lambda, the default: jobs go to Lambda functions, each under an emulator of its own."""

from __future__ import annotations

import contextlib
import os
import signal
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Final

from local.aws.lambda_emulator import SOURCE_ROOT, LambdaEmulator
from local.aws.processes import free_port
from local.aws.queue_poller import QueuePoller
from local.aws.stack import LocalStack

FUNCTION: Final = "GenerateFunction"
#: Lambda's longest.
TIMEOUT_S: Final = 900


class LambdaBackend:
    """The workers, and what feeds them from the job queue and the batch queue.

    Args:
        environment: of the workers, on top of what the stack gives the function.
        workers: how many jobs run at once.
        source_root: the folder of their packages.
    """

    def __init__(
        self,
        stack: LocalStack,
        environment: Mapping[str, str],
        *,
        log_folder: Path,
        workers: int = 1,
        source_root: Path = SOURCE_ROOT,
    ) -> None:
        self._stack = stack
        self._emulators = [
            LambdaEmulator(
                environment={**stack.environment_of(FUNCTION), **environment, "INITIAL_PORT": str(free_port())},
                timeout_s=TIMEOUT_S,
                log_path=log_folder / f"generate-{number}.log",
                source_root=source_root,
            )
            for number in range(1, workers + 1)
        ]
        self._pollers: list[QueuePoller] = []

    @property
    def function_variables(self) -> dict[str, str]:
        """What the functions of the stack need beside their own: nothing."""
        return {}

    def start(self) -> None:
        """Start the workers, and give them messages."""
        for number, emulator in enumerate(self._emulators, start=1):
            emulator.start()
            for queue in ("JobQueue", "BatchQueue"):
                name = f"{queue} {number}"
                self._pollers.append(self._stack.feed(queue, FUNCTION, invoke_on(emulator), name=name))

    def stop(self) -> None:
        """Stop everything. Jobs that run are cut off. Safe to call twice."""
        for poller in self._pollers:
            poller.stop(timeout_s=0.0)
        for emulator in self._emulators:
            emulator.stop()
        for poller in self._pollers:
            poller.stop(timeout_s=5.0)

    def kill(self) -> None:
        """End all workers at once, engine and all, as if their machines had lost power; new ones take their places."""
        for emulator in self._emulators:
            for pid in emulator.members():
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)


def invoke_on(emulator: LambdaEmulator) -> Callable[[Any], Any]:
    """What invokes the function in an emulator with an event, and returns its result."""

    def invoke(event: Any) -> Any:  # noqa: ANN401  (any JSON value)
        emulator.start()  # again, if it was killed: Lambda always has another machine
        return emulator.invoke(event)

    return invoke
