"""The store of a stack: models below `models/{folder}/{name}` of its input bucket, with their SHA-256 as metadata.

Files are sent in parts, several at once, each of which S3 checks by its SHA-256. What breaks off stays for a day as an
upload that is not complete, whose id is kept on this machine: the next attempt compares its parts with the file's, and
sends those that are missing.
"""

from __future__ import annotations

import base64
import hashlib
import math
import re
import threading
from collections.abc import Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from botocore.exceptions import ClientError

from comfy_serverless.aws.s3 import EXISTS_ALREADY, UPLOAD_GONE, Trouble, error_code, trouble_of
from comfy_serverless.cli.byte_bar import Show
from comfy_serverless.cli.model_sources import ModelSource
from comfy_serverless.cli.paths import cache_folder
from comfy_serverless.errors import InvalidRequest, MissingAsset, UpstreamError
from comfy_serverless.files import UNKNOWN_TYPE
from comfy_serverless.jobs.request import ModelRequest

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client

#: Where models are, in the input bucket; nothing there is ever deleted by age.
PREFIX = "models/"
#: The metadata that says what a model is; `worker.model_store.hashes` reads it.
SHA256_METADATA = "sha256"
PART_BYTES = 16 << 20
#: Of a file whose size nobody says.
_UNKNOWN_PART_BYTES = 64 << 20
_MOST_PARTS = 10_000
_AT_ONCE = 4
_SHA256 = re.compile(r"[0-9a-f]{64}")


@dataclass(frozen=True, slots=True)
class Stored:
    """A model in the store. `sha256` is "" if nobody has said it."""

    name: str
    folder: str
    size_bytes: int
    sha256: str
    address: str


@dataclass(frozen=True, slots=True)
class _Part:
    """A part that S3 has."""

    number: int
    etag: str
    sha256: str
    size_bytes: int


class ModelBucket:
    """The models of a bucket."""

    def __init__(self, s3: S3Client, bucket: str) -> None:
        self._s3, self._bucket = s3, bucket

    def all(self) -> list[Stored]:
        """All models, by their addresses. Raises ClientError."""
        pages = self._s3.get_paginator("list_objects_v2").paginate(Bucket=self._bucket, Prefix=PREFIX)
        keys = [entry["Key"] for page in pages for entry in page.get("Contents", ()) if not entry["Key"].endswith("/")]
        with ThreadPoolExecutor(_AT_ONCE, thread_name_prefix="models") as pool:
            return [one for one in pool.map(self._stored, keys) if one is not None]

    def find(self, model: ModelRequest) -> Stored | None:
        """What is there under the name of a model. Raises ClientError."""
        return self._stored(f"{PREFIX}{model.path}")

    def address(self, model: ModelRequest) -> str:
        """Where a model is, or will be."""
        return f"s3://{self._bucket}/{PREFIX}{model.path}"

    def add(self, source: ModelSource, model: ModelRequest, *, replaces: bool, show: Show) -> tuple[Stored, bool]:
        """Bring a model to the store. Returns it as it is there, and whether anything was sent.

        Raises:
            InvalidRequest: there is another content of this name, and it may not be replaced.
            MissingAsset: what was read is not what it should be: nothing has been stored.
            ClientError: S3 refuses; what it has already stays for the next attempt.
        """
        key = f"{PREFIX}{model.path}"
        there = self._stored(key)
        if there is not None:
            if there.sha256 == source.sha256:
                return there, False
            if not replaces:
                raise _occupied(there)
        _Sending(self._s3, self._bucket, key, source, is_new=not replaces, show=show).run()
        stored = self._stored(key)
        if stored is None or stored.sha256 != source.sha256:
            raise InvalidRequest(f"s3://{self._bucket}/{key} was replaced or deleted by somebody else at this moment.")
        return stored, True

    def _stored(self, key: str) -> Stored | None:
        try:
            head = self._s3.head_object(Bucket=self._bucket, Key=key)
        except ClientError as error:
            if trouble_of(error) is Trouble.MISSING:
                return None
            raise
        sha256 = head.get("Metadata", {}).get(SHA256_METADATA, "")
        folder, _, name = key.removeprefix(PREFIX).rpartition("/")
        known = sha256 if _SHA256.fullmatch(sha256) else ""
        return Stored(name, folder, head["ContentLength"], known, f"s3://{self._bucket}/{key}")


