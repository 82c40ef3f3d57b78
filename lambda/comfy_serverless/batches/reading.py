"""Manifests become jobs in the queue, a chunk of lines at a time, read from wherever the last reader has stopped.

    range ──► chunk of lines ──► jobs (written if they are not there) ──► messages ──► how far the range is read

A line of an owner's batch becomes what the API makes of a request (`jobs.runnable`), and its job is that owner's alone.

If it is cut off anywhere, the chunk is read once more: jobs that exist are sent again unless they have begun, and a job
that is sent twice runs once.
"""

from __future__ import annotations

import json
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from comfy_serverless import tracing
from comfy_serverless.aws.s3 import S3Address
from comfy_serverless.batches.batch import Batch, BatchStatus
from comfy_serverless.batches.line_requests import request_in
from comfy_serverless.batches.owned import taken, used, with_label
from comfy_serverless.batches.pinning import pin
from comfy_serverless.batches.ranges import MAX_DRAWING, MAX_STEADY, BadLine, Range, is_drawing, workflow_key
from comfy_serverless.batches.refusals import check_buckets, refuse
from comfy_serverless.batches.store import BatchStore
from comfy_serverless.errors import ComfyError, InvalidRequest
from comfy_serverless.graph.chance import draws, rolls
from comfy_serverless.graph.file_inputs import is_address
from comfy_serverless.jobs.buckets import Buckets
from comfy_serverless.jobs.line_ids import Question
from comfy_serverless.jobs.lines import Line, LineAddress, lines_in_range, named_lines_address, stored_lines_address
from comfy_serverless.jobs.named import NamedWorkflows, expanded
from comfy_serverless.jobs.named_lines import named as named_line
from comfy_serverless.jobs.request import JobRequest
from comfy_serverless.jobs.reserved import Reserved
from comfy_serverless.jobs.result_file import result_address
from comfy_serverless.jobs.runnable import place_of, runnable
from comfy_serverless.jobs.stored_request import IN_A_LINE, version_of
from comfy_serverless.jobs.workflow_source import resolve_workflow
from comfy_serverless.observability import log
from comfy_serverless.table.job_state import JobExists, JobState, NewJob, UsedForAnother
from comfy_serverless.table.jobs import JobStore

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client

    from comfy_serverless.jobs.request import OutputTarget
    from comfy_serverless.jobs.runnable import Behind
    from comfy_serverless.settings import Settings
    from comfy_serverless.table.workers import Workers

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
class Chunk:
    """Lines that follow each other, without blank ones.

    Attributes:
        end: where the next line begins, in bytes.
        number: the number of the last line, blank or not, among those that are read (`Line.number`).
    """

    lines: list[Line]
    end: int
    number: int


@dataclass(frozen=True, slots=True)
class _Asked:
    """A line with a request.

    Attributes:
        request: of a named workflow, with the version that it runs (`batches.pinning`).
        is_named: whether workers read it beside the manifest, with its job's id (`jobs.named_lines`).
        refusal: why it is refused; None if it is not.
        stored: what workers get of it instead, of a line of an owner's batch.
        asked_sha256: as in `LineRequest`.
    """

    line: Line
    request: JobRequest
    is_named: bool
    refusal: ComfyError | None
    stored: bytes | None = None
    asked_sha256: str | None = None

    @property
    def pin(self) -> str | None:
        """The name of its workflow as workers read it; None for any other workflow."""
        return str(self.request.workflow) if self.request.is_named else None


@dataclass(slots=True)
class _Drawing:
    """Finds the workflows, outside of a range's lines, that have something random; each is looked at once.

    What is found is remembered with the range (`Range.drawing`, `Range.steady`).
    """

    find: Callable[[str], bool]
    drawing: frozenset[str]
    steady: frozenset[str]

    def __call__(self, workflow: str) -> bool:
        key = workflow_key(workflow)
        is_known = key in self.drawing or key in self.steady
        if is_known or len(self.drawing) >= MAX_DRAWING or len(self.steady) >= MAX_STEADY:
            return is_drawing(workflow, self.drawing, self.steady)
        if self.find(workflow):
            self.drawing |= {key}
            return True
        self.steady |= {key}
        return False


