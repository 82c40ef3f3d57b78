"""Reads what an input comes from into a file: within the limits, and once more where it may have been an accident."""

from __future__ import annotations

import errno
import hashlib
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import IO, TYPE_CHECKING
from urllib.parse import urlsplit

from comfy_serverless.aws.s3 import S3Address
from comfy_serverless.fetch.sources import (
    CHUNK_BYTES,
    Embedded,
    Source,
    Stream,
    Unusable,
    WebAddress,
    open_embedded,
    open_object,
    parse,
)
from comfy_serverless.fetch.web import Network, open_web_address

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client

    from comfy_serverless.settings import Settings

#: Seconds before a fetch that broke off is tried again, and again.
_RETRY_PAUSES_S = (0.2, 1.0)
#: What the system says when a file has no room.
DISK_IS_FULL = frozenset({errno.ENOSPC, errno.EDQUOT})

#: File name endings a file that is no image may keep. ComfyUI serves its input folder: nothing a browser
#: runs.
_ENDINGS = frozenset(
    {".avi", ".gif", ".m4v", ".mkv", ".mov", ".mp4", ".mpeg", ".webm"}
    | {".aac", ".flac", ".m4a", ".mp3", ".ogg", ".opus", ".wav"}
    | {".fbx", ".glb", ".gltf", ".obj", ".ply", ".stl"}
    | {".jpg", ".latent", ".png", ".webp"}
)
#: The endings for what senders say. (The system's own table differs from machine to machine.)
_ENDINGS_BY_TYPE = {
    "audio/aac": ".aac",
    "audio/flac": ".flac",
    "audio/mp3": ".mp3",
    "audio/mp4": ".m4a",
    "audio/mpeg": ".mp3",
    "audio/ogg": ".ogg",
    "audio/opus": ".opus",
    "audio/vnd.wave": ".wav",
    "audio/wav": ".wav",
    "audio/wave": ".wav",
    "audio/x-flac": ".flac",
    "audio/x-m4a": ".m4a",
    "audio/x-wav": ".wav",
    "image/gif": ".gif",
    "image/jpeg": ".jpg",
    "image/png": ".png",
    "image/webp": ".webp",
    "model/gltf+json": ".gltf",
    "model/gltf-binary": ".glb",
    "model/obj": ".obj",
    "model/stl": ".stl",
    "video/mp4": ".mp4",
    "video/mpeg": ".mpeg",
    "video/quicktime": ".mov",
    "video/webm": ".webm",
    "video/x-m4v": ".m4v",
    "video/x-matroska": ".mkv",
    "video/x-msvideo": ".avi",
}


class DiskFull(Unusable):
    """The disk of this machine has no room for the input."""


@dataclass(frozen=True, slots=True)
class Received:
    """What has come: its source for people, its size, its SHA-256, and the ending its sender suggests."""

    source: str
    size_bytes: int
    digest: str
    ending: str


class Receiver:
    """Reads inputs. Safe to use from several threads.

    Args:
        s3: None where no input is in S3.
        make_room: frees space on the disk, where it can.
    """

    def __init__(
        self, *, settings: Settings, s3: S3Client | None, network: Network, make_room: Callable[[], None]
    ) -> None:
        self._settings = settings
        self._s3 = s3
        self._network = network
        self._make_room = make_room

    def receive(self, origin: str | Path, file: IO[bytes], *, deadline: float) -> Received:
        """Read an input into a file.

        Args:
            origin: a text of the request, or a file that the owner of this machine gives.
            deadline: on the monotonic clock.

        Raises:
            Unusable: it cannot be had, or is too large.
        """
        source = origin if isinstance(origin, Path) else self._allowed(parse(origin))
        for pause_s in (*_RETRY_PAUSES_S, None):
            try:
                with self._open(source, deadline=deadline) as stream:
                    size_bytes, digest = self._copy(stream, file, deadline=deadline)
                    return Received(str(source), size_bytes, digest, _ending(source, stream.content_type))
            except Unusable as failure:
                if not failure.transient or pause_s is None or time.monotonic() + pause_s >= deadline:
                    raise
                if isinstance(failure, DiskFull):
                    self._make_room()
                time.sleep(pause_s)
        raise AssertionError("unreachable: the last attempt returns or raises")

    def _allowed(self, source: Source) -> Source:
        buckets = self._settings.allowed_input_buckets
        if isinstance(source, S3Address) and buckets and source.bucket not in buckets:
            raise Unusable(f"its bucket is not allowed; ALLOWED_INPUT_BUCKETS has {', '.join(buckets)}")
        return source

    def _open(self, source: Source | Path, *, deadline: float) -> AbstractContextManager[Stream]:
        if isinstance(source, Path):
            return _open_file(source)
        if isinstance(source, S3Address):
            if self._s3 is None:
                raise Unusable("is in S3, which is not read here")
            return open_object(source, self._s3)
        if isinstance(source, Embedded):
            return open_embedded(source, max_bytes=self._settings.max_input_bytes)
        return open_web_address(source.url, network=self._network, deadline=deadline)

    def _copy(self, stream: Stream, file: IO[bytes], *, deadline: float) -> tuple[int, str]:
        """Write a stream to the start of a file, within the limits; answers size and SHA-256."""
        limit = self._settings.max_input_bytes
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


@contextmanager
def _open_file(path: Path) -> Iterator[Stream]:
    try:
        file = path.open("rb")
    except OSError as error:
        raise Unusable(f"cannot be read: {error.strerror}") from error
    with file:
        yield Stream(iter(lambda: file.read(CHUNK_BYTES), b""), path.stat().st_size, "")


def _ending(source: Source | Path, content_type: str) -> str:
    """The file name ending for a file that is no image: the source's own where it is a known one."""
    path = source.name if isinstance(source, Path) else ""
    if isinstance(source, S3Address):
        path = source.key
    if isinstance(source, WebAddress):
        path = urlsplit(source.url).path
    named = PurePosixPath(path).suffix.lower()
    if named in _ENDINGS:
        return named
    return _ENDINGS_BY_TYPE.get(content_type.partition(";")[0].strip().lower(), ".bin")


def _write(file: IO[bytes], chunk: bytes) -> None:
    try:
        file.write(chunk)
        file.flush()
    except OSError as error:
        unusable = DiskFull if error.errno in DISK_IS_FULL else Unusable
        raise unusable(f"cannot be stored on the worker's disk: {error.strerror}", transient=True) from error
