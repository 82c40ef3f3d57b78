"""Makes and stores thumbnails of what a job made, while the originals are uploaded and the engine goes on.

    output ──► original to S3 ─────────────────────────► told, with its thumbnail
       └─────► child of the sandbox ──► WebP to S3 ──┘    (or without it: see `patience_s`)

A thumbnail that cannot be made, in time or at all, is left out: no job fails for one. The bytes are decoded in a child
process of a sandbox of its own, so that no input waits behind an output.
"""

from __future__ import annotations

import contextvars
import io
import os
import stat
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

from botocore.exceptions import BotoCoreError, ClientError

from comfy_serverless import tracing
from comfy_serverless.aws.s3 import S3Address
from comfy_serverless.connector.launch import python_of
from comfy_serverless.files import TYPES, bare_type
from comfy_serverless.jobs.keys import KeyAllotment
from comfy_serverless.observability import log
from comfy_serverless.redaction import redacted
from comfy_serverless.sandbox.process import SandboxFailed
from comfy_serverless.sandbox.refused import Refused
from comfy_serverless.sandbox.sandbox import Sandbox
from comfy_serverless.worker.put import ChecksumMismatch, KeyTaken, upload
from comfy_serverless.worker.temporary import temporary_file

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client

    from comfy_serverless.connector.outputs import Output as Made
    from comfy_serverless.settings import Settings

#: How long all thumbnails of a job together may hold it up, once its outputs are stored: so much, for each output so
#: much more, and never more than the last. A picture takes 30 to 100 ms; most are made while others are still computed.
PATIENCE_S, PATIENCE_EACH_S, MOST_PATIENCE_S = 1.0, 0.03, 5.0
#: The longest that one picture is decoded, by the clock. Its processor time has a limit, too (`sandbox.limits`).
_DECODING_S = 10.0
#: Decoded at the same time; more are being uploaded meanwhile.
_CHILDREN, _THREADS = 2, 4
#: A WebP of 384 x 384 pixels of noise has 60 kB; what is longer is not one of ours.
_MOST_BYTES = 1 << 20
_TYPE = "image/webp"
_PICTURES = frozenset(kind.content_type for kind in TYPES if kind.pillow)
_VIDEOS = frozenset(
    {"video/mp4", "video/x-m4v", "video/quicktime", "video/webm", "video/x-matroska", "video/x-msvideo"}
)
_CHUNK_BYTES = 256 * 1024
_MOST_COPIED_BYTES = 200_000_000
_FAILURES = (ClientError, BotoCoreError, ChecksumMismatch, KeyTaken, OSError, Refused, SandboxFailed)


def patience_s(outputs: int) -> float:
    """How long a job with so many outputs may be held up, in seconds."""
    return min(MOST_PATIENCE_S, PATIENCE_S + PATIENCE_EACH_S * outputs)