class _Sending:
    """One model on its way to a key."""

    def __init__(self, s3: S3Client, bucket: str, key: str, source: ModelSource, *, is_new: bool, show: Show) -> None:
        self._s3, self._bucket, self._key, self._source = s3, bucket, key, source
        self._is_new, self._show = is_new, show
        self._begun = _Begun(bucket, key, source.sha256)
        self._telling = threading.Lock()
        self._sent_bytes = 0

    def run(self) -> None:
        """Send what S3 does not have, and complete it, if it is what it should be."""
        upload_id, known = self._upload()
        whole = hashlib.sha256()
        parts: list[_Part] = []
        pending: set[Future[_Part]] = set()
        with ThreadPoolExecutor(_AT_ONCE, thread_name_prefix="models") as pool:
            try:
                for number, content in enumerate(self._pieces(), start=1):
                    whole.update(content)
                    if (there := known.get(number)) is not None and _is_same(there, content):
                        parts.append(replace(there, sha256=_base64_of(content)))
                        self._tell(len(content))
                        continue
                    pending.add(pool.submit(self._send, upload_id, number, content))
                    if len(pending) >= _AT_ONCE:
                        pending = _collect(pending, parts)
                while pending:
                    pending = _collect(pending, parts)
            except BaseException:
                pool.shutdown(wait=True, cancel_futures=True)
                raise
        self._check(upload_id, whole.hexdigest())
        self._complete(upload_id, sorted(parts, key=lambda part: part.number))

    def _upload(self) -> tuple[str, dict[int, _Part]]:
        """The upload of this content that broke off, with its parts; or a new one."""
        if (begun := self._begun.read()) is not None:
            try:
                pages = self._s3.get_paginator("list_parts").paginate(
                    Bucket=self._bucket, Key=self._key, UploadId=begun
                )
                return begun, {part["PartNumber"]: _part(part) for page in pages for part in page.get("Parts", ())}
            except ClientError as error:
                if error_code(error) not in UPLOAD_GONE:
                    raise
        upload_id = self._s3.create_multipart_upload(
            Bucket=self._bucket,
            Key=self._key,
            ContentType=UNKNOWN_TYPE,
            Metadata={SHA256_METADATA: self._source.sha256},
            ChecksumAlgorithm="SHA256",
        )["UploadId"]
        self._begun.write(upload_id)
        return upload_id, {}

    def _pieces(self) -> Iterator[bytes]:
        """The content in parts, whose size depends on that of the whole alone: the next attempt makes the same ones."""
        size_bytes = self._source.size_bytes
        part_bytes = _UNKNOWN_PART_BYTES if size_bytes is None else part_size(size_bytes)
        piece, whole_ones = bytearray(), 0
        for chunk in self._source.chunks:
            piece += chunk
            while len(piece) >= part_bytes:
                yield bytes(piece[:part_bytes])
                del piece[:part_bytes]
                whole_ones += 1
            if piece and whole_ones == _MOST_PARTS:
                raise InvalidRequest("it is larger than its host says, or than S3 takes.")
        if piece:
            yield bytes(piece)

    def _send(self, upload_id: str, number: int, content: bytes) -> _Part:
        sha256 = _base64_of(content)
        answer = self._s3.upload_part(
            Bucket=self._bucket,
            Key=self._key,
            UploadId=upload_id,
            PartNumber=number,
            Body=content,
            ChecksumSHA256=sha256,  # S3 refuses other bytes
        )
        self._tell(len(content))
        return _Part(number, answer["ETag"], sha256, len(content))

    def _tell(self, size_bytes: int) -> None:
        with self._telling:
            self._sent_bytes += size_bytes
            self._show("sending", self._sent_bytes, self._source.size_bytes)

    def _check(self, upload_id: str, sha256: str) -> None:
        if sha256 == self._source.sha256 and self._sent_bytes:
            return
        self._s3.abort_multipart_upload(Bucket=self._bucket, Key=self._key, UploadId=upload_id)
        self._begun.forget()
        raise MissingAsset(
            f"What was read has the SHA-256 {sha256}, not {self._source.sha256} as it should: it has changed "
            "meanwhile, or its host serves something else than it says. Nothing was stored."
        )

    def _complete(self, upload_id: str, parts: Sequence[_Part]) -> None:
        """Make the parts an object, and see that it is all of them."""
        listed: Any = [{"PartNumber": part.number, "ETag": part.etag, "ChecksumSHA256": part.sha256} for part in parts]
        condition: Any = {"IfNoneMatch": "*"} if self._is_new else {}
        try:
            answer = self._s3.complete_multipart_upload(
                Bucket=self._bucket,
                Key=self._key,
                UploadId=upload_id,
                MultipartUpload={"Parts": listed},
                **condition,
            )
        except ClientError as error:
            if error_code(error) in EXISTS_ALREADY:
                raise InvalidRequest(
                    f"s3://{self._bucket}/{self._key} was written by somebody else at this moment; give the command "
                    "again to see whether that is the same."
                ) from error
            raise
        self._begun.forget()
        whole = hashlib.sha256(b"".join(base64.b64decode(part.sha256) for part in parts)).digest()
        told = answer.get("ChecksumSHA256", "").partition("-")[0]
        if told and told != base64.b64encode(whole).decode():
            raise UpstreamError(f"S3 has stored something else than was sent to s3://{self._bucket}/{self._key}.")


