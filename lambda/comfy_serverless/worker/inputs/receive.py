"""Reads one input into a file, within limits; transient failures are retried."""

from __future__ import annotations

import errno
import hashlib
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import IO, TYPE_CHECKING

from comfy_serverless.fetch.sources import Access, LocalFile, Stream, Unusable, parse
from comfy_serverless.fetch.web import Network, open_web_address
from comfy_serverless.files import kept_ending
from comfy_serverless.retry import attempts

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client

    from comfy_serverless.settings import Settings

#: Seconds before a fetch that broke off is tried again, and again.
_RETRY_PAUSES_S = (0.2, 1.0)
#: The system's error codes if a file has no room.
DISK_IS_FULL = frozenset({errno.ENOSPC, errno.EDQUOT})


class DiskFull(Unusable):
    """The disk of this machine has no room for the input."""


@dataclass(frozen=True, slots=True)
class Received:
    """An input that has come: its source for people, its size, its SHA-256, and the ending its sender suggests."""

    source: str
    size_bytes: int
    digest: str
    ending: str


class Receiver:
    """Reads inputs. Thread-safe. `s3` is None if no input is in S3; `make_room` frees space on the disk, if it can."""

    def __init__(
        self, *, settings: Settings, s3: S3Client | None, network: Network, make_room: Callable[[], None]
    ) -> None:
        self._access = Access(
            s3=s3,
            open_web=lambda url, deadline: open_web_address(url, network=network, deadline=deadline),
            allowed_buckets=settings.allowed_input_buckets,
            max_bytes=settings.max_input_bytes,
        )
        self._make_room = make_room

    def receive(self, origin: str | Path, file: IO[bytes], *, deadline: float) -> Received:
        """Read an input into a file. Raises Unusable if it is not available, or too large."""
        source = LocalFile(origin) if isinstance(origin, Path) else parse(origin)
        for attempt in attempts(_RETRY_PAUSES_S, until=deadline):
            try:
                with source.open(self._access, deadline=deadline) as stream:
                    size_bytes, digest = self._copy(stream, file, deadline=deadline)
                    return Received(str(source), size_bytes, digest, kept_ending(source.name, stream.content_type))
            except Unusable as failure:
                if not failure.transient or attempt.is_last:
                    raise
                if isinstance(failure, DiskFull):
                    self._make_room()
        raise AssertionError("unreachable: the last attempt returns or raises")

    def _copy(self, stream: Stream, file: IO[bytes], *, deadline: float) -> tuple[int, str]:
        """Write a stream to the start of a file, within the limits; return its size and SHA-256."""
        limit = self._access.max_bytes
        if (stream.size_bytes or 0) > limit:
            raise Unusable(f"has {stream.size_bytes} bytes; the limit is {limit} (MAX_INPUT_BYTES)")
        digest = hashlib.sha256()
        size_bytes = 0
        file.seek(0)
        file.truncate()
        for chunk in stream.chunks:
            size_bytes += len(chunk)
            if size_bytes > limit:
                raise Unusable(f"has more than {limit} bytes, the limit (MAX_INPUT_BYTES)")
            if time.monotonic() > deadline:
                raise Unusable("did not arrive in time (INPUT_TIMEOUT_S, or the job's deadline)", timed_out=True)
            digest.update(chunk)
            _write(file, chunk)
        if not size_bytes:
            raise Unusable("is empty")
        return size_bytes, digest.hexdigest()


def _write(file: IO[bytes], chunk: bytes) -> None:
    try:
        file.write(chunk)
        file.flush()
    except OSError as error:
        unusable = DiskFull if error.errno in DISK_IS_FULL else Unusable
        raise unusable(f"cannot be stored on the worker's disk: {error.strerror}", transient=True) from error
