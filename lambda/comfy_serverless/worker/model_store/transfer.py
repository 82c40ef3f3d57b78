"""Fetches a large file in parts, several at the same time, and checks its content."""

from __future__ import annotations

import contextvars
import hashlib
import os
import threading
import time
from collections.abc import Callable
from concurrent.futures import FIRST_EXCEPTION, Future, ThreadPoolExecutor, wait
from pathlib import Path

from comfy_serverless.fetch.sources import Unusable
from comfy_serverless.retry import attempts
from comfy_serverless.worker.model_store.remote import Part, Remote

PART_BYTES = 16 << 20
PARTS_AT_ONCE = 8
#: Seconds before a part that broke off is asked for again, and again.
_RETRY_PAUSES_S = (0.2, 1.0, 3.0)
_HASH_BYTES = 4 << 20
_TOO_LATE = "did not arrive before the job's deadline"


class DiskFailure(Exception):
    """The worker's disk cannot be written: the end of a sentence that begins with a model."""

    def __init__(self, error: OSError) -> None:
        super().__init__(f"cannot be stored on the worker's disk: {error.strerror}")


class Transfer:
    """One file on its way to a path, where `allocate` makes room for its bytes, once, before anything is written."""

    def __init__(self, remote: Remote, path: Path, *, allocate: Callable[[int], None], deadline: float) -> None:
        self._remote, self._path, self._allocate, self._deadline = remote, path, allocate, deadline
        self._given_up = threading.Event()
        #: Held while parts are handed out, so that none is after the end.
        self._beginning = threading.Lock()
        self._others: list[Future[None]] = []
        self._total_bytes: int | None = None
        self._version = ""

    def run(self) -> int:
        """Fetch everything, and return the size in bytes.

        Raises Unusable if the file cannot be fetched, DiskFailure if it cannot be written, and as `allocate` does.
        """
        # Each writer has its own descriptor: one that is late writes into a file that is gone, not into another.
        pool = ThreadPoolExecutor(PARTS_AT_ONCE, thread_name_prefix="model")
        try:
            self._wait([pool.submit(contextvars.copy_context().run, self._fetch_first, pool)])
            self._wait(self._others)
        finally:
            self._given_up.set()
            with self._beginning:
                pool.shutdown(wait=False, cancel_futures=True)
        return self._total_bytes or 0

    @property
    def version(self) -> str:
        """The version that was fetched, as the sender names it; "" if it does not."""
        return self._version

    def _wait(self, parts: list[Future[None]]) -> None:
        done, pending = wait(parts, max(0.0, self._deadline - time.monotonic()) + 0.5, FIRST_EXCEPTION)
        for part in done:
            part.result()
        if pending:
            raise Unusable(_TOO_LATE, timed_out=True)

    def _fetch_first(self, pool: ThreadPoolExecutor) -> None:
        """Fetch the first part, which says how many there are; the others come while it is being read."""

        def take(part: Part) -> None:
            if self._total_bytes is None:
                with self._beginning:
                    self._begin(part, pool)
            self._check(part, first=0)
            self._write(part)

        self._persistently(0, PART_BYTES - 1, take)

    def _begin(self, part: Part, pool: ThreadPoolExecutor) -> None:
        if self._given_up.is_set():
            raise Unusable(_TOO_LATE, timed_out=True)
        self._allocate(part.total_bytes)
        self._total_bytes, self._version = part.total_bytes, part.version
        starts = range(part.size_bytes, part.total_bytes, PART_BYTES)
        self._others.extend(pool.submit(contextvars.copy_context().run, self._fetch_part, first) for first in starts)

    def _fetch_part(self, first: int) -> None:
        last = min(first + PART_BYTES, self._total_bytes or 0) - 1

        def take(part: Part) -> None:
            self._check(part, first=first)
            if part.size_bytes != last - first + 1:
                raise Unusable("the server sends other parts than it is asked for")
            self._write(part)

        self._persistently(first, last, take)

    def _persistently(self, first: int, last: int, take: Callable[[Part], None]) -> None:
        """Read a part, again if the connection fails."""
        for attempt in attempts(_RETRY_PAUSES_S, until=self._deadline, pause=self._given_up.wait):
            try:
                with self._remote.open(first, last, version=self._version, deadline=self._deadline) as part:
                    take(part)
            except Unusable as failure:
                if not failure.transient or attempt.is_last:
                    raise
            else:
                return
        raise Unusable(_TOO_LATE, timed_out=True)  # given up in a pause

    def _check(self, part: Part, *, first: int) -> None:
        if part.total_bytes != self._total_bytes or part.version != self._version or part.first != first:
            raise Unusable(
                "was replaced while it was being fetched, or is served differently each time", transient=True
            )

    def _write(self, part: Part) -> None:
        position, left = part.first, part.size_bytes
        descriptor = os.open(self._path, os.O_WRONLY | os.O_NOFOLLOW)
        try:
            for chunk in part.chunks:
                if self._given_up.is_set() or time.monotonic() > self._deadline:
                    raise Unusable(_TOO_LATE, timed_out=True)
                left -= len(chunk)
                if left < 0:
                    break
                _write_all(descriptor, chunk, position)
                position += len(chunk)
        finally:
            os.close(descriptor)
        if left:
            raise Unusable("has another length than was announced", transient=True)


def store_and_hash(descriptor: int, *, deadline: float) -> str:
    """The SHA-256 of an open file's whole content, which is on the disk when this returns.

    Raises Unusable if the deadline passes, DiskFailure if the content cannot be written.
    """
    # Read and flush at the same time. A name that outlives a crash of the machine must lead to its whole content.
    with ThreadPoolExecutor(1, thread_name_prefix="model") as pool:
        flushed = pool.submit(os.fsync, descriptor)
        sha256 = sha256_of(descriptor, deadline=deadline)
        try:
            flushed.result()
        except OSError as error:
            raise DiskFailure(error) from error
    return sha256


def sha256_of(descriptor: int, *, deadline: float) -> str:
    """The SHA-256 of an open file's whole content. Raises Unusable if the deadline passes, or OSError."""
    digest = hashlib.sha256()
    position = 0
    while chunk := os.pread(descriptor, _HASH_BYTES, position):
        digest.update(chunk)
        position += len(chunk)
        if time.monotonic() > deadline:
            raise Unusable(_TOO_LATE, timed_out=True)
    return digest.hexdigest()


def _write_all(descriptor: int, chunk: bytes, position: int) -> None:
    rest = memoryview(chunk)
    try:
        while rest:
            written = os.pwrite(descriptor, rest, position)
            position, rest = position + written, rest[written:]
    except OSError as error:
        raise DiskFailure(error) from error
