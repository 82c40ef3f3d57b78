"""Verified uploads: nothing counts as stored until S3 has confirmed the checksum of what we read.

A file is read twice from disk, never held: once for its checksums, which S3 gets before the first byte, and once
for S3. The second reading comes out of the page cache.
"""

from __future__ import annotations

import base64
import contextlib
import contextvars
import hashlib
import io
import os
import shutil
import tempfile
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TYPE_CHECKING, BinaryIO, cast

from botocore.exceptions import BotoCoreError, ClientError

from comfy_serverless.aws.s3 import EXISTS_ALREADY, UPLOAD_GONE, error_code, unless_in_conflict
from comfy_serverless.pixels import size_in_pixels

if TYPE_CHECKING:
    from botocore.response import StreamingBody
    from mypy_boto3_s3 import S3Client
    from mypy_boto3_s3.type_defs import CompletedPartTypeDef

    from comfy_serverless.aws.s3 import S3Address

#: A file below this size is sent at once, a larger one in parts of this size.
PART_BYTES = 16 * 1024 * 1024
#: Parts of one file sent at the same time.
PARTS_AT_ONCE = 4
_CHUNK_BYTES = 256 * 1024


class ChecksumMismatch(Exception):
    """S3 confirmed another checksum or size than was sent."""


class KeyTaken(Exception):
    """Other bytes stand under the key: another worker, or an earlier try, made another file of the same name."""


@dataclass(frozen=True, slots=True)
class Digest:
    """The size of a file in bytes, its SHA-256 in hex, and the size of an image in pixels."""

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
    with _whole(stream) as whole:
        if len(whole) < PART_BYTES:
            sha256 = _sha256(whole)
            unless_in_conflict(lambda: _put(s3, whole, address, content_type, sha256))
        else:
            # Retried as a whole, because after a conflict S3 wants every part again.
            sha256 = unless_in_conflict(lambda: _put_in_parts(s3, whole, address, content_type))
        return _digest(whole, sha256, content_type)


def digest(stream: BinaryIO, *, content_type: str) -> Digest:
    """Return what `upload` returns, without storing anything."""
    with _whole(stream) as whole:
        return _digest(whole, _sha256(whole), content_type)


def pixels(beginning: BinaryIO, content_type: str) -> tuple[int, int] | None:
    """Width and height of an image, from its header; None for anything else and for unknown formats."""
    if not content_type.startswith("image/"):
        return None
    beginning.seek(0)
    return size_in_pixels(beginning)


def _digest(whole: _Slice, sha256: bytes, content_type: str) -> Digest:
    return Digest(len(whole), sha256.hex(), pixels(cast("BinaryIO", whole), content_type))


class _Slice(io.BufferedIOBase):
    """Some bytes of a file as a separate file. Several slices of one file can be read at the same time."""

    def __init__(self, file: BinaryIO, start: int, size: int, lock: threading.Lock) -> None:
        super().__init__()
        self._file, self._start, self._size, self._lock = file, start, size, lock
        self._position = 0

    def __len__(self) -> int:
        return self._size

    def part(self, start: int, size: int) -> _Slice:
        return _Slice(self._file, self._start + start, min(size, self._size - start), self._lock)

    def read(self, size: int | None = -1, /) -> bytes:
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
        base = {os.SEEK_SET: 0, os.SEEK_CUR: self._position, os.SEEK_END: self._size}[whence]
        self._position = max(0, min(self._size, base + offset))
        return self._position

    def tell(self) -> int:
        return self._position


@contextlib.contextmanager
def _whole(stream: BinaryIO) -> Iterator[_Slice]:
    """The stream if it can be read twice; else, for a file of an engine elsewhere, a copy on this machine's disk."""
    with contextlib.ExitStack() as files:
        if not stream.seekable():
            copy = cast("BinaryIO", files.enter_context(tempfile.TemporaryFile()))
            shutil.copyfileobj(stream, copy, _CHUNK_BYTES)
            stream = copy
        yield _Slice(stream, 0, stream.seek(0, os.SEEK_END), threading.Lock())


def _sha256(stream: _Slice | StreamingBody) -> bytes:
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
    """Return the SHA-256 of the whole, which S3 does not check: it confirms the checksum of the parts' checksums."""
    bucket, key = address
    upload_id = s3.create_multipart_upload(
        Bucket=bucket, Key=key, ContentType=content_type, ChecksumAlgorithm="SHA256"
    )["UploadId"]
    sha256 = b""
    try:
        pool = ThreadPoolExecutor(PARTS_AT_ONCE, thread_name_prefix="upload-part")
        try:
            pending = [
                pool.submit(
                    contextvars.copy_context().run,
                    _put_part,
                    s3,
                    address,
                    upload_id,
                    number,
                    whole.part(start, PART_BYTES),
                )
                for number, start in enumerate(range(0, len(whole), PART_BYTES), start=1)
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


def _check_taken(s3: S3Client, address: S3Address, error: ClientError, *, sha256: bytes) -> None:
    """Return if the same bytes stand there, because this or an earlier try has stored them. They are read to know."""
    if error_code(error) not in EXISTS_ALREADY | UPLOAD_GONE:
        raise error
    standing = s3.get_object(Bucket=address.bucket, Key=address.key)["Body"]
    with contextlib.closing(standing):
        if _sha256(standing) != sha256:
            raise KeyTaken(f"something else stands at {address}") from error


def _compare(s3: S3Client, address: S3Address, *, confirmed: str | None, sent: str, size_bytes: int) -> None:
    """Compare checksums: S3 checks the bytes and repeats the checksum. A stand-in may not; then the size must do."""
    if confirmed is None:
        stored = s3.head_object(Bucket=address.bucket, Key=address.key)["ContentLength"]
        if stored != size_bytes:
            raise ChecksumMismatch(f"{address} has {stored} bytes after {size_bytes} were sent")
    elif confirmed != sent:
        raise ChecksumMismatch(f"{address} has SHA-256 {confirmed} after {sent} was sent")


def _base64(value: bytes) -> str:
    return base64.b64encode(value).decode("ascii")
