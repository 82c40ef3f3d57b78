"""Verified uploads: nothing counts as stored until S3 has confirmed the checksum of what we read.

A file is read twice from disk, never held: once for its checksums, which S3 is told before the first byte, and once
for S3. The second reading comes out of the page cache.
"""

from __future__ import annotations

import base64
import contextlib
import hashlib
import io
import os
import shutil
import tempfile
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TYPE_CHECKING, BinaryIO, Protocol, cast

from botocore.exceptions import BotoCoreError, ClientError

from comfy_serverless.aws.s3 import EXISTS_ALREADY, UPLOAD_GONE, error_code, unless_in_conflict
from comfy_serverless.connector.outputs import pixels_of

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client
    from mypy_boto3_s3.type_defs import CompletedPartTypeDef

    from comfy_serverless.aws.s3 import S3Address

#: Below this size a file is sent at once, from it on in parts of this size.
PART_BYTES = 16 * 1024 * 1024
#: Parts of one file sent at the same time.
PARTS_AT_ONCE = 4
_CHUNK_BYTES = 256 * 1024


class Readable(Protocol):
    """A file, or the body of an answer."""

    def read(self, size: int, /) -> bytes:
        """At most `size` bytes."""


class ChecksumMismatch(Exception):
    """S3 confirmed something else than what was sent."""


class KeyTaken(Exception):
    """Something else stands under the key: another worker, or an earlier try, made another file of the same name."""


@dataclass(frozen=True, slots=True)
class Digest:
    """What was read: size in bytes, SHA-256 in hex, and the size in pixels of an image."""

    size_bytes: int
    sha256: str
    pixels: tuple[int, int] | None


def upload(s3: S3Client, stream: BinaryIO, address: S3Address, *, content_type: str) -> Digest:
    """Store a stream, verified. What stands under the key already is never replaced; equal bytes count as stored.

    Raises:
        KeyTaken: other bytes stand there.
        ChecksumMismatch, ClientError, BotoCoreError: it is not stored.
        OSError: the stream cannot be read.
    """
    with _seekable(stream) as file:
        size_bytes = file.seek(0, os.SEEK_END)
        whole = _Slice(file, 0, size_bytes, threading.Lock())
        if size_bytes < PART_BYTES:
            sha256 = _sha256(whole)
            unless_in_conflict(lambda: _put(s3, whole, address, content_type, sha256))
        else:
            # As a whole: after a conflict S3 wants every part again.
            sha256 = unless_in_conflict(lambda: _put_in_parts(s3, whole, address, content_type))
        return _digest(whole, sha256, content_type)


def digest(stream: BinaryIO, *, content_type: str) -> Digest:
    """What `upload` answers, without storing anything."""
    with _seekable(stream) as file:
        size_bytes = file.seek(0, os.SEEK_END)
        whole = _Slice(file, 0, size_bytes, threading.Lock())
        return _digest(whole, _sha256(whole), content_type)


def pixels(beginning: BinaryIO, content_type: str) -> tuple[int, int] | None:
    """Width and height of an image, from its header; None for anything else and for unknown formats."""
    return pixels_of(beginning) if content_type.startswith("image/") else None


def _digest(whole: _Slice, sha256: bytes, content_type: str) -> Digest:
    # Pillow takes most formats' size from their first bytes, but reads a WebP to its end: hence the limit.
    beginning = whole.part(0, min(len(whole), PART_BYTES))
    return Digest(len(whole), sha256.hex(), pixels(cast("BinaryIO", beginning), content_type))


class _Slice(io.BufferedIOBase):
    """Some bytes of a file as a file of their own. Several slices of one file can be read at the same time."""

    def __init__(self, file: BinaryIO, start: int, size: int, lock: threading.Lock) -> None:
        super().__init__()
        self._file = file
        self._start = start
        self._size = size
        self._lock = lock
        self._position = 0

    def __len__(self) -> int:
        return self._size

    def part(self, start: int, size: int) -> _Slice:
        """A slice of this slice."""
        return _Slice(self._file, self._start + start, size, self._lock)

    def read(self, size: int | None = -1, /) -> bytes:
        """`size` bytes from where we are, all that are left without it; fewer only at the end."""
        left = self._size - self._position
        missing = left if size is None or size < 0 else min(size, left)
        chunks: list[bytes] = []
        with self._lock:
            self._file.seek(self._start + self._position)
            while missing and (chunk := self._file.read(missing)):
                chunks.append(chunk)
                missing -= len(chunk)
                self._position += len(chunk)
        return chunks[0] if len(chunks) == 1 else b"".join(chunks)

    def seek(self, offset: int, whence: int = os.SEEK_SET, /) -> int:
        """Go there."""
        base = {os.SEEK_SET: 0, os.SEEK_CUR: self._position, os.SEEK_END: self._size}[whence]
        self._position = max(0, min(self._size, base + offset))
        return self._position

    def tell(self) -> int:
        """Where we are."""
        return self._position


