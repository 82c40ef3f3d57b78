"""Verified uploads: nothing counts as stored until S3 has confirmed the checksum of what we read.

Files are streamed in parts, never held as a whole beyond one part.
"""

from __future__ import annotations

import base64
import contextlib
import hashlib
import io
from dataclasses import dataclass
from typing import TYPE_CHECKING, BinaryIO, Protocol

from botocore.exceptions import BotoCoreError, ClientError

from comfy_serverless.jobs.s3 import EXISTS_ALREADY, error_code

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client
    from mypy_boto3_s3.type_defs import CompletedPartTypeDef

    from comfy_serverless.jobs.s3 import S3Address

#: Up to this size a file is sent at once, above it in parts of this size.
PART_BYTES = 16 * 1024 * 1024


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
    first = _read(stream)
    if len(first) < PART_BYTES:
        _put(s3, first, address, content_type)
        return Digest(len(first), hashlib.sha256(first).hexdigest(), pixels(first, content_type))
    return _put_in_parts(s3, first, stream, address, content_type)


def digest(stream: Readable, *, content_type: str) -> Digest:
    """What `upload` answers, without storing anything."""
    first = chunk = _read(stream)
    whole, size = hashlib.sha256(), 0
    while chunk:
        whole.update(chunk)
        size += len(chunk)
        chunk = _read(stream)
    return Digest(size, whole.hexdigest(), pixels(first, content_type))


def pixels(beginning: bytes, content_type: str) -> tuple[int, int] | None:
    """Width and height of an image, from its header; None for anything else and for unknown formats."""
    if not content_type.startswith("image/"):
        return None
    from PIL import Image  # here, so that handlers start without it

    try:
        with Image.open(io.BytesIO(beginning)) as image:
            return image.size
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError):
        return None


def _put(s3: S3Client, content: bytes, address: S3Address, content_type: str) -> None:
    checksum = _base64(hashlib.sha256(content).digest())
    try:
        answer = s3.put_object(
            Bucket=address.bucket,
            Key=address.key,
            Body=content,
            ContentType=content_type,
            ChecksumSHA256=checksum,
            IfNoneMatch="*",
        )
    except ClientError as error:
        _check_taken(s3, address, error, sha256=hashlib.sha256(content).hexdigest())
        return
    _compare(s3, address, confirmed=answer.get("ChecksumSHA256"), sent=checksum, size_bytes=len(content))


def _put_in_parts(s3: S3Client, first: bytes, stream: BinaryIO, address: S3Address, content_type: str) -> Digest:
    bucket, key = address
    upload_id = s3.create_multipart_upload(
        Bucket=bucket, Key=key, ContentType=content_type, ChecksumAlgorithm="SHA256"
    )["UploadId"]
    try:
        whole, composite = hashlib.sha256(), hashlib.sha256()
        parts: list[CompletedPartTypeDef] = []
        size, chunk = 0, first
        while chunk:
            part_digest = hashlib.sha256(chunk).digest()
            part_checksum = _base64(part_digest)
            number = len(parts) + 1
            answer = s3.upload_part(
                Bucket=bucket,
                Key=key,
                UploadId=upload_id,
                PartNumber=number,
                Body=chunk,
                ChecksumSHA256=part_checksum,
            )
            parts.append({"PartNumber": number, "ETag": answer["ETag"], "ChecksumSHA256": part_checksum})
            whole.update(chunk)
            composite.update(part_digest)
            size += len(chunk)
            chunk = _read(stream)
        checksum = f"{_base64(composite.digest())}-{len(parts)}"
        completed = s3.complete_multipart_upload(
            Bucket=bucket, Key=key, UploadId=upload_id, MultipartUpload={"Parts": parts}, IfNoneMatch="*"
        )
        _compare(s3, address, confirmed=completed.get("ChecksumSHA256"), sent=checksum, size_bytes=size)
    except BaseException as error:
        with contextlib.suppress(ClientError, BotoCoreError):  # the lifecycle rule clears what is left
            s3.abort_multipart_upload(Bucket=bucket, Key=key, UploadId=upload_id)
        if not isinstance(error, ClientError):
            raise
        _check_taken(s3, address, error, sha256=whole.hexdigest())
    return Digest(size, whole.hexdigest(), pixels(first, content_type))


def _check_taken(s3: S3Client, address: S3Address, error: ClientError, *, sha256: str) -> None:
    """Return if the very bytes stand there already: this, or an earlier try, has stored them. They are read to know."""
    if error_code(error) not in EXISTS_ALREADY:
        raise error
    standing = s3.get_object(Bucket=address.bucket, Key=address.key)["Body"]
    if digest(standing, content_type="").sha256 != sha256:
        raise KeyTaken(f"something else stands at {address}") from error


def _compare(s3: S3Client, address: S3Address, *, confirmed: str | None, sent: str, size_bytes: int) -> None:
    """S3 checks what it is sent and repeats the checksum. Stand-ins for S3 may not: there, the size must do."""
    if confirmed is None:
        stored = s3.head_object(Bucket=address.bucket, Key=address.key)["ContentLength"]
        if stored != size_bytes:
            raise ChecksumMismatch(f"{address} has {stored} bytes after {size_bytes} were sent")
    elif confirmed != sent:
        raise ChecksumMismatch(f"{address} has SHA-256 {confirmed} after {sent} was sent")


def _read(stream: Readable) -> bytes:
    """The next part, whole: network streams hand out less than they are asked for."""
    chunks: list[bytes] = []
    missing = PART_BYTES
    while missing and (chunk := stream.read(missing)):
        chunks.append(chunk)
        missing -= len(chunk)
    return b"".join(chunks)


def _base64(value: bytes) -> str:
    return base64.b64encode(value).decode("ascii")