class _Begun:
    """The upload of a content that is not complete, in the user's cache folder. Without it all is sent again."""

    def __init__(self, bucket: str, key: str, sha256: str) -> None:
        name = hashlib.sha256("\0".join((bucket, key, sha256)).encode("utf-8", "surrogatepass")).hexdigest()
        self._path = cache_folder() / "transfers" / name

    def read(self) -> str | None:
        try:
            return self._path.read_text(encoding="utf-8").strip() or None
        except (OSError, UnicodeDecodeError):
            return None

    def write(self, upload_id: str) -> None:
        with suppress(OSError):
            self._path.parent.mkdir(parents=True, exist_ok=True)
            self._path.write_text(upload_id, encoding="utf-8")

    def forget(self) -> None:
        with suppress(OSError):
            self._path.unlink(missing_ok=True)


def part_size(size_bytes: int) -> int:
    """The size of the parts of a file: S3 takes 10,000 of them."""
    return max(PART_BYTES, math.ceil(size_bytes / _MOST_PARTS / (1 << 20)) << 20)


def _collect(pending: set[Future[_Part]], parts: list[_Part]) -> set[Future[_Part]]:
    """Wait until one of them has been sent; return the others."""
    done, others = wait(pending, return_when=FIRST_COMPLETED)
    parts.extend(sent.result() for sent in done)
    return others


def _part(listed: Any) -> _Part:  # noqa: ANN401  (S3's own shape)
    return _Part(listed["PartNumber"], listed["ETag"], listed.get("ChecksumSHA256", ""), listed["Size"])


def _is_same(part: _Part, content: bytes) -> bool:
    """Whether S3 has these bytes as a part already: its SHA-256 says so, or, where S3 does not list that, its MD5."""
    if part.size_bytes != len(content):
        return False
    if part.sha256:
        return part.sha256 == _base64_of(content)
    return part.etag.strip('"') == hashlib.md5(content, usedforsecurity=False).hexdigest()


def _base64_of(content: bytes) -> str:
    return base64.b64encode(hashlib.sha256(content).digest()).decode("ascii")


def _occupied(there: Stored) -> InvalidRequest:
    content = f"with the SHA-256 {there.sha256}" if there.sha256 else f"of {there.size_bytes:,} bytes"
    return InvalidRequest(
        f"{there.address} is another model, {content}. Give this one another --name, or replace that one with "
        "--replace: jobs and manifests that name it by its SHA-256 fail then."
    )
