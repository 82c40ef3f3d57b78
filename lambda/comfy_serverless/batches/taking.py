"""Our own copy of a manifest: unpacked, in lines, and never changed again. Where it comes from may be any object.

    in lines ──► copied as it is, however large        packed ──► unpacked on the way, a part at a time
    a list, spread over lines, UTF-16 ──► copied, then read as a whole, and written in lines

Everything may come twice and be cut off anywhere: the copy of the same object is the same.
"""

from __future__ import annotations

import gzip
import io
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from botocore.exceptions import ClientError

from comfy_serverless.aws.s3 import (
    UNPINNED,
    Pin,
    S3Address,
    Trouble,
    copy_object,
    error_code,
    read_problem,
    trouble_of,
)
from comfy_serverless.batches.manifest_text import HEAD_BYTES, MANIFEST_TYPE, is_in_lines, write_in_lines
from comfy_serverless.batches.report import ONE_BY_ONE, Pieces
from comfy_serverless.batches.results import Results
from comfy_serverless.batches.retry import Retry, Selection
from comfy_serverless.errors import InvalidRequest, MissingAsset
from comfy_serverless.files import UNKNOWN_TYPE
from comfy_serverless.json_text import GZIP

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client

#: The most that a packed manifest may unpack to.
MAX_UNPACKED_BYTES = 10_000_000_000


def take(
    s3: S3Client,
    source: S3Address,
    copy: S3Address,
    *,
    pin: Pin = UNPINNED,
    called: str = "",
    most_bytes: int | None = None,
) -> int:
    """Copy a manifest, unpacked, and put it in lines if it is not; returns its size then.

    Args:
        pin: what is copied of the source, and nothing that was written there later.
        called: what people call it; by default its address.
        most_bytes: what a packed one may unpack to, if it is less than any may.

    Raises:
        MissingAsset: it is gone, or was replaced.
        InvalidRequest: it cannot be unpacked, or is no manifest.
    """
    called = called or f"the manifest {source}"
    with _explained(source, called):
        head = _beginning(s3, source, pin)
        is_packed = head.startswith(GZIP)
        if is_packed:
            head = zlib.decompressobj(zlib.MAX_WBITS | 16).decompress(head, HEAD_BYTES)
    target = copy if is_in_lines(head) else S3Address(copy.bucket, f"{copy.key}.as-it-came")
    if is_packed:
        size_bytes = _unpack(s3, source, target, pin, called, most_bytes or MAX_UNPACKED_BYTES)
    else:
        size_bytes = copy_whole(s3, source, target, pin=pin, content_type=MANIFEST_TYPE, called=called)
    if target == copy:
        return size_bytes
    return write_in_lines(s3, target, copy, size_bytes=size_bytes, called=called)


def take_again(s3: S3Client, report: S3Address, copy: S3Address, *, only: str) -> int:
    """Write the lines of a report that are to be run again (`batches.retry`) as a manifest; returns its size.

    Raises InvalidRequest: there are none.
    """
    chosen = Retry(Selection.parse(only))
    size_bytes = 0

    def lines() -> Iterator[bytes]:
        nonlocal size_bytes
        for line in chosen.lines(Results(s3, report).again()):
            size_bytes += len(line)
            yield line

    body: Any = Pieces(lines())
    extra = {"ContentType": MANIFEST_TYPE}
    s3.upload_fileobj(body, copy.bucket, copy.key, ExtraArgs=extra, Config=ONE_BY_ONE)
    if not chosen.count:
        raise InvalidRequest(f"no line of that batch can be run again by {only[:100]!r}.")
    return size_bytes


def copy_whole(
    s3: S3Client,
    source: S3Address,
    copy: S3Address,
    *,
    pin: Pin = UNPINNED,
    content_type: str | None = None,
    called: str = "",
) -> int:
    """Copy an object, however large; returns its size. Raises MissingAsset if it is gone, or was replaced."""
    with _explained(source, called or str(source)):
        head = s3.head_object(Bucket=source.bucket, Key=source.key, **pin.conditions)
        kind = content_type or head.get("ContentType", UNKNOWN_TYPE)
        copy_object(s3, source, copy, etag=head["ETag"], content_type=kind, version_id=pin.version_id)
    return head["ContentLength"]


def _beginning(s3: S3Client, source: S3Address, pin: Pin) -> bytes:
    part = f"bytes=0-{HEAD_BYTES - 1}"
    try:
        return s3.get_object(Bucket=source.bucket, Key=source.key, Range=part, **pin.conditions)["Body"].read()
    except ClientError as error:
        if error_code(error) == "InvalidRange":  # it has no bytes
            return b""
        raise


def _unpack(s3: S3Client, source: S3Address, copy: S3Address, pin: Pin, called: str, most_bytes: int) -> int:
    """Unpack it on the way, a part at a time; returns the size of what was in it."""
    with _explained(source, called):
        body = s3.get_object(Bucket=source.bucket, Key=source.key, **pin.conditions)["Body"]
        unpacked = _Unpacked(body, most_bytes)
        extra = {"ContentType": MANIFEST_TYPE}
        s3.upload_fileobj(unpacked, copy.bucket, copy.key, ExtraArgs=extra)  # type: ignore[arg-type]
    return unpacked.size_bytes


@contextmanager
def _explained(source: S3Address, called: str) -> Iterator[None]:
    """Turn what fails while a manifest is copied into an error that says why."""
    try:
        yield
    except (gzip.BadGzipFile, EOFError, zlib.error) as error:
        reason = "it breaks off" if isinstance(error, EOFError) else str(error)
        what = called.removeprefix("the manifest ")
        raise InvalidRequest(f"{what} cannot be unpacked: {reason}. Pack it with gzip, or send it as it is.") from error
    except ClientError as error:
        if trouble_of(error) in {Trouble.MISSING, Trouble.OCCUPIED}:
            raise MissingAsset(f"{source} {read_problem(error, source).reason}.") from error
        raise


class _Unpacked(io.RawIOBase):
    """The content of a gzip file that is being read. Raises InvalidRequest once it is more than a manifest may have."""

    def __init__(self, packed: Any, most_bytes: int) -> None:  # noqa: ANN401  (botocore's StreamingBody)
        super().__init__()
        self._file = gzip.GzipFile(fileobj=packed)
        self._most_bytes = most_bytes
        self.size_bytes = 0

    def readable(self) -> bool:
        """It is."""
        return True

    def read(self, size: int = -1) -> bytes:
        """Up to so many bytes more."""
        content = self._file.read(size)
        self.size_bytes += len(content)
        if self.size_bytes > self._most_bytes:
            raise InvalidRequest(f"the manifest unpacks to more than {self._most_bytes:,} bytes: send it in parts.")
        return content
