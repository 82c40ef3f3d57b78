"""Lambda functions on this machine that need no emulator, each with processes of its own.

Like Lambda, a process belongs to one function, serves one request at a time, and keeps what it has loaded for the
next: clients too, with the credentials of the function's role.
"""

from __future__ import annotations

import contextlib
import importlib
import multiprocessing
import multiprocessing.forkserver
import os
import signal
import sys
import threading
import time
import uuid
from collections.abc import Callable, Mapping
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from local.aws import service_models
from local.aws.lambda_emulator import SOURCE_ROOT
from local.aws.processes import clean_environment

#: What most handlers import: read once, for all processes. Nothing of ours, which looks at its function's environment.
_LIBRARIES: Final = (
    "aws_lambda_powertools.event_handler.openapi.models",
    "aws_lambda_powertools.metrics",
    "boto3.session",
    "botocore.endpoint",
    "botocore.regions",
    "botocore.signers",
    "local.aws.forked",
    "local.aws.function_pool",
    "multipart",
)
_processes = multiprocessing.get_context("forkserver")
_processes.set_forkserver_preload(list(_LIBRARIES))


@dataclass(frozen=True, slots=True, kw_only=True)
class LocalFunction:
    """One function.

    Attributes:
        environment: all that it sees beside PATH and its like.
        processes: how many invocations run at once. They start when they are needed.
        source_root: the folder of its packages.
    """

    environment: Mapping[str, str]
    processes: int = 1
    source_root: Path = SOURCE_ROOT


class LambdaContext:
    """What Lambda gives a function with each event."""

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
        functions: all that there are, by the names of their handlers.
        log_path: a file that gets everything they print.
    """

    def __init__(self, functions: Mapping[str, LocalFunction], *, log_path: Path) -> None:
        self._functions = functions
        self._log_path = log_path
        self._lock = threading.Lock()
        self._pools = {handler: self._new_pool(function) for handler, function in functions.items()}
        self._is_closed = False
        _start_server()

    def warm(self, handler: str) -> None:
        """Start a process for a handler, which loads it, and return at once."""
        with self._lock:
            self._pools[handler].submit(_warm, handler)

    def submit(self, handler: str, event: object, *, timeout_s: float) -> Future[Any]:
        """Begin an invocation. The future raises what the handler does; `BrokenProcessPool` if its process died."""
        with self._lock:
            try:
                return self._pools[handler].submit(_invoke, handler, event, timeout_s)
            except BrokenProcessPool:
                if self._is_closed:
                    raise
                self._pools[handler] = self._new_pool(self._functions[handler])
                return self._pools[handler].submit(_invoke, handler, event, timeout_s)

    def invoke(self, handler: str, event: object, *, timeout_s: float = 60.0) -> Any:  # noqa: ANN401
        """Invoke a handler; returns what the handler returned."""
        return self.submit(handler, event, timeout_s=timeout_s).result(timeout=timeout_s + 5.0)

    def kill(self) -> None:
        """End all processes at once, as if their machines had lost power; new ones take their places."""
        with self._lock:
            for pid in [pid for pool in self._pools.values() for pid in list(pool._processes or ())]:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)

    def close(self) -> None:
        """End the processes."""
        with self._lock:
            self._is_closed = True
            for pool in self._pools.values():
                pool.shutdown(wait=True, cancel_futures=True)

    def _new_pool(self, function: LocalFunction) -> ProcessPoolExecutor:
        return ProcessPoolExecutor(
            function.processes,
            mp_context=_processes,
            initializer=_begin,
            initargs=({**clean_environment(), **function.environment}, str(self._log_path), str(function.source_root)),
        )


def _start_server() -> None:
    """Start what forks the processes, unless it runs. A terminal's Ctrl-C is not for it, also while it still starts."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        multiprocessing.forkserver.ensure_running()
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _begin(environment: Mapping[str, str], log_path: str, source_root: str) -> None:
    """Make this process a function's: its environment, code, place for what it prints. Ctrl-C is its parent's."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT})
    os.environ.clear()
    os.environ.update(environment)
    sys.path.insert(0, source_root)
    service_models.share()
    log = os.open(log_path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)
    for stream in (1, 2):
        os.dup2(log, stream)


def _invoke(handler: str, event: object, timeout_s: float) -> Any:  # noqa: ANN401
    return _load(handler)(event, LambdaContext(timeout_s))


def _warm(handler: str) -> None:
    _load(handler)  # returns nothing: the caller would have to load what it got


def _load(handler: str) -> Callable[[object, LambdaContext], Any]:
    module, _, name = handler.rpartition(".")
    loaded: Callable[[object, LambdaContext], Any] = getattr(importlib.import_module(module), name)
    return loaded
