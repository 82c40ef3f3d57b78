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
    ACCESS_DENIED,
    EXISTS_ALREADY,
    DocumentTooLarge,
    S3Address,
    error_code,
    read_document,
    read_problem,
    unless_in_conflict,
)
from comfy_serverless.errors import AssetUnavailable, DeliveryFailed, InvalidRequest, InvalidSetting
from comfy_serverless.jobs.document import Job
from comfy_serverless.jobs.keys import RESULT_NAME, keys_of

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client

    from comfy_serverless.jobs.request import OutputTarget
    from comfy_serverless.settings import Settings

#: Without s3:ListBucket, S3 denies access to objects that do not exist.
_NOT_THERE = frozenset({"404", "NoSuchKey", "NotFound"}) | ACCESS_DENIED


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
        """Read the job as it ended; None if it has not. Costs one request, and finds a wrong bucket before any work.

        Raises:
            InvalidRequest: S3 refuses for good, or something else is in the result's place.
            AssetUnavailable: S3 does not answer; whether the job has run is not known.
        """
        try:
            document = read_document(self.s3, self.address)
            job = Job.model_validate_json(document.content)
        except (DocumentTooLarge, ValidationError) as error:
            raise self._not_a_result() from error
        except (ClientError, BotoCoreError) as error:
            if error_code(error) in _NOT_THERE:
                return None
            reason, is_transient = read_problem(error, self.address)
            if is_transient:
                raise AssetUnavailable(f"whether the job has run is not known: {self.address} {reason}.") from error
            raise InvalidRequest(
                f"results cannot go to {self.address}: it {reason}. Check OUTPUT_BUCKET, or `output` of the request."
            ) from error
        # We make links to all that it names: a forged result would give access to files of others.
        folder = str(self.address).removesuffix(RESULT_NAME)
        named = [*(output.s3_uri for output in job.outputs), *([job.outputs_uri] if job.outputs_uri else [])]
        if not all(uri is not None and uri.startswith(folder) for uri in named):
            raise self._not_a_result()
        return StoredResult(job, document.etag)

    def write(self, job: Job, *, replaces: StoredResult | None = None) -> Job:
        """Store the document, unless another worker was first. Returns the one that counts. Raises DeliveryFailed.

        Args:
            replaces: the outcome of an earlier try, as it was read: exactly that version is replaced.
        """
        content = job.to_stored_bytes()
        try:
            self._put(content, replaces=replaces)
        except (ClientError, BotoCoreError) as error:
            if error_code(error) in EXISTS_ALREADY and (standing := self._read_quietly()) is not None:
                if standing.job.to_stored_bytes() == content:
                    return job  # S3 had stored ours; only its response was lost
                if _may_be_cured(standing.job) and not _may_be_cured(job) and standing != replaces:
                    return self.write(job, replaces=standing)
                return standing.job
            raise DeliveryFailed(
                f"the result {self.address} could not be stored: {error}. The worker's role needs s3:PutObject on it, "
                "and s3:GetObject to read one that stands there already."
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

    def _not_a_result(self) -> InvalidRequest:
        return InvalidRequest(
            f"{self.address} exists and is not the result of this job: choose another job_id or prefix."
        )

    def _read_quietly(self) -> StoredResult | None:
        try:
            return self.read()
        except (InvalidRequest, AssetUnavailable):
            return None


def _may_be_cured(job: Job) -> bool:
    return job.error is not None and job.error.retryable