@dataclass(frozen=True, slots=True, kw_only=True)
class BatchReader:
    """Makes jobs of a manifest's lines.

    Attributes:
        named: the workflows that lines may name.
        behind: what is asked about lines of owners' batches; None where there are none.
    """

    jobs: JobStore
    batches: BatchStore
    workers: Workers
    s3: S3Client
    settings: Settings
    named: NamedWorkflows
    behind: Callable[[], Behind] | None = None

    def read_range(self, batch: Batch, part: Range, *, until: float, now: Callable[[], float] = time.monotonic) -> bool:
        """Go on reading a range. Returns True if it is read, if another function reads it, or if it must not be."""
        with tracing.span("read manifest", kind=tracing.Kind.CONSUMER, is_root=True, batch_id=batch.id):
            return self._read_range(batch, part, until=until, now=now)

    def _read_range(self, batch: Batch, part: Range, *, until: float, now: Callable[[], float]) -> bool:
        lines = read_lines(self.s3, batch, start=part.offset, end=part.end)
        drawing = _Drawing(lambda workflow: self._draws(batch, workflow), part.drawing, part.steady)
        draws = drawing if part.has_ids_of_places else None
        begun, at_first = part.begun, part
        for chunk in in_chunks(lines, CHUNK_LINES):
            wanted = self.batches.get(batch.id)
            if wanted is None or wanted.status is not BatchStatus.RUNNING:
                log.info("the batch must not be read further", batch=batch.id)
                if wanted is not None and wanted.status is BatchStatus.PAUSED:
                    self.batches.leave(batch.id, part)
                return True
            if wanted.cut is not None and part is not at_first:  # the first chunk may have jobs: see `Keeper.read`
                self.batches.cut_range(batch.id, part)
                return True
            bad = [
                replace(one, line=None if begun is None or one.line is None else begun + one.line)
                for one in self.submit(batch, chunk.lines, draws=draws)
            ]
            after = replace(
                part,
                offset=chunk.end,
                lines=part.lines + len(chunk.lines),
                bad=part.bad + len(bad),
                begun=None if begun is None else begun + chunk.number,
                drawing=drawing.drawing,
                steady=drawing.steady,
            )
            if not self.batches.mark_read(batch, part, after, bad):
                log.info("another function reads this range", batch=batch.id, start=part.start)
                return True
            part = after
            self._count_bad(batch, len(bad))
            if now() >= until:
                return part.is_read
        if not part.is_read:  # only the rest of a line that began before is left
            self.batches.mark_read(batch, part, replace(part, offset=part.end), [])
        return True

    def _count_bad(self, batch: Batch, count: int) -> None:
        """Have no more of a manifest read that has too many bad lines: each costs an item of the table."""
        most = self.settings.max_bad_lines
        if count and self.batches.count_bad(batch.id, count) >= most:
            log.warning("the rest of a manifest is not read: it has too many bad lines", batch=batch.id, most=most)
            self.batches.cut(
                batch.id,
                f"{most:,} lines were no requests: the rest of the manifest is not read. The others run as ever; mend "
                "the manifest, and send it again: lines that have run do not run twice, unless they draw a seed",
            )

    def submit(self, batch: Batch, lines: Sequence[Line], *, draws: Callable[[str], bool] | None) -> list[BadLine]:
        """Make jobs of lines; returns the bad ones, with their numbers among these. `draws`: see `request_in`."""
        found: dict[tuple[str, str | None], _Asked] = {}
        bad: list[BadLine] = []
        reserved = Reserved.of(self.settings)
        # A name leads where it does now for all of these lines: they are few, and are read in a moment.
        named = self.named.remembering()
        for line in lines:
            try:
                asked = request_in(line, batch, reserved, draws=draws)
                request = asked.request
                key = (str(request.job_id), asked.asked_sha256)
                if key in found:
                    continue
                pinned = pin(request, named, owner=batch.owner)
            except InvalidRequest as error:
                message = error.message[:MAX_MESSAGE_CHARACTERS]
                bad.append(BadLine(offset=line.offset, line=line.number, message=message))
            else:
                is_named = asked.is_of_place or not asked.is_plain or pinned.workflow != request.workflow
                refusal = None if batch.is_owned else self._refusal(pinned, named, owner=batch.owner)
                found[key] = _Asked(line, pinned, is_named, refusal, asked_sha256=asked.asked_sha256)
        with ThreadPoolExecutor(THREADS, thread_name_prefix="submit") as pool:
            ready = [*found.values()]
            if batch.is_owned:
                ready = list(pool.map(lambda asked: self._as_of_the_api(batch, asked, named), ready))
            places = self._places(batch, ready)
            here = tracing.current()
            states: list[JobState | BadLine | None] = []
            for wave in _waves(ready):
                states += pool.map(lambda asked: self._traced(batch, asked, places[asked.line.offset], here), wave)
        self.workers.send_many([state.message for state in states if isinstance(state, JobState)])
        return sorted([*bad, *(state for state in states if isinstance(state, BadLine))], key=lambda one: one.offset)

    def _as_of_the_api(self, batch: Batch, asked: _Asked, named: NamedWorkflows) -> _Asked:
        """A line of an owner's batch as his request to the API: judged, and stored, in the same way."""
        if self.behind is None:
            raise AssertionError("this keeper was made without what owners' batches need")
        behind, job_id = self.behind(), str(asked.request.job_id)
        request = with_label(asked.request, batch)
        try:
            whole = expanded(named, request, owner=batch.owner, key=job_id, was_taken=True)
            document = json.loads(runnable(whole, batch.owner, behind, job_id=job_id).to_bytes())
        except ComfyError as error:
            if error.retryable:
                raise
            return replace(asked, request=request, refusal=error)
        if asked.request.is_named:
            document["pin"] = asked.request.workflow  # what another try runs (`pinning.Pins`)
        return replace(asked, request=request, stored=json.dumps(document).encode())

    def _draws(self, batch: Batch, question: str) -> bool:
        """Whether a workflow that is not in the request has something random (`line_ids.asks_for_chance`).

        Raises as S3 does not answer. One in a bucket that only workers may read counts as having none.
        """
        asked = Question.parse(question)
        workflow = asked.workflow
        try:
            if not is_address(workflow):
                return self.named.draws(asked, owner=batch.owner)
            here = {S3Address.parse(batch.source).bucket, self.settings.output_bucket}
            if S3Address.parse(workflow).bucket not in here:
                return False
            found = resolve_workflow(workflow, s3=self.s3, settings=self.settings)
            return rolls(found) if asked.is_of_texts else draws(found)
        except ComfyError as error:
            if error.retryable:
                raise
            return False  # no worker will find a workflow there either

    def _places(self, batch: Batch, asked: Iterable[_Asked]) -> dict[int, str]:
        """Where workers read the requests of lines, by the lines' offsets: in the manifest; or, with ids, beside it.

        A worker finds the id of a line in it, or makes it of its text. A line whose id is of its place, or that workers
        of older releases would not understand, is written once more (`jobs.named_lines`).
        """
        bucket = S3Address.parse(batch.manifest).bucket
        if batch.is_owned:
            return self._stored_places(batch, list(asked), bucket)
        places, content = {}, bytearray()
        lengths: dict[int, tuple[int, int]] = {}
        for one in asked:
            line = one.line
            places[line.offset] = LineAddress(bucket, batch.id, line.offset, line.length).to_text()
            if one.is_named:
                text, behind = named_line(line, str(one.request.job_id), workflow=one.pin)
                lengths[line.offset] = (len(content), len(text))
                content += text + b"\n" + behind + (b"\n" if behind else b"")
        if content:
            body = bytes(content)
            address = named_lines_address(bucket, body)
            self.s3.put_object(Bucket=address.bucket, Key=address.key, Body=body, ContentType="application/jsonl")
            places |= {at: f"{address}#{offset}-{length}" for at, (offset, length) in lengths.items()}
        return places

    def _stored_places(self, batch: Batch, asked: Sequence[_Asked], bucket: str) -> dict[int, str]:
        """Where workers read the requests that lines of an owner's batch have become: many in one object."""
        places = {
            one.line.offset: LineAddress(bucket, batch.id, one.line.offset, one.line.length).to_text() for one in asked
        }
        ready = [one for one in asked if one.stored is not None]
        while ready:
            content, lengths = bytearray(), dict[int, tuple[int, int]]()
            while ready and (not content or len(content) < _CHUNK_BYTES):
                one = ready.pop(0)
                text = one.stored or b""
                lengths[one.line.offset] = (len(content), len(text))
                content += text + b"\n"
            address = stored_lines_address(bucket, bytes(content))
            self.s3.put_object(
                Bucket=address.bucket, Key=address.key, Body=bytes(content), ContentType="application/jsonl"
            )
            places |= {at: f"{address}#{offset}-{length}" for at, (offset, length) in lengths.items()}
        return places

    def _refusal(self, request: JobRequest, named: NamedWorkflows, *, owner: str) -> ComfyError | None:
        try:
            is_suspect = request.is_named and Buckets.of(self.settings).names_foreign((request.values, request.inputs))
            whole = expanded(named, request, owner=owner, key=str(request.job_id)) if is_suspect else request
            check_buckets(whole, s3=self.s3, settings=self.settings)
        except ComfyError as error:
            if error.retryable:
                raise
            return error
        return None

    def _traced(
        self, batch: Batch, asked: _Asked, place: str, reading: tracing.Trace | None
    ) -> JobState | BadLine | None:
        """A line's job begins a trace of its own: that of a whole batch would be too long for anybody to show."""
        with tracing.span(
            "submit line",
            kind=tracing.Kind.PRODUCER,
            parent=tracing.Trace.of(asked.request.metadata),
            is_root=True,
            links=[reading],
            job_id=asked.request.job_id,
            batch_id=batch.id,
        ):
            return self._submit(batch, asked, place)

    def _submit(self, batch: Batch, asked: _Asked, place: str) -> JobState | BadLine | None:
        """Write the job of a line; returns it if it is to be sent, or the line if its id is taken."""
        output = asked.request.output if asked.refusal is None else None
        if batch.is_owned:
            output = place_of(batch.owner, self.settings, bucket=self.settings.output_bucket or "")
        job = self._job(batch, place, asked, output=output)
        try:
            if asked.refusal is not None:
                refuse(job, asked.refusal, submit=self.jobs.submit_of_batch, jobs=self.jobs, s3=self.s3)
                return None
            state = self.jobs.submit_of_batch(job)
        except JobExists as exists:
            message = used(job.job_id) if isinstance(exists, UsedForAnother) else taken(job.job_id)
            return BadLine(offset=asked.line.offset, line=asked.line.number, message=message)
        return state if state.is_of_batch and state.may_begin else None

    def _job(self, batch: Batch, place: str, asked: _Asked, *, output: OutputTarget | None) -> NewJob:
        request = asked.request
        job_id = str(request.job_id)
        is_beside = not place.startswith(f"{batch.manifest}#")
        return NewJob(
            job_id=job_id,
            owner=batch.owner,
            request_uri=place,
            result_uri=str(result_address(job_id, output, self.settings)),
            labels=request.metadata,
            batch=batch.id,
            line=f"{batch.id}#{asked.line.offset}" if is_beside else None,
            trace=tracing.current(),
            version=version_of(request) if asked.stored is None else IN_A_LINE,
            key_id=batch.key_id or "",
            asked_sha256=asked.asked_sha256,
        )


