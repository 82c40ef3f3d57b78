"""Objects dropped into the input bucket become jobs: one each, or one for each line of a manifest.

    jobs/**.json, images/{workflow}/** ──► one job          batches/**.jsonl ──► a batch (`batches.keeper`)

Everything may come twice and be cut off anywhere: what is done is recognised, and only the rest is done then.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from botocore.exceptions import ClientError

from comfy_serverless.aws.dynamodb import now_text
from comfy_serverless.aws.s3 import S3Address, Trouble, copy_object, error_code, trouble_of
from comfy_serverless.batches.keeper import Keeper
from comfy_serverless.batches.manifest_text import HEAD_BYTES, is_in_lines, write_in_lines
from comfy_serverless.batches.refusals import check_buckets, refuse
from comfy_serverless.batches.store import Batch, BatchStatus
from comfy_serverless.errors import ComfyError, InvalidRequest, InvalidSetting
from comfy_serverless.jobs.document import JobStatus
from comfy_serverless.jobs.extra_data import split
from comfy_serverless.jobs.lines import manifest_address
from comfy_serverless.jobs.request import JobRequest
from comfy_serverless.jobs.reserved import Reserved
from comfy_serverless.jobs.result_file import result_address
from comfy_serverless.jobs.sources import DroppedObject
from comfy_serverless.jobs.stored_request import StoredRequest
from comfy_serverless.observability import about, log, rename
from comfy_serverless.table.dispatch import Workers
from comfy_serverless.table.job_state import JobExists, JobState, NewJob
from comfy_serverless.table.jobs import JobStore

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client

    from comfy_serverless.settings import Settings

MANIFESTS, MANIFEST_SUFFIX, MANIFEST_TYPE = "batches/", ".jsonl", "application/jsonl"


class NotThere(Exception):
    """The object that an event names has been deleted or replaced meanwhile."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Drops:
    """Takes dropped objects. Requests and copies of manifests are kept in the `assets_bucket`."""

    jobs: JobStore
    workers: Workers
    s3: S3Client
    settings: Settings
    assets_bucket: str
    keeper: Keeper

    def drop(self, dropped: DroppedObject) -> None:
        """Take a dropped object."""
        key = dropped.address.key
        if key.startswith(MANIFESTS) and key.lower().endswith(MANIFEST_SUFFIX):
            try:
                self.begin_batch(dropped)
            except InvalidRequest as error:  # as a whole: a batch of bad lines would help nobody
                self._refuse(dropped, dropped.default_id, error, labels=dropped.labels)
        else:
            with about(dropped.default_id):
                self._submit(dropped)

    def _submit(self, dropped: DroppedObject) -> None:
        """Make a job of an object; one that is no request becomes a failed job, with a result that says why."""
        job_id = dropped.default_id
        try:
            request = dropped.read(s3=self.s3, settings=self.settings)
            Reserved.of(self.settings).check(request, job_id=request.job_id or job_id)
        except ComfyError as error:
            if error.retryable:
                raise
            self._refuse(dropped, job_id, error, labels=dropped.labels)
            return
        job_id = request.job_id or job_id
        rename(job_id)
        request = request.model_copy(update={"job_id": job_id, "metadata": {**dropped.labels, **request.metadata}})
        try:
            check_buckets(request, s3=self.s3, settings=self.settings)
        except ComfyError as error:
            self._refuse(dropped, job_id, error, labels=request.metadata)
            return
        _, secrets = split(request.extra_data)
        job = self._job(job_id, self._keep(job_id, request), request, labels=request.metadata)
        try:
            state = self.jobs.submit(replace(job, is_rerunnable=not secrets))
        except JobExists:
            standing = self.jobs.read(job_id)
            if standing is None or standing.runs > 0 or standing.status is not JobStatus.QUEUED:
                return
            state = standing  # the event came twice, or we were cut off before the job was sent
        else:
            log.info("a dropped object is taken as a job", source=str(dropped.address))
        self.workers.send(replace(state.message, extra_data=secrets))
        self.jobs.dispatched(state.id)

    def _refuse(self, dropped: DroppedObject, job_id: str, error: ComfyError, *, labels: Mapping[str, str]) -> None:
        if self.settings.output_bucket in (None, dropped.origin_bucket):
            raise error
        job = self._job(job_id, str(dropped.address), None, labels=labels)
        refuse(job, error, submit=self._submit_or_find, jobs=self.jobs, s3=self.s3)

    def _submit_or_find(self, job: NewJob) -> JobState | None:
        try:
            return self.jobs.submit(job)
        except JobExists:
            return self.jobs.read(job.job_id)

    def _job(self, job_id: str, request_uri: str, request: JobRequest | None, *, labels: Mapping[str, str]) -> NewJob:
        return NewJob(
            job_id=job_id,
            owner=self.settings.drop_owner,
            request_uri=request_uri,
            result_uri=str(result_address(job_id, request.output if request else None, self.settings)),
            labels=labels,
        )

    def _keep(self, job_id: str, request: JobRequest) -> str:
        """Store a request; returns its address. Another request for an existing job replaces nothing."""
        stored = StoredRequest(request, request.workflow)
        name = f"{job_id}-{hashlib.sha256(stored.to_bytes()).hexdigest()[:16]}"
        address = S3Address(self.assets_bucket, f"requests/{self.settings.drop_owner}/{name}.json")
        stored.write(self.s3, address)
        return str(address)

    def begin_batch(self, dropped: DroppedObject) -> Batch:
        """Keep a copy of a manifest, write the batch, and have its ranges read."""
        batch_id = dropped.default_id
        if self.settings.output_bucket == dropped.origin_bucket:
            raise InvalidSetting(
                f"OUTPUT_BUCKET is the input bucket {dropped.origin_bucket!r}: reports would come back"
            )
        if (standing := self.keeper.batches.get(batch_id)) is not None:
            return standing  # `advance` does what was left to do
        copy = manifest_address(self.assets_bucket, batch_id)
        batch = Batch(
            id=batch_id,
            owner=self.settings.drop_owner,
            source=str(dropped.address),
            manifest=str(copy),
            size_bytes=self._take(dropped.address, copy),
            status=BatchStatus.RUNNING,
            created_at=now_text(),
        )
        self.keeper.begin(batch)
        return batch

    def _take(self, source: S3Address, copy: S3Address) -> int:
        """Copy a manifest, and put it in lines if it is not; returns its size then."""
        if is_in_lines(self._beginning(source)):
            return self._copy(source, copy)
        as_it_came = S3Address(copy.bucket, f"{copy.key}.as-it-came")
        size_bytes = self._copy(source, as_it_came)
        return write_in_lines(self.s3, as_it_came, copy, size_bytes=size_bytes, called=f"the manifest {source}")

    def _beginning(self, source: S3Address) -> bytes:
        try:
            answer = self.s3.get_object(Bucket=source.bucket, Key=source.key, Range=f"bytes=0-{HEAD_BYTES - 1}")
        except ClientError as error:
            if trouble_of(error) is Trouble.MISSING:
                raise NotThere(f"{source} was deleted or replaced while it was taken") from error
            if error_code(error) == "InvalidRange":  # it has no bytes
                return b""
            raise
        return answer["Body"].read()

    def _copy(self, source: S3Address, copy: S3Address) -> int:
        """Copy it as it is now, however large; returns its size."""
        try:
            head = self.s3.head_object(Bucket=source.bucket, Key=source.key)
            copy_object(self.s3, source, copy, etag=head["ETag"], content_type=MANIFEST_TYPE)
        except ClientError as error:
            if trouble_of(error) in {Trouble.MISSING, Trouble.OCCUPIED}:
                raise NotThere(f"{source} was deleted or replaced while it was taken") from error
            raise
        return head["ContentLength"]
