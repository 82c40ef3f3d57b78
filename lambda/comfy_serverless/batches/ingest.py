"""What is dropped into the input bucket becomes jobs: one, or as many as a manifest has lines.

    jobs/**.json, images/{workflow}/** ──► one job          batches/**.jsonl ──► batch ──► ranges ──► jobs ──► report

Everything may come twice, and be cut off anywhere: what is done is found done, and the rest is done then.
"""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TYPE_CHECKING

from botocore.exceptions import ClientError

from comfy_serverless.aws.dynamodb import now_text
from comfy_serverless.aws.s3 import S3Address, error_code
from comfy_serverless.aws.sqs import JobQueue
from comfy_serverless.batches.reading import THREADS, Reading
from comfy_serverless.batches.report import Fate, fates, write_part, write_report
from comfy_serverless.batches.store import LOOK_EVERY_S, Batch, BatchStatus, BatchStore, Range
from comfy_serverless.errors import ComfyError, InvalidSetting
from comfy_serverless.jobs.document import JobStatus
from comfy_serverless.jobs.keys import KeyAllotment
from comfy_serverless.jobs.lines import ranges_of
from comfy_serverless.jobs.request import JobRequest
from comfy_serverless.jobs.result_file import ResultFile
from comfy_serverless.jobs.sources import DroppedObject
from comfy_serverless.observability import emit_failure, log
from comfy_serverless.table.dispatch import Workers
from comfy_serverless.table.job_state import JobExists, JobState, NewJob
from comfy_serverless.table.jobs import JobStore
from comfy_serverless.worker.record import JobRecord

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client
    from mypy_boto3_stepfunctions import SFNClient

    from comfy_serverless.settings import Settings

MANIFESTS, MANIFEST_SUFFIX = "batches/", ".jsonl"
#: How often who looks after a batch says so, in seconds.
RENEW_EVERY_S = 20.0
#: Of a manifest, for one reader.
RANGE_BYTES = 4 * 1024 * 1024
#: Of a manifest: an execution of the state machine is told of all of them in 256 KB.
MAX_RANGES = 10_000