def _waves(asked: Sequence[_Asked]) -> list[list[_Asked]]:
    """Lines that may be submitted at once, one wave after the other: of those that name one job, the first has it."""
    waves: list[list[_Asked]] = []
    seen: Counter[str] = Counter()
    for one in asked:
        job_id = str(one.request.job_id)
        if seen[job_id] == len(waves):
            waves.append([])
        waves[seen[job_id]].append(one)
        seen[job_id] += 1
    return waves


def read_lines(s3: S3Client, batch: Batch, *, start: int, end: int) -> Iterator[Line]:
    """The lines that begin at `start` or later and before `end`, blank ones too; the first of them has the number 1.

    The connection is closed with the iterator.
    """
    if start >= end:
        return
    address = S3Address.parse(batch.manifest)
    answer = s3.get_object(Bucket=address.bucket, Key=address.key, Range=f"bytes={max(0, start - 1)}-")
    with closing(answer["Body"]) as body:
        yield from lines_in_range(body.iter_chunks(_READ_BYTES), start=start, end=end)


def in_chunks(lines: Iterator[Line], size: int) -> Iterator[Chunk]:
    """At most `size` lines at a time, and fewer if they are long. Only the last chunk may have none but blank lines."""
    chunk: list[Line] = []
    size_bytes, last = 0, None
    for line in lines:
        last = line
        if line.is_blank:
            continue
        chunk.append(line)
        size_bytes += line.length
        if len(chunk) >= size or size_bytes >= _CHUNK_BYTES:
            yield Chunk(chunk, line.end, line.number)
            chunk, size_bytes, last = [], 0, None
    if last is not None:
        yield Chunk(chunk, last.end, last.number)
