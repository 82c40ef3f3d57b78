"""Manifests become jobs in the queue, a chunk of lines at a time, read from wherever the last reader has stopped.

    range ──► chunk of lines ──► jobs (written if they are not there) ──► messages ──► how far the range is read

If it is cut off anywhere, the chunk is read once more: jobs that exist are sent again unless they have begun, and a job
that is sent twice runs once.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from comfy_serverless.aws.s3 import S3Address
from comfy_serverless.batches.refusals import check_buckets, refuse
from comfy_serverless.batches.store import Batch, BatchStatus, BatchStore, Range
from comfy_serverless.errors import ComfyError, InvalidRequest
from comfy_serverless.jobs.extra_data import split
from comfy_serverless.jobs.lines import Line, LineAddress, lines_in_range
from comfy_serverless.jobs.request import JobRequest
from comfy_serverless.jobs.reserved import Reserved
from comfy_serverless.jobs.result_file import result_address
from comfy_serverless.jobs.stored_request import request_of
from comfy_serverless.observability import log
from comfy_serverless.table.job_state import NewJob
from comfy_serverless.table.jobs import JobStore

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client

    from comfy_serverless.jobs.request import OutputTarget
    from comfy_serverless.settings import Settings
    from comfy_serverless.table.dispatch import Workers
    from comfy_serverless.table.job_state import JobState

#: Lines of a chunk: this many are read again if reading was cut off.
CHUNK_LINES = 200
#: Writes at once.
THREADS = 16
#: Characters of a bad line's message.
MAX_MESSAGE_CHARACTERS = 2000
_READ_BYTES = 256 * 1024
#: For the lines that are in memory at once; each may have some megabytes.
_CHUNK_BYTES = 8 * 1024 * 1024


@dataclass(frozen=True, slots=True)
class _Asked:
    """A line with a request, and why it is refused, if it is."""

    line: Line
    request: JobRequest
    refusal: ComfyError | None


@dataclass(frozen=True, slots=True, kw_only=True)
class BatchReader:
    """Makes jobs of a manifest's lines."""

    jobs: JobStore
    batches: BatchStore
    workers: Workers
    s3: S3Client
    settings: Settings

    def read_range(self, batch: Batch, part: Range, *, until: float, now: Callable[[], float] = time.monotonic) -> bool:
        """Go on reading a range. Returns True if it is read, if another function reads it, or if it must not be."""
        lines = read_lines(self.s3, batch, start=part.offset, end=part.end)
        for chunk in in_chunks(lines, CHUNK_LINES):
            wanted = self.batches.get(batch.id)
            if wanted is None or wanted.status is not BatchStatus.RUNNING:
                log.info("the batch must not be read further", batch=batch.id)
                return True
            bad = self.submit(batch, chunk)
            after = replace(part, offset=chunk[-1].end, lines=part.lines + len(chunk), bad=part.bad + len(bad))
            if not self.batches.mark_read(batch.id, part, after, bad):
                log.info("another function reads this range", batch=batch.id, start=part.start)
                return True
            part = after
            if now() >= until:
                return part.is_read
        if not part.is_read:  # only blank lines are left, or the rest of a line that began before
            self.batches.mark_read(batch.id, part, replace(part, offset=part.end), [])
        return True

    def submit(self, batch: Batch, chunk: Sequence[Line]) -> list[tuple[int, str]]:
        """Make jobs of a chunk; returns the bad lines' offsets and messages."""
        found: dict[str, _Asked] = {}
        bad: list[tuple[int, str]] = []
        reserved = Reserved.of(self.settings)
        for line in chunk:
            try:
                request = request_in(line, batch, reserved)
            except InvalidRequest as error:
                bad.append((line.offset, error.message[:MAX_MESSAGE_CHARACTERS]))
            else:
                if request.job_id not in found:
                    found[str(request.job_id)] = _Asked(line, request, self._refusal(request))
        with ThreadPoolExecutor(THREADS, thread_name_prefix="submit") as pool:
            states = list(pool.map(lambda asked: self._submit(batch, asked), found.values()))
        self.workers.send_many([state.message for state in states if state is not None])
        return bad

    def _refusal(self, request: JobRequest) -> ComfyError | None:
        try:
            check_buckets(request, s3=self.s3, settings=self.settings)
        except ComfyError as error:
            return error
        return None

    def _submit(self, batch: Batch, asked: _Asked) -> JobState | None:
        """Write the job of a line; returns it if it is to be sent."""
        output = asked.request.output if asked.refusal is None else None
        job = self._job(batch, asked.line, asked.request, output=output)
        if asked.refusal is not None:
            refuse(job, asked.refusal, submit=self.jobs.submit_of_batch, jobs=self.jobs, s3=self.s3)
            return None
        state = self.jobs.submit_of_batch(job)
        return state if state.is_of_batch and state.may_begin else None

    def _job(self, batch: Batch, line: Line, request: JobRequest, *, output: OutputTarget | None) -> NewJob:
        job_id = str(request.job_id)
        return NewJob(
            job_id=job_id,
            owner=batch.owner,
            request_uri=LineAddress(
                S3Address.parse(batch.manifest).bucket, batch.id, line.offset, line.length
            ).to_text(),
            result_uri=str(result_address(job_id, output, self.settings)),
            labels=request.metadata,
            batch=batch.id,
        )


def read_lines(s3: S3Client, batch: Batch, *, start: int, end: int | None = None) -> Iterator[Line]:
    """The lines that begin at `start` or later and before `end`, by default the manifest's, without blank ones.

    The connection is closed with the iterator.
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
    """At most `size` lines at a time, and fewer if they are long."""
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


def request_in(line: Line, batch: Batch, reserved: Reserved) -> JobRequest:
    """The request in a line.

    Raises InvalidRequest if there is none, if its results would come back as input, if it names what is the API's, or
    if it has keys.
    """
    request = request_of(line)
    if request.output.bucket == S3Address.parse(batch.source).bucket:
        raise InvalidRequest("`output.bucket` is the input bucket: every result would start a job again.")
    reserved.check(request, job_id=str(request.job_id))
    if secrets := split(request.extra_data)[1]:
        raise InvalidRequest(
            f"`extra_data` has {', '.join(sorted(secrets))}: a manifest is kept in S3, with a copy and a report; keys "
            "are not. Send jobs that need a key through the API."
        )
    return request
