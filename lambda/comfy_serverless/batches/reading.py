"""From lines to jobs in the queue, a chunk at a time.

    range ──► chunk of lines ──► jobs (written if they are not there) ──► messages ──► how far the range is read

Cut off anywhere, the chunk is read once more: jobs that are there are sent again unless they have begun, and a job that
is sent twice runs once.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from comfy_serverless.batches.manifest import address_of, in_chunks, read_lines, request_in
from comfy_serverless.batches.store import Batch, BatchStatus, BatchStore, Range
from comfy_serverless.errors import InvalidRequest
from comfy_serverless.jobs.lines import Line
from comfy_serverless.jobs.request import JobRequest
from comfy_serverless.jobs.result_file import result_address
from comfy_serverless.observability import log
from comfy_serverless.table.job_state import JobState, NewJob
from comfy_serverless.table.jobs import JobStore

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client

    from comfy_serverless.settings import Settings
    from comfy_serverless.table.dispatch import Workers

#: Lines of a chunk: so many are done again where reading was cut off.
CHUNK_LINES = 200
#: Writes at once.
THREADS = 16
#: Characters of what is wrong with a line.
MAX_MESSAGE_CHARACTERS = 2000


@dataclass(frozen=True, slots=True, kw_only=True)
class Reading:
    """Makes jobs of a manifest's lines."""

    jobs: JobStore
    batches: BatchStore
    workers: Workers
    s3: S3Client
    settings: Settings

    def read(self, batch: Batch, part: Range, *, until: float, now: Callable[[], float] = time.monotonic) -> bool:
        """Read a range on, from where it was left.

        Returns:
            Whether nothing is left for the caller: it is read, or somebody else reads it, or nobody shall.
        """
        lines = read_lines(self.s3, batch, start=part.offset, end=part.end)
        for chunk in in_chunks(lines, CHUNK_LINES):
            wanted = self.batches.get(batch.id)
            if wanted is None or wanted.status is not BatchStatus.RUNNING:
                log.info("the batch is not to be read on", batch=batch.id)
                return True
            bad = self.submit(batch, chunk)
            after = replace(part, offset=chunk[-1].end, lines=part.lines + len(chunk), bad=part.bad + len(bad))
            if not self.batches.mark_read(batch.id, part, after, bad):
                log.info("somebody else reads this range", batch=batch.id, start=part.start)
                return True
            part = after
            if now() >= until:
                return part.is_read
        if not part.is_read:  # nothing but blank lines, or the rest of a line that began before
            self.batches.mark_read(batch.id, part, replace(part, offset=part.end), [])
        return True

    def submit(self, batch: Batch, chunk: Sequence[Line]) -> list[tuple[int, str]]:
        """Make jobs of a chunk; answers which of its lines are bad, and why."""
        good: dict[str, tuple[Line, JobRequest]] = {}
        bad: list[tuple[int, str]] = []
        for line in chunk:
            try:
                request = request_in(line, batch)
            except InvalidRequest as error:
                bad.append((line.offset, error.message[:MAX_MESSAGE_CHARACTERS]))
            else:
                good.setdefault(str(request.job_id), (line, request))
        with ThreadPoolExecutor(THREADS, thread_name_prefix="submit") as pool:
            states = list(pool.map(lambda pair: self.jobs.submit_of_batch(self._job(batch, *pair)), good.values()))
        self.send(states)
        return bad

    def send(self, states: Sequence[JobState]) -> None:
        """Send those jobs to their queue that nobody has begun."""
        self.workers.send_many([state.message for state in states if is_waiting(state)])

    def _job(self, batch: Batch, line: Line, request: JobRequest) -> NewJob:
        job_id = str(request.job_id)
        return NewJob(
            job_id=job_id,
            owner=batch.owner,
            request_uri=address_of(line, batch),
            result_uri=str(result_address(job_id, request.output, self.settings)),
            labels=request.metadata,
            batch=batch.id,
        )


def is_waiting(state: JobState) -> bool:
    """Whether nobody has begun a job of a batch."""
    return state.is_of_batch and state.may_begin
