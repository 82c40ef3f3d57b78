"""Objects dropped into the input bucket become jobs: one each, or one for each line of a manifest.

    jobs/**.json, images/{workflow}/** ──► one job          batches/**.jsonl ──► a batch (`batches.keeper`)

What counts is what was written when the event happened. A request is read, and a picture or a manifest copied, in that
version or not at all: what is written under the same key later is another drop.

Everything may come twice and be cut off anywhere: what is done is recognised, and only the rest is done then.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from comfy_serverless import tracing
from comfy_serverless.aws.dynamodb import now_text
from comfy_serverless.aws.s3 import S3Address
from comfy_serverless.batches.batch import Batch, BatchStatus
from comfy_serverless.batches.keeper import Keeper
from comfy_serverless.batches.owned import taken, used
from comfy_serverless.batches.refusals import check_buckets, refuse
from comfy_serverless.batches.taking import copy_whole, take
from comfy_serverless.errors import ComfyError, InvalidRequest, InvalidSetting, MissingAsset
from comfy_serverless.jobs.document import JobStatus
from comfy_serverless.jobs.drop_names import DropKind
from comfy_serverless.jobs.extra_data import split
from comfy_serverless.jobs.lines import manifest_address
from comfy_serverless.jobs.named import expanded
from comfy_serverless.jobs.request import JobRequest
from comfy_serverless.jobs.reserved import Reserved
from comfy_serverless.jobs.result_file import ResultFile, result_address
from comfy_serverless.jobs.sources import DroppedObject
from comfy_serverless.jobs.stored_request import StoredRequest
from comfy_serverless.observability import about, log, rename
from comfy_serverless.table.job_state import JobExists, JobState, NewJob
from comfy_serverless.table.jobs import JobStore
from comfy_serverless.table.workers import Workers

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client

    from comfy_serverless.settings import Settings


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
        """Take a dropped object. One that is no request and no manifest, or is gone, becomes a failed job."""
        with about(dropped.default_id):
            if dropped.kind is not DropKind.MANIFEST:
                self._submit(dropped)
                return
            try:
                self.begin_batch(dropped)
            except (InvalidRequest, MissingAsset) as error:
                self._refuse(dropped, dropped.default_id, error, labels=dropped.labels)

    def _submit(self, dropped: DroppedObject) -> None:
        """Make a job of an object; one that is no request becomes a failed job, with a result that says why."""
        job_id = dropped.default_id
        with tracing.span("submit drop", kind=tracing.Kind.PRODUCER, is_root=True, job_id=job_id):
            self._submit_as(job_id, dropped)

    def _submit_as(self, job_id: str, dropped: DroppedObject) -> None:
        try:
            request = self._read(dropped)
        except ComfyError as error:
            if error.retryable:
                raise
            self._refuse(dropped, job_id, error, labels=dropped.labels)
            return
        asked_sha256 = request.digest() if request.job_id is not None else None
        try:
            standing = self._check_id(request.job_id, asked_sha256)
        except InvalidRequest as error:
            self._refuse(dropped, job_id, error, labels={**dropped.labels, **request.metadata})
            return
        drop_id, job_id = job_id, request.job_id or job_id
        rename(job_id)
        request = request.model_copy(update={"job_id": job_id, "metadata": {**dropped.labels, **request.metadata}})
        prepared = self._prepared(dropped, request, asked_sha256)
        if prepared is None:
            return
        request = prepared
        try:
            if job_id != drop_id and standing is None:
                self._check_result(request)
        except InvalidRequest as error:
            self._refuse(dropped, drop_id, error, labels=request.metadata)
            return
        _, secrets = split(request.extra_data)
        job = self._job(job_id, self._keep(job_id, request), request, labels=request.metadata)
        try:
            state = self.jobs.submit(replace(job, is_rerunnable=not secrets, asked_sha256=asked_sha256))
        except JobExists:
            try:
                standing = self._check_id(job_id, asked_sha256)
            except InvalidRequest as error:  # it came between our look and our write
                self._refuse(dropped, drop_id, error, labels=request.metadata)
                return
            if standing is None or standing.runs > 0 or standing.status is not JobStatus.QUEUED:
                return
            state = standing  # the event came twice, or we were cut off before the job was sent
        else:
            log.info("a dropped object is taken as a job", source=str(dropped.address))
        self.workers.send(replace(state.message, extra_data=secrets))
        self.jobs.dispatched(state.id)

    def _prepared(self, dropped: DroppedObject, request: JobRequest, asked_sha256: str | None) -> JobRequest | None:
        """The request as its worker gets it; None if it is refused."""
        job_id = str(request.job_id)
        try:
            request = self._with_graph(request)
            check_buckets(request, s3=self.s3, settings=self.settings)
            if dropped.kind is DropKind.IMAGE:
                address = str(self._keep_file(dropped, job_id))
                request = request.model_copy(update={"inputs": dict.fromkeys(request.inputs, address)})
        except ComfyError as error:
            if error.retryable:
                raise
            self._refuse(dropped, job_id, error, labels=request.metadata, asked_sha256=asked_sha256)
            return None
        return request

    def _check_id(self, job_id: str | None, asked_sha256: str | None) -> JobState | None:
        """The job that has an id already, if any. Raises InvalidRequest if it is of another owner or request.

        The drop that brings such an id has its outcome under the id of its place.
        """
        standing = self.jobs.read(job_id) if job_id is not None else None
        if standing is not None and standing.owner != self.settings.drop_owner:
            raise InvalidRequest(taken(standing.id))
        if standing is not None and standing.is_of_another(asked_sha256):
            raise InvalidRequest(used(standing.id))
        return standing

    def _check_result(self, request: JobRequest) -> None:
        """Raise InvalidRequest if an id has the result of another request, of a job that the table has forgotten.

        A worker would answer with that result and a warning, which nobody reads here. In a bucket that the request
        names the worker alone may read.
        """
        if request.output.bucket not in (None, self.settings.output_bucket):
            return
        stored = ResultFile(self.s3, result_address(str(request.job_id), request.output, self.settings)).read()
        if stored is None or (stored.job.error is not None and stored.job.error.retryable):
            return
        if stored.job.answering(request.digest()) is not stored.job:
            raise InvalidRequest(f"{used(stored.job.id)} Its result stands: {stored.job.result_uri}.")

    def _read(self, dropped: DroppedObject) -> JobRequest:
        """The request that an object is, or stands for. Raises a ComfyError if there is none that may be run."""
        owned = replace(dropped, owner_name=self.settings.drop_owner)
        request = owned.read(s3=self.s3, settings=self.settings, named=self.keeper.named)
        Reserved.of(self.settings).check(request, job_id=request.job_id or dropped.default_id)
        return request

    def _with_graph(self, request: JobRequest) -> JobRequest:
        """A request with an id; of a named workflow, with the graph of the version that the name means now.

        What the graph names is judged as if it had been dropped itself, whoever has written the workflow.
        """
        job_id = str(request.job_id)
        whole = expanded(self.keeper.named, request, owner=self.settings.drop_owner, key=job_id)
        if whole is not request:
            Reserved.of(self.settings).check(whole, job_id=job_id)
        return whole

    def _refuse(
        self,
        dropped: DroppedObject,
        job_id: str,
        error: ComfyError,
        *,
        labels: Mapping[str, str],
        asked_sha256: str | None = None,
    ) -> None:
        if self.settings.output_bucket in (None, dropped.origin_bucket):
            raise error
        job = replace(self._job(job_id, str(dropped.address), None, labels=labels), asked_sha256=asked_sha256)
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
            trace=tracing.current(),
        )

    def _keep(self, job_id: str, request: JobRequest) -> str:
        """Store a request; returns its address. Another request for an existing job replaces nothing."""
        stored = StoredRequest(request, request.workflow)
        name = f"{job_id}-{hashlib.sha256(stored.to_bytes()).hexdigest()[:16]}"
        address = S3Address(self.assets_bucket, f"requests/{self.settings.drop_owner}/{name}.json")
        stored.write(self.s3, address)
        return str(address)

    def _keep_file(self, dropped: DroppedObject, job_id: str) -> S3Address:
        """Keep a copy of a dropped picture: the job may wait for hours, and meanwhile another one may be dropped."""
        name = dropped.address.key.rpartition("/")[2]
        copy = S3Address(self.assets_bucket, f"requests/{self.settings.drop_owner}/{job_id}/{name}")
        copy_whole(self.s3, dropped.address, copy, pin=dropped.pin)
        return copy

    def begin_batch(self, dropped: DroppedObject) -> Batch:
        """Keep a copy of a manifest, write the batch, and have its ranges read.

        Raises:
            MissingAsset: it is gone, or was replaced.
            InvalidRequest: it cannot be unpacked.
        """
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
            size_bytes=take(self.s3, dropped.address, copy, pin=dropped.pin),
            status=BatchStatus.RUNNING,
            created_at=now_text(),
        )
        self.keeper.begin(batch)
        return batch
