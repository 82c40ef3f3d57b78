"""`result.json`: once it exists, the job is complete and every file in it has been verified.

It is written last, and only if it does not exist: the result of the worker that writes first counts for all. Only a
failure that another try may cure is replaced, by the outcome of that try.
"""

from __future__ import annotations

import base64
import hashlib
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

from botocore.exceptions import BotoCoreError, ClientError
from pydantic import ValidationError

from comfy_serverless.aws.s3 import (
    DocumentTooLarge,
    S3Address,
    Trouble,
    read_document,
    read_problem,
    trouble_of,
    unless_in_conflict,
    write_problem,
)
from comfy_serverless.errors import AssetUnavailable, DeliveryFailed, DeliveryRefused, InvalidRequest, InvalidSetting
from comfy_serverless.jobs.document import Job
from comfy_serverless.jobs.keys import RESULT_NAME, keys_of
from comfy_serverless.observability import log

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client

    from comfy_serverless.jobs.request import OutputTarget
    from comfy_serverless.settings import Settings


def result_address(job_id: str, output: OutputTarget | None, settings: Settings) -> S3Address:
    """The address of a job's result: in the bucket that its request names, or else in OUTPUT_BUCKET."""
    bucket = (output and output.bucket) or settings.output_bucket
    if bucket is None:
        raise InvalidSetting("OUTPUT_BUCKET must be set on this function: results go there")
    return S3Address(bucket, keys_of(job_id, output, settings).result_key)


class StoredResult(NamedTuple):
    """A stored result, and the version of it that was read."""

    job: Job
    etag: str


@dataclass(frozen=True, slots=True)
class ResultFile:
    """The stored document of one job."""

    s3: S3Client
    address: S3Address

    def read(self) -> StoredResult | None:
        """Read the job as it ended; None if it has not. Costs one request.

        Without s3:ListBucket, S3 denies access to objects that do not exist: what is denied counts as not there.

        Raises:
            InvalidRequest: S3 refuses for good, or something else is in the result's place.
            AssetUnavailable: S3 does not answer; whether the job has run is not known.
        """
        try:
            return self._read()
        except _Denied:
            return None

    def read_before_work(self) -> StoredResult | None:
        """As `read`, for who will write the result, and finds a bucket that refuses it before any work.

        Where reading is denied, writing may be too: an upload is begun to know, and aborted.
        """
        try:
            return self._read()
        except _Denied:
            self._check_writable()
            return None

    def _check_writable(self) -> None:
        place: Any = {"Bucket": self.address.bucket, "Key": self.address.key}
        try:
            upload_id = self.s3.create_multipart_upload(**place)["UploadId"]
        except (ClientError, BotoCoreError) as error:
            reason, is_transient = write_problem(error, self.address)
            if is_transient:
                raise AssetUnavailable(
                    f"whether results can go to {self.address} is not known: it {reason}."
                ) from error
            raise self._wrong_place(reason) from error
        try:
            self.s3.abort_multipart_upload(**place, UploadId=upload_id)
        except (ClientError, BotoCoreError):  # it holds no bytes, and costs nothing
            log.warning("an upload that was begun to see whether one may write is left", address=str(self.address))

    def _read(self) -> StoredResult | None:
        try:
            document = read_document(self.s3, self.address)
            job = Job.model_validate_json(document.content)
        except (DocumentTooLarge, ValidationError) as error:
            raise self._not_a_result() from error
        except (ClientError, BotoCoreError) as error:
            if (trouble := trouble_of(error)) is Trouble.MISSING:
                return None
            if trouble is Trouble.DENIED:
                raise _Denied from error
            reason, is_transient = read_problem(error, self.address)
            if is_transient:
                raise AssetUnavailable(f"whether the job has run is not known: {self.address} {reason}.") from error
            raise self._wrong_place(reason) from error
        # We make links to all that it names: a forged result would give access to files of others.
        folder = str(self.address).removesuffix(RESULT_NAME)
        named = [*(output.s3_uri for output in job.outputs), *([job.outputs_uri] if job.outputs_uri else [])]
        named += [output.thumb_uri for output in job.outputs if output.thumb_uri is not None]
        if not all(uri is not None and uri.startswith(folder) for uri in named):
            raise self._not_a_result()
        return StoredResult(job, document.etag)

    def write(self, job: Job, *, replaces: StoredResult | None = None) -> Job:
        """Store the document, unless another worker was first. Returns the one that counts.

        Raises DeliveryFailed; DeliveryRefused if S3 would refuse it again.

        Args:
            replaces: the outcome of an earlier try, as it was read: exactly that version is replaced.
        """
        content = job.to_stored_bytes()
        try:
            self._put(content, replaces=replaces)
        except (ClientError, BotoCoreError) as error:
            if trouble_of(error) is Trouble.OCCUPIED and (standing := self._standing()) is not None:
                if standing.job.to_stored_bytes() == content:
                    return job  # S3 had stored ours; only its response was lost
                if _may_be_cured(standing.job) and not _may_be_cured(job) and standing != replaces:
                    return self.write(job, replaces=standing)
                return standing.job
            reason, is_transient = write_problem(error, self.address)
            raise (DeliveryFailed if is_transient else DeliveryRefused)(
                f"the result could not be stored: {self.address} {reason}. One that stands there already is read, "
                "which needs s3:GetObject."
            ) from error
        return job

    def _put(self, content: bytes, *, replaces: StoredResult | None) -> None:
        condition: Any = {"IfNoneMatch": "*"} if replaces is None else {"IfMatch": replaces.etag}
        unless_in_conflict(
            lambda: self.s3.put_object(
                Bucket=self.address.bucket,
                Key=self.address.key,
                Body=content,
                ContentType="application/json",
                ChecksumSHA256=base64.b64encode(hashlib.sha256(content).digest()).decode("ascii"),
                **condition,
            )
        )

    def _wrong_place(self, reason: str) -> InvalidRequest:
        return InvalidRequest(
            f"results cannot go to {self.address}: it {reason}. Check OUTPUT_BUCKET, or `output` of the request."
        )

    def _not_a_result(self) -> InvalidRequest:
        return InvalidRequest(
            f"{self.address} exists and is not the result of this job: choose another job_id or prefix."
        )

    def _standing(self) -> StoredResult | None:
        """What stands in the way of our result; None if it may not be read, or is none."""
        try:
            return self.read()
        except InvalidRequest:
            return None
        except AssetUnavailable as error:
            raise DeliveryFailed(f"another result stands there, and cannot be read now: {error.message}") from error


class _Denied(Exception):
    """S3 does not say whether a result stands there."""


def _may_be_cured(job: Job) -> bool:
    return job.error is not None and job.error.retryable
