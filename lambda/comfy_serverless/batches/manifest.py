"""The manifest of a batch in S3, read from wherever somebody has stopped."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from typing import TYPE_CHECKING

from comfy_serverless.aws.s3 import S3Address
from comfy_serverless.errors import InvalidRequest
from comfy_serverless.jobs.line_address import LineAddress
from comfy_serverless.jobs.lines import Line, lines_in_range, request_of

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client

    from comfy_serverless.batches.store import Batch
    from comfy_serverless.jobs.request import JobRequest

_READ_BYTES = 256 * 1024
#: Of lines that are in memory at once; each may have some megabytes.
_CHUNK_BYTES = 8 * 1024 * 1024


def read_lines(s3: S3Client, batch: Batch, *, start: int, end: int | None = None) -> Iterator[Line]:
    """The lines that begin in a range, without blank ones. The connection is closed with the iterator.

    Args:
        start: the first byte that counts; a line that began before it does not.
        end: the first that counts no more; None for the end of the manifest.
    """
    end = batch.size_bytes if end is None else end
    if start >= end:
        return
    address = S3Address.parse(batch.manifest)
    answer = s3.get_object(Bucket=address.bucket, Key=address.key, Range=f"bytes={max(0, start - 1)}-")
    with closing(answer["Body"]) as body:
        for line in lines_in_range(body.iter_chunks(_READ_BYTES), start=start, end=end):
            if not line.is_blank:
                yield line


def in_chunks(lines: Iterator[Line], size: int) -> Iterator[list[Line]]:
    """So many lines at a time, and fewer where they are long."""
    chunk: list[Line] = []
    size_bytes = 0
    for line in lines:
        chunk.append(line)
        size_bytes += line.length
        if len(chunk) >= size or size_bytes >= _CHUNK_BYTES:
            yield chunk
            chunk, size_bytes = [], 0
    if chunk:
        yield chunk


def request_in(line: Line, batch: Batch) -> JobRequest:
    """What a line asks for, with its job's id.

    Raises:
        InvalidRequest: it is no request, or its results would come back as input.
    """
    request = request_of(line)
    if request.output.bucket == S3Address.parse(batch.source).bucket:
        raise InvalidRequest("`output.bucket` is the input bucket: every result would start a job again.")
    return request


def address_of(line: Line, batch: Batch) -> str:
    """Where a worker finds the line."""
    return LineAddress(S3Address.parse(batch.manifest).bucket, batch.id, line.offset, line.length).to_text()