class NotThere(Exception):
    """What an event names has been deleted or replaced meanwhile."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Ingest:
    """Takes what is dropped, and looks after batches.

    Attributes:
        own_queue: where messages to ourselves go.
        assets_bucket: where requests and copies of manifests are kept.
        output_bucket: where results and reports go unless a request says otherwise.
        step_functions: starts the state machine that reads large manifests; None if there is none.
    """

    jobs: JobStore
    batches: BatchStore
    workers: Workers
    own_queue: JobQueue
    s3: S3Client
    settings: Settings
    assets_bucket: str
    output_bucket: str
    step_functions: SFNClient | None = None

    # One object.

    def drop(self, dropped: DroppedObject) -> None:
        """Take an object that has been dropped."""
        key = dropped.address.key
        if key.startswith(MANIFESTS) and key.lower().endswith(MANIFEST_SUFFIX):
            self.begin_batch(dropped)
        else:
            self._submit(dropped)

    def _submit(self, dropped: DroppedObject) -> None:
        """One object, one job; what is no job is one that has failed, with a result that says why."""
        job_id = dropped.default_id
        try:
            request = dropped.read(s3=self.s3, settings=self.settings)
        except ComfyError as error:
            if error.retryable:
                raise
            self._refuse(dropped, job_id, error)
            return
        job_id = request.job_id or job_id
        request = request.model_copy(update={"job_id": job_id, "metadata": {**dropped.labels, **request.metadata}})
        job = self._job(job_id, self._keep(job_id, request), request)
        try:
            state = self.jobs.submit(job)
        except JobExists:
            standing = self.jobs.read(job_id)
            if standing is None or standing.runs > 0 or standing.status is not JobStatus.QUEUED:
                return
            state = standing  # the event came twice, or we were cut off before it was sent
        self.workers.send(state.id, state.request)
        self.jobs.dispatched(state.id)

    def _refuse(self, dropped: DroppedObject, job_id: str, error: ComfyError) -> None:
        record = JobRecord(job_id=job_id, metadata=dict(dropped.labels))
        if self.output_bucket == dropped.origin_bucket:
            raise error
        job = self._job(job_id, str(dropped.address), None)
        record.result = ResultFile(self.s3, S3Address.parse(job.result_uri))
        record.result.write(record.document(error))
        try:
            state = self.jobs.submit(job)
        except JobExists:
            return
        self.jobs.fail(state, error)
        emit_failure(error.code)
        log.warning("a dropped object is no job", job_id=job_id, source=str(dropped.address), code=error.code)

    def _job(self, job_id: str, request_uri: str, request: JobRequest | None) -> NewJob:
        bucket = (request.output.bucket if request else None) or self.output_bucket
        given = request.output.prefix if request else None
        prefix = self.settings.output_prefix if given is None else given
        return NewJob(
            job_id=job_id,
            owner=self.settings.drop_owner,
            request_uri=request_uri,
            result_uri=str(S3Address(bucket, KeyAllotment(prefix, job_id).result_key)),
            labels=request.metadata if request else {},
        )

    def _keep(self, job_id: str, request: JobRequest) -> str:
        """Write a request down; answers where. Another one for a job that is there replaces nothing."""
        document = {"request": request.model_dump(mode="json", by_alias=True), "workflow": request.workflow}
        content = json.dumps(document, ensure_ascii=False).encode("utf-8", "replace")
        name = f"{job_id}-{hashlib.sha256(content).hexdigest()[:16]}"
        address = S3Address(self.assets_bucket, f"requests/{self.settings.drop_owner}/{name}.json")
        self.s3.put_object(Bucket=address.bucket, Key=address.key, Body=content, ContentType="application/json")
        return str(address)

    # A manifest.

    def begin_batch(self, dropped: DroppedObject) -> Batch:
        """Keep a copy of a manifest, write the batch down, and have its ranges read."""
        batch_id = dropped.default_id
        if self.output_bucket == dropped.origin_bucket:
            raise InvalidSetting(
                f"OUTPUT_BUCKET is the input bucket {dropped.origin_bucket!r}: reports would come back"
            )
        if (standing := self.batches.get(batch_id)) is not None:
            return standing  # what was left to do then, `look` does
        copy = S3Address(self.assets_bucket, f"requests/batches/{batch_id}.jsonl")
        batch = Batch(
            id=batch_id,
            owner=self.settings.drop_owner,
            source=str(dropped.address),
            manifest=str(copy),
            size_bytes=self._copy(dropped.address, copy),
            status=BatchStatus.RUNNING,
            created_at=now_text(),
        )
        ranges = ranges_of(batch.size_bytes, step_bytes=max(RANGE_BYTES, -(-batch.size_bytes // MAX_RANGES)))
        self.batches.create(batch, ranges)
        self._have_read(batch, [start for start, _ in ranges])
        return batch

    def _copy(self, source: S3Address, copy: S3Address) -> int:
        """Copy it as it is now, however large; answers its size."""
        try:
            head = self.s3.head_object(Bucket=source.bucket, Key=source.key)
            self.s3.copy(
                CopySource={"Bucket": source.bucket, "Key": source.key},
                Bucket=copy.bucket,
                Key=copy.key,
                ExtraArgs={"CopySourceIfMatch": head["ETag"]},
            )
        except ClientError as error:
            if error_code(error) in {"404", "NoSuchKey", "NotFound", "PreconditionFailed", "412"}:
                raise NotThere(f"{source} was deleted or replaced while it was taken") from error
            raise
        return head["ContentLength"]

    def _have_read(self, batch: Batch, starts: list[int]) -> None:
        machine, is_large = self.settings.batch_state_machine, batch.size_bytes >= self.settings.batch_map_bytes
        if machine is not None and self.step_functions is not None and is_large:
            order = json.dumps({"batch": batch.id, "starts": starts})
            begun = self.step_functions.start_execution(stateMachineArn=machine, input=order)
            self.batches.read_by(batch.id, begun["executionArn"])
            return
        self.own_queue.send_many([json.dumps({"batch": batch.id, "start": start}) for start in starts])

    def _is_being_read(self, batch: Batch) -> bool:
        """Whether ranges that nobody reads will have their turn: they wait in our queue, or in the state machine."""
        if self.own_queue.depth() > 0:
            return True
        if batch.execution is None or self.step_functions is None:
            return False
        try:
            execution = self.step_functions.describe_execution(executionArn=batch.execution)
        except ClientError as error:
            if error_code(error) == "ExecutionDoesNotExist":
                return False
            raise
        return execution["status"] == "RUNNING"

    def read(self, batch_id: str, start: int, *, until: float, now: Callable[[], float] = time.monotonic) -> bool:
        """Read a range on; answers whether nothing is left of it for us."""
        batch = self.batches.get(batch_id)
        part = self.batches.range_at(batch_id, start)
        if batch is None or part is None or part.is_read or batch.status is not BatchStatus.RUNNING:
            return True
        return self._reading().read(batch, part, until=until, now=now)

    def read_or_pass_on(self, batch_id: str, start: int, *, until: float) -> None:
        """Read a range, and have somebody else read on what the time does not allow."""
        if not self.read(batch_id, start, until=until):
            self.own_queue.send(json.dumps({"batch": batch_id, "start": start}))

    # Looking after a batch.

    def look(self, batch_id: str, *, until: float, now: Callable[[], float] = time.monotonic) -> None:
        """See how far a batch has come: have the rest read, and report on what has ended. One does so at a time."""
        batch = self.batches.get(batch_id)
        if batch is None or batch.report is not None or not self.batches.begin_look(batch.id):
            return
        try:
            self._look(batch, until=until, now=now)
        finally:
            self.batches.end_look(batch.id)

    def _look(self, batch: Batch, *, until: float, now: Callable[[], float]) -> None:
        ranges = self.batches.ranges(batch.id)
        self._read_on(batch, ranges)
        settled = self._settle(batch, ranges, until=until, now=now)
        for part in ranges:
            if part.is_told:
                continue
            if part.end > settled or now() >= until:
                return
            if (open_at := write_part(self.s3, self.jobs, batch, part)) is not None:
                self.batches.go_on_looking(batch, open_at)  # what ends there is seen by the next look
                return
            self.batches.told(batch.id, part)
            self.batches.go_on_looking(batch, settled)
        if settled < batch.size_bytes:
            return
        self.batches.go_on_looking(batch, settled, for_s=max(LOOK_EVERY_S, len(ranges)))
        report = write_report(self.s3, batch, ranges, bucket=self.output_bucket, prefix=self.settings.output_prefix)
        if self.batches.complete(batch, report):
            log.info("the batch has ended", batch=batch.id, report=report)

    def _read_on(self, batch: Batch, ranges: list[Range]) -> None:
        """Have those ranges read that nobody reads: their message is lost, or the batch was paused."""
        abandoned = [part.start for part in ranges if part.is_abandoned]
        if abandoned and batch.status is BatchStatus.RUNNING and not self._is_being_read(batch):
            self._have_read(batch, abandoned)

    def _settle(self, batch: Batch, ranges: list[Range], *, until: float, now: Callable[[], float]) -> int:
        """Find the first line whose job has not ended; answers where it begins: at the end, if there is none.

        In a canceled batch, jobs end here that nobody has begun.
        """
        settled, renewed = batch.settled, now()
        is_canceled = batch.status is BatchStatus.CANCELED
        limit = batch.size_bytes
        if not is_canceled:
            limit = min((part.offset for part in ranges if not part.is_read), default=limit)
        for chunk in fates(self.s3, self.jobs, batch, start=settled, end=limit):
            ended = self._end_unbegun(batch, chunk) if is_canceled else frozenset()
            for fate in chunk:
                is_open = fate.is_open and fate.state is not None and fate.state.id not in ended
                if is_open or (fate.is_missing and not is_canceled):
                    self._help(batch, fate)
                    self.batches.go_on_looking(batch, fate.line.offset)
                    return fate.line.offset
                settled = fate.line.end
            if now() >= until:
                break
            if now() - renewed >= RENEW_EVERY_S:
                self.batches.go_on_looking(batch, settled)
                renewed = now()
        else:
            settled = max(settled, limit)  # blank lines at the end
        self.batches.go_on_looking(batch, settled)
        return settled

    def _help(self, batch: Batch, fate: Fate) -> None:
        """See to the first line that is open, if it has nobody else."""
        if batch.status is not BatchStatus.RUNNING:
            return
        if fate.is_missing:  # it was another batch's, 30 days ago, and was forgotten; what it made may stand yet
            self._reading().submit(batch, [fate.line])
        elif fate.state is not None and fate.state.is_parked:  # somebody met its message just before the resume
            self._resume_at(batch, fate.line.offset)

    def _end_unbegun(self, batch: Batch, chunk: list[Fate]) -> frozenset[str]:
        """End the jobs of a canceled batch that nobody has begun and no other batch wants; answers which."""
        unbegun = [fate.state for fate in chunk if fate.state is not None and fate.state.is_unbegun]
        others = {other for state in unbegun for other in state.batches - {batch.id}}
        going_on = {other for other in others if self._goes_on(other)}
        mine = [state for state in unbegun if state.is_of_batch and not state.batches & going_on]
        with ThreadPoolExecutor(THREADS, thread_name_prefix="end") as pool:
            are_ended = list(pool.map(self.jobs.cancel_unbegun, mine))
        return frozenset(state.id for state, is_ended in zip(mine, are_ended, strict=True) if is_ended)

    def _goes_on(self, batch_id: str) -> bool:
        batch = self.batches.get(batch_id)
        return batch is not None and batch.status in (BatchStatus.RUNNING, BatchStatus.PAUSED)

    # What people want of it.

    def _resume_at(self, batch: Batch, offset: int) -> None:
        self.own_queue.send(json.dumps({"batch": batch.id, "resume": True, "start": offset}))

    def resume(self, batch_id: str, *, start: int = 0, until: float, now: Callable[[], float] = time.monotonic) -> None:
        """Send again what was parked, from a line on, and have the rest read. What the time does not allow, later."""
        batch = self.batches.get(batch_id)
        if batch is None or batch.status is not BatchStatus.RUNNING:
            return
        self._read_on(batch, self.batches.ranges(batch_id))
        for chunk in fates(self.s3, self.jobs, batch, start=max(start, batch.settled)):
            if now() >= until:
                self._resume_at(batch, chunk[0].line.offset)
                return
            self._unpark([fate.state for fate in chunk if fate.state is not None and fate.state.is_parked])

    def _unpark(self, parked: list[JobState]) -> None:
        """Sent first: what is cut off in between is sent twice, and runs once."""
        self.workers.send_many([(state.id, state.request) for state in parked])
        with ThreadPoolExecutor(THREADS, thread_name_prefix="unpark") as pool:
            list(pool.map(lambda state: self.jobs.unpark(state.id), parked))

    def _reading(self) -> Reading:
        return Reading(
            jobs=self.jobs,
            batches=self.batches,
            workers=self.workers,
            s3=self.s3,
            settings=self.settings,
            output_bucket=self.output_bucket,
        )