@contextlib.contextmanager
def _seekable(stream: BinaryIO) -> Iterator[BinaryIO]:
    """The stream itself if it can be read twice; else, for a file of an engine elsewhere, a copy on our disk."""
    if stream.seekable():
        yield stream
        return
    with tempfile.TemporaryFile() as copy:
        shutil.copyfileobj(stream, copy, _CHUNK_BYTES)
        yield cast("BinaryIO", copy)


def _sha256(stream: Readable) -> bytes:
    whole = hashlib.sha256()
    while chunk := stream.read(_CHUNK_BYTES):
        whole.update(chunk)
    return whole.digest()


def _put(s3: S3Client, content: _Slice, address: S3Address, content_type: str, sha256: bytes) -> None:
    content.seek(0)
    checksum = _base64(sha256)
    try:
        answer = s3.put_object(
            Bucket=address.bucket,
            Key=address.key,
            Body=cast("BinaryIO", content),
            ContentType=content_type,
            ChecksumSHA256=checksum,
            IfNoneMatch="*",
        )
    except ClientError as error:
        _check_taken(s3, address, error, sha256=sha256)
        return
    _compare(s3, address, confirmed=answer.get("ChecksumSHA256"), sent=checksum, size_bytes=len(content))


def _put_in_parts(s3: S3Client, whole: _Slice, address: S3Address, content_type: str) -> bytes:
    """Answers the SHA-256 of the whole, which S3 does not check: it confirms the checksum of the parts' checksums."""
    bucket, key = address
    upload_id = s3.create_multipart_upload(
        Bucket=bucket, Key=key, ContentType=content_type, ChecksumAlgorithm="SHA256"
    )["UploadId"]
    sha256 = b""
    try:
        pool = ThreadPoolExecutor(PARTS_AT_ONCE, thread_name_prefix="upload-part")
        try:
            pending = [
                pool.submit(_put_part, s3, address, upload_id, number, whole.part(start, size))
                for number, (start, size) in enumerate(_parts(len(whole)), start=1)
            ]
            sha256 = _sha256(whole)
            sent = [part.result() for part in pending]
        finally:
            pool.shutdown(wait=True, cancel_futures=True)
        composite = hashlib.sha256(b"".join(part_sha256 for _, part_sha256 in sent)).digest()
        completed = s3.complete_multipart_upload(
            Bucket=bucket,
            Key=key,
            UploadId=upload_id,
            MultipartUpload={"Parts": [part for part, _ in sent]},
            IfNoneMatch="*",
        )
        checksum = f"{_base64(composite)}-{len(sent)}"
        _compare(s3, address, confirmed=completed.get("ChecksumSHA256"), sent=checksum, size_bytes=len(whole))
    except BaseException as error:
        with contextlib.suppress(ClientError, BotoCoreError):  # the lifecycle rule clears what is left
            s3.abort_multipart_upload(Bucket=bucket, Key=key, UploadId=upload_id)
        if not isinstance(error, ClientError):
            raise
        _check_taken(s3, address, error, sha256=sha256)
    return sha256


def _put_part(
    s3: S3Client, address: S3Address, upload_id: str, number: int, content: _Slice
) -> tuple[CompletedPartTypeDef, bytes]:
    sha256 = _sha256(content)
    content.seek(0)
    answer = s3.upload_part(
        Bucket=address.bucket,
        Key=address.key,
        UploadId=upload_id,
        PartNumber=number,
        Body=cast("BinaryIO", content),
        ChecksumSHA256=_base64(sha256),
    )
    return {"PartNumber": number, "ETag": answer["ETag"], "ChecksumSHA256": _base64(sha256)}, sha256


def _parts(size_bytes: int) -> Iterator[tuple[int, int]]:
    for start in range(0, size_bytes, PART_BYTES):
        yield start, min(PART_BYTES, size_bytes - start)


def _check_taken(s3: S3Client, address: S3Address, error: ClientError, *, sha256: bytes) -> None:
    """Return if the very bytes stand there already: this, or an earlier try, has stored them. They are read to know."""
    if error_code(error) not in EXISTS_ALREADY | UPLOAD_GONE:
        raise error
    standing = s3.get_object(Bucket=address.bucket, Key=address.key)["Body"]
    with contextlib.closing(standing):
        if _sha256(standing) != sha256:
            raise KeyTaken(f"something else stands at {address}") from error


def _compare(s3: S3Client, address: S3Address, *, confirmed: str | None, sent: str, size_bytes: int) -> None:
    """S3 checks what it is sent and repeats the checksum. Stand-ins for S3 may not: there, the size must do."""
    if confirmed is None:
        stored = s3.head_object(Bucket=address.bucket, Key=address.key)["ContentLength"]
        if stored != size_bytes:
            raise ChecksumMismatch(f"{address} has {stored} bytes after {size_bytes} were sent")
    elif confirmed != sent:
        raise ChecksumMismatch(f"{address} has SHA-256 {confirmed} after {sent} was sent")


def _base64(value: bytes) -> str:
    return base64.b64encode(value).decode("ascii")
