"""Lambda functions on this machine that need no emulator: each invocation in one of a few processes of their own.

Like Lambda, a process answers one request at a time, and keeps what it has loaded for the next.
"""

from __future__ import annotations

import importlib
import multiprocessing
import os
import signal
import sys
import threading
import time
import uuid
from collections.abc import Mapping
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path
from typing import Any

from local.processes import clean_environment

SOURCE_ROOT = Path(__file__).parent.parent / "lambda"
PROCESSES = 4


class LambdaContext:
    """What Lambda tells a function of its invocation."""

    function_name = "local"
    function_version = "$LATEST"
    memory_limit_in_mb = 1024
    invoked_function_arn = "arn:aws:lambda:eu-central-1:000000000000:function:local"

    def __init__(self, timeout_s: float) -> None:
        self.aws_request_id = str(uuid.uuid4())
        self._until = time.monotonic() + timeout_s

    def get_remaining_time_in_millis(self) -> int:
        """How long the invocation may still take."""
        return round(max(0.0, self._until - time.monotonic()) * 1000)


class FunctionPool:
    """Invokes handlers by their names, several at once.

    Args:
        environment: all that the functions see beside PATH and its like.
        log_path: a file that gets everything they print.
    """

    def __init__(self, environment: Mapping[str, str], *, log_path: Path, processes: int = PROCESSES) -> None:
        self._environment = {**clean_environment(), **environment}
        self._log_path = log_path
        self._processes = processes
        self._lock = threading.Lock()
        self._pool = self._new_pool()
        self._is_closed = False

    def submit(self, handler: str, event: object, *, timeout_s: float) -> Future[Any]:
        """Begin an invocation. The future raises what the handler does; `BrokenProcessPool` if its process died."""
        with self._lock:
            try:
                return self._pool.submit(_invoke, handler, event, timeout_s)
            except BrokenProcessPool:
                if self._is_closed:
                    raise
                self._pool = self._new_pool()
                return self._pool.submit(_invoke, handler, event, timeout_s)

    def invoke(self, handler: str, event: object, *, timeout_s: float = 60.0) -> Any:  # noqa: ANN401
        """Invoke a handler and answer what it returned."""
        return self.submit(handler, event, timeout_s=timeout_s).result(timeout=timeout_s + 5.0)

    def pids(self) -> list[int]:
        """The processes there are, to be killed in tests."""
        with self._lock:
            return list(self._pool._processes)

    def close(self) -> None:
        """End the processes."""
        with self._lock:
            self._is_closed = True
            self._pool.shutdown(wait=True, cancel_futures=True)

    def _new_pool(self) -> ProcessPoolExecutor:
        return ProcessPoolExecutor(
            self._processes,
            mp_context=multiprocessing.get_context("spawn"),
            initializer=_begin,
            initargs=(self._environment, str(self._log_path)),
        )


def _begin(environment: Mapping[str, str], log_path: str) -> None:
    """Make this process a function's: its environment, its place for what it prints. Ctrl-C is its parent's."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    os.environ.clear()
    os.environ.update(environment)
    sys.path.insert(0, str(SOURCE_ROOT))
    log = os.open(log_path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)
    for stream in (1, 2):
        os.dup2(log, stream)


def _invoke(handler: str, event: object, timeout_s: float) -> Any:  # noqa: ANN401
    module, _, name = handler.rpartition(".")
    return getattr(importlib.import_module(module), name)(event, LambdaContext(timeout_s))
