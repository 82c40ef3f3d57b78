"""What ComfyUI writes, read all the time (a full pipe would stop it): its last lines, and those of each run."""

from __future__ import annotations

import os
import select
import threading
import time
from collections import deque
from collections.abc import Callable

from comfy_serverless.connector.run_log import RunLog

_LOG_LINES = 300
#: A progress bar writes one endless line of carriage returns.
_LONGEST_LINE_BYTES = 4096
_CHUNK_BYTES = 65_536
#: How long the lines that are on their way are read at a stretch, in seconds.
_DRAIN_S = 0.1


class EngineOutput:
    """The output of one process at a time. Thread-safe."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._tail: deque[str] = deque(maxlen=_LOG_LINES)
        self._runs = RunLog()
        self._pending = b""
        self._descriptor: int | None = None
        self._see: Callable[[str], None] = lambda _line: None

    def tail(self, lines: int) -> str:
        """The last lines."""
        return "\n".join(list(self._tail)[-lines:])

    def lines(self) -> tuple[str, ...]:
        """The same as they are, all that are kept."""
        return tuple(self._tail)

    def restarted(self) -> None:
        """Note that what comes next is another process's."""
        with self._lock:
            self._tail.clear()
            self._pending = b""
            self._runs.restarted()

    def read(self, descriptor: int, see: Callable[[str], None]) -> None:
        """Read to the end; `see` gets each line."""
        os.set_blocking(descriptor, False)
        self._see, self._descriptor = see, descriptor
        ready = select.poll()
        ready.register(descriptor, select.POLLIN | select.POLLHUP)
        try:
            while True:
                ready.poll()
                with self._lock:
                    if self._read_on() == b"":
                        return
        finally:
            with self._lock:
                self._descriptor = None
                self._flush()

    def begin_run(self, run_id: str) -> None:
        """Note that a run is about to be submitted: what was written until now is of those before."""
        self._drain()
        with self._lock:
            self._flush()
            self._runs.submitted(run_id)

    def run_begun(self, run_id: str) -> None:
        """Note that ComfyUI executes a run, by its events."""
        if not self._runs.is_first:
            self._drain()
        with self._lock:
            self._runs.begun(run_id)

    def end_run(self, run_id: str, *, was_refused: bool = False) -> tuple[str, ...]:
        """The last lines of a run that is over. It is forgotten."""
        self._drain()
        with self._lock:
            return self._runs.take(run_id, was_refused=was_refused)

    def _drain(self) -> None:
        """Read what was written by now, whoever reads else; not for long: something may be written all the time."""
        until = time.monotonic() + _DRAIN_S
        while time.monotonic() < until:
            with self._lock:
                if self._descriptor is None or not self._read_on():
                    return

    def _read_on(self) -> bytes | None:
        """Read a part of what was written: None if there is nothing now, b"" at the end. Under the lock."""
        assert self._descriptor is not None  # noqa: S101
        try:
            chunk = os.read(self._descriptor, _CHUNK_BYTES)
        except BlockingIOError:
            return None
        self._take(chunk)
        return chunk

    def _take(self, chunk: bytes) -> None:
        *lines, pending = (self._pending + chunk).split(b"\n")
        for line in lines:
            self._write(self._beginnings_written(line))
        self._pending = self._beginnings_written(pending)

    def _beginnings_written(self, line: bytes) -> bytes:
        """Let a line that is too long count in parts. Returns the last one."""
        while len(line) > _LONGEST_LINE_BYTES:
            self._write(line[:_LONGEST_LINE_BYTES])
            line = line[_LONGEST_LINE_BYTES:]
        return line

    def _flush(self) -> None:
        """Let a line count that has not ended: what ends it may be another run's."""
        if self._pending:
            self._write(self._pending)
            self._pending = b""

    def _write(self, line: bytes) -> None:
        text = line.decode("utf-8", errors="replace").rstrip().rpartition("\r")[2]
        self._tail.append(text)
        self._runs.see(text)
        self._see(text)
