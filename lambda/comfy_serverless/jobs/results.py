"""`result.json`: where it stands, the job is complete and every file in it has been verified.

Written last, and only if it is not there: whichever worker writes first, that result stands for all.
"""

from __future__ import annotations

import base64
import hashlib
from dataclasses import dataclass
from typing import TYPE_CHECKING

from botocore.exceptions import BotoCoreError, ClientError
from pydantic import ValidationError

from comfy_serverless.errors import DeliveryFailed, InvalidRequest
from comfy_serverless.jobs.models import Job
from comfy_serverless.jobs.s3 import AssetUnavailable, S3Address, error_code

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client

_EXISTS_ALREADY = frozenset({"PreconditionFailed", "412", "ConditionalRequestConflict", "409"})
_NOT_THERE = frozenset({"404", "NoSuchKey", "NotFound", "403", "AccessDenied"})


@dataclass(frozen=True, slots=True)
class ResultFile:
    """The stored document of one job."""

    s3: S3Client
    address: S3Address

    def read(self) -> Job | None:
        """The job as it ended, or None when it has not. Costs one request, and finds a wrong bucket before any work.

        Raises:
            InvalidRequest: there is no such bucket, or something else stands in the result's place.
            AssetUnavailable: S3 does not answer; whether the job has run is not known.
        """
        try:
            content = self.s3.get_object(Bucket=self.address.bucket, Key=self.address.key)["Body"].read()
        except (ClientError, BotoCoreError) as error:
            code = error_code(error)
            if code in _NOT_THERE:  # without s3:ListBucket, S3 says 403 for what is not there
                return None
            if code == "NoSuchBucket":
                raise InvalidRequest(
                    f"there is no bucket {self.address.bucket!r} for the results: check OUTPUT_BUCKET, or "
                    "`output.bucket` of the request."
                ) from error
            raise AssetUnavailable(f"whether {self.address} exists cannot be found out: {error}") from error
        try:
            return Job.model_validate_json(content)
        except ValidationError as error:
            raise InvalidRequest(
                f"{self.address} exists and is not the result of a job: choose another job_id or prefix."
            ) from error

    def write(self, job: Job) -> Job:
        """Store the document, unless another worker was first. Answers the one that stands.

        Raises:
            DeliveryFailed: it could not be stored.
        """
        content = job.to_stored_bytes()
        try:
            self.s3.put_object(
                Bucket=self.address.bucket,
                Key=self.address.key,
                Body=content,
                ContentType="application/json",
                ChecksumSHA256=base64.b64encode(hashlib.sha256(content).digest()).decode("ascii"),
                IfNoneMatch="*",
            )
        except (ClientError, BotoCoreError) as error:
            if error_code(error) in _EXISTS_ALREADY and (standing := self._read_quietly()) is not None:
                return standing
            raise DeliveryFailed(
                f"the result {self.address} could not be stored: {error}. The worker's role needs s3:PutObject on it."
            ) from error
        return job

    def _read_quietly(self) -> Job | None:
        try:
            return self.read()
        except (InvalidRequest, AssetUnavailable):
            return None
