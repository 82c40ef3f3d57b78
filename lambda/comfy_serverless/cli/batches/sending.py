"""Local files of a manifest are sent to the input bucket, once each by content, and the lines name them there.

uploads/{sha256}/{name}     no event tells of it; it is deleted as drops are (`InputRetentionDays`)
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

from comfy_serverless.aws.s3 import MAX_CONNECTIONS, S3Address, Trouble, trouble_of
from comfy_serverless.cli.batches.check import Workflows
from comfy_serverless.errors import InvalidRequest, MissingAsset
from comfy_serverless.files import UNKNOWN_TYPE, type_of_name
from comfy_serverless.graph.file_inputs import is_address
from comfy_serverless.jobs.keys import safe_name
from comfy_serverless.jobs.lines import Line, document_of
from comfy_serverless.jobs.request import JobRequest
from comfy_serverless.jobs.shapes import shape
from comfy_serverless.json_text import finite

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client

UPLOADS = "uploads/"
#: A file that has been there for longer is sent again: the bucket deletes what is old (`InputRetentionDays`).
FRESH_FOR = timedelta(hours=12)


@dataclass(frozen=True, slots=True)
class Sent:
    """What became of the local files.

    Attributes:
        addresses: where each is now.
        sent: how many contents were sent; the others were there, or are the same as another file's.
        sent_bytes: of those.
    """

    addresses: dict[Path, str]
    sent: int
    sent_bytes: int


def upload_key(digest: str, name: str) -> str:
    """The key of a file with this SHA-256."""
    return f"{UPLOADS}{digest}/{safe_name(name)}"


def send_files(
    s3: S3Client, bucket: str, files: Iterable[Path], *, progress: Callable[[int], None] = lambda _bytes: None
) -> Sent:
    """Send files, several at once.

    Args:
        progress: is called with the bytes of each file that is there, from several threads.

    Raises MissingAsset if one cannot be read, and S3's own exceptions.
    """
    with ThreadPoolExecutor(MAX_CONNECTIONS, thread_name_prefix="upload") as pool:
        try:
            files = list(files)
            digests = dict(zip(files, pool.map(_digest, files), strict=True))
            owners: dict[str, Path] = {}
            for file, digest in digests.items():
                owners.setdefault(digest, file)

            def send(digest: str) -> int:
                file = owners[digest]
                sent = _send(s3, S3Address(bucket, upload_key(digest, file.name)), file)
                progress(file.stat().st_size)
                return sent

            sizes = [size for size in pool.map(send, owners) if size]
            # The same content by another name is copied within S3: what a result is called may go by the name.
            copies = {
                upload_key(digest, file.name): upload_key(digest, owners[digest].name)
                for file, digest in digests.items()
                if file.name != owners[digest].name
            }
            list(pool.map(lambda target: _copy(s3, bucket, copies[target], target), copies))
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            raise
    addresses = {file: str(S3Address(bucket, upload_key(digest, file.name))) for file, digest in digests.items()}
    return Sent(addresses, len(sizes), sum(sizes))


def rewritten(lines: Iterable[Line], *, workflows: Workflows, addresses: Mapping[Path, Any]) -> Iterator[bytes]:
    """The lines with what stands for local files in their place; lines that are no requests stay as they are.

    Args:
        addresses: by file: its address, the name of an upload, or the workflow that is in it.
    """
    for line in lines:
        # What is too long to be a request is reported by its number all the same.
        content = json.dumps(f"a line of {line.length:,} bytes").encode() if line.content is None else line.content
        yield _rewritten(content, workflows, addresses) + b"\n"


def _rewritten(content: bytes, workflows: Workflows, addresses: Mapping[Path, Any]) -> bytes:
    try:
        document = document_of(content)
        request = JobRequest.parse(document)
        files = workflows.inputs_of(request).files
        fields = shape(document, known=JobRequest.field_names()).fields
    except InvalidRequest:
        return content

    def address(text: str, path: Path | None) -> Any:  # noqa: ANN401  (any JSON)
        return addresses.get(path, text) if path is not None else text

    changes: dict[str, Any] = {}
    if isinstance(request.workflow, str):
        changes["workflow"] = address(request.workflow, workflows.file_of(request.workflow))
    if request.inputs:
        sent = {
            name: address(given, _local(given, workflows))
            if isinstance(given, str)
            else [address(value, _local(value, workflows)) for value in given]
            for name, given in files.items()
        }
        changes["inputs"] = {**request.inputs, **sent}
    if all(fields.get(name) == value for name, value in changes.items()):
        return content
    return json.dumps(finite({**fields, **changes})).encode()


def _local(value: str, workflows: Workflows) -> Path | None:
    return None if is_address(value) else workflows.files.find(value)


def _digest(file: Path) -> str:
    try:
        with file.open("rb") as content:
            return hashlib.file_digest(content, "sha256").hexdigest()
    except OSError as error:
        raise MissingAsset(f"{file} cannot be read: {error.strerror}") from error


def _send(s3: S3Client, address: S3Address, file: Path) -> int:
    """Send a file unless it is there; returns how many bytes were sent."""
    size_bytes = file.stat().st_size
    if _is_there(s3, address, size_bytes):
        return 0
    content_type = type_of_name(file.name) or UNKNOWN_TYPE
    s3.upload_file(str(file), address.bucket, address.key, ExtraArgs={"ContentType": content_type})
    return size_bytes


def _copy(s3: S3Client, bucket: str, source: str, target: str) -> None:
    s3.copy({"Bucket": bucket, "Key": source}, bucket, target)


def _is_there(s3: S3Client, address: S3Address, size_bytes: int) -> bool:
    from botocore.exceptions import ClientError

    try:
        head = s3.head_object(Bucket=address.bucket, Key=address.key)
    except ClientError as error:
        # Without s3:ListBucket S3 says of what is not there that it may not be read.
        if trouble_of(error) in {Trouble.MISSING, Trouble.DENIED}:
            return False
        raise
    return head["ContentLength"] == size_bytes and head["LastModified"] > datetime.now(UTC) - FRESH_FOR