class Thumbnail:
    """The thumbnail of one output: its address when it is stored, or None when there will be none. Thread-safe."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._uri: str | None = None
        self._then: Callable[[str | None], None] | None = None
        self._is_settled = False
        self._told = threading.Event()

    @property
    def is_settled(self) -> bool:
        """Whether it is known."""
        return self._is_settled

    def settle(self, uri: str | None) -> None:
        """Say where it is; the first answer counts. Whoever waits for it (`then`) is told before this returns."""
        with self._lock:
            if self._is_settled:
                return
            self._is_settled, self._uri = True, uri
            then = self._then
        try:
            if then is not None:
                then(uri)
        finally:
            self._told.set()

    def then(self, tell: Callable[[str | None], None]) -> None:
        """Call this with its address: at once if it is known, else in the thread that learns it."""
        with self._lock:
            if not self._is_settled:
                self._then = tell
                return
        tell(self._uri)

    def address(self, *, until: float) -> str | None:
        """Its address, waited for until then on the monotonic clock; None afterwards, for good."""
        if not self._told.wait(max(0.0, until - time.monotonic())):
            self.settle(None)
            self._told.wait()  # another thread may be telling it at this moment, which takes no time
        return self._uri


class Thumbnails:
    """Makes the thumbnails of a worker's jobs, in threads and children of its own.

    Args:
        libraries: a folder that has PyAV, if our own have none: without it, videos have no thumbnail.
    """

    def __init__(self, s3: S3Client, *, libraries: Path | None = None) -> None:
        self._s3 = s3
        self._sandbox = Sandbox(libraries)
        self._pool = ThreadPoolExecutor(_THREADS, thread_name_prefix="thumbnail")

    @classmethod
    def of(cls, settings: Settings, s3: S3Client) -> Thumbnails | None:
        """Those of a worker with these settings; None if it makes none."""
        return cls(s3, libraries=libraries_of(settings)) if settings.thumbnails else None

    def close(self) -> None:
        """End the threads and the children."""
        self._pool.shutdown(wait=True, cancel_futures=True)
        self._sandbox.close()

    def warm(self, *, owner: str) -> None:
        """Have a child ready for the first output of an owner's job, without waiting."""
        self._pool.submit(contextvars.copy_context().run, partial(self._sandbox.warm, owner=owner))

    def begin(self, made: Made, address: S3Address, *, owner: str, trace: tracing.Trace | None = None) -> Thumbnail:
        """Begin to make the thumbnail of an output that goes to this address, and return at once."""
        thumbnail = Thumbnail()
        kind = bare_type(made.content_type)
        if kind not in _PICTURES | _VIDEOS:
            thumbnail.settle(None)
            return thumbnail
        context = contextvars.copy_context()  # the threads log under the job's name too
        self._pool.submit(context.run, self._make, thumbnail, made, address, owner, trace)
        return thumbnail

    def _make(
        self, thumbnail: Thumbnail, made: Made, address: S3Address, owner: str, trace: tracing.Trace | None
    ) -> None:
        uri: str | None = None
        try:
            if not thumbnail.is_settled:  # else its job did not wait
                with tracing.span("thumbnail", parent=trace, node_id=made.node_id):
                    uri = self._stored(self._webp(made, address, owner=owner), address)
        except _FAILURES as error:
            log.info(
                "an output has no thumbnail", output=made.name, reason=redacted(f"{type(error).__name__}: {error}")
            )
        except Exception:  # noqa: BLE001  (whatever it is, the output is delivered without one)
            log.exception("bug: a thumbnail failed in our own code")
        finally:
            thumbnail.settle(uri)

    def _webp(self, made: Made, address: S3Address, *, owner: str) -> bytes:
        with _opened(made) as file:
            webp = self._sandbox.make_thumbnail(
                file.fileno(),
                is_video=bare_type(made.content_type) in _VIDEOS,
                deadline=time.monotonic() + _DECODING_S,
                turn=str(hash(address) % _CHILDREN),
                owner=owner,
            )
        # The child has read bytes of strangers: what it answers is theirs, too.
        if len(webp) > _MOST_BYTES or webp[:4] != b"RIFF" or webp[8:12] != b"WEBP":
            raise Refused("makes its decoder answer something else than a picture")
        return webp

    def _stored(self, webp: bytes, address: S3Address) -> str:
        place = S3Address(address.bucket, KeyAllotment.of_thumbnail(address.key))
        try:
            upload(self._s3, io.BytesIO(webp), place, content_type=_TYPE)
        except KeyTaken:  # of an earlier try: its result may name that one
            place = S3Address(place.bucket, KeyAllotment.another(place.key))
            upload(self._s3, io.BytesIO(webp), place, content_type=_TYPE)
        return str(place)


@contextmanager
def _opened(made: Made) -> Iterator[BinaryIO]:
    """An output as a plain file: as it lies, or else a copy of it. Raises OSError; Refused for what is no file."""
    if made.path is not None and made.content is None:
        # Whoever made it may have put a pipe in its place, which would be waited for.
        with os.fdopen(os.open(made.path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC), "rb") as file:
            if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
                raise Refused("is no plain file")
            yield file
        return
    with made.open() as stream, temporary_file() as copy:
        while chunk := stream.read(_CHUNK_BYTES):
            copy.write(chunk)
            if copy.tell() > _MOST_COPIED_BYTES:
                raise Refused("is too large to be copied for a thumbnail")
        copy.flush()
        with Path(copy.name).open("rb") as file:  # the child may read it, and no more
            yield file


def libraries_of(settings: Settings) -> Path | None:
    """The libraries of ComfyUI's own Python if they have PyAV, and are of our Python's version; else None."""
    python = settings.comfyui_python
    if python is None and settings.comfyui_dir is not None:
        python = python_of(settings.comfyui_dir)
    if python is None or "/" not in python:
        return None
    version = f"python{sys.version_info.major}.{sys.version_info.minor}"
    folder = Path(python).absolute().parent.parent / "lib" / version / "site-packages"
    return folder if (folder / "av").is_dir() else None
