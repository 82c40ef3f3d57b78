"""The message that asks a worker for a job: what waits in a queue of SQS, and what a SageMaker endpoint is sent.

    {"job": "id", "request": "s3://bucket/requests/…", "extra_data": {…}, "version": 2}

`job` and `request` mean the same in every version; `version` is left out while it is 1. What a newer release writes
beside them is passed on as it came.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Self

from comfy_serverless.aws.s3 import S3Address
from comfy_serverless.errors import InvalidRequest
from comfy_serverless.jobs.line_address import LineAddress

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client

    from comfy_serverless.jobs.request import JobRequest
    from comfy_serverless.settings import Settings


@dataclass(frozen=True, slots=True, kw_only=True)
class JobMessage:
    """A job that was taken: its request is in S3, its state in the table. A `RequestSource` of the worker.

    Attributes:
        address: of the stored request (`jobs.stored_request`), or of a line of a manifest (`jobs.line_address`).
        extra_data: for ComfyUI; it is in the message, and kept nowhere.
        version: what a worker has to understand to run the job.
        others: fields of a newer release.
    """

    job_id: str
    address: S3Address
    extra_data: Mapping[str, Any] | None = field(default=None, repr=False)
    version: object = 1
    others: Mapping[str, Any] = field(default_factory=dict, repr=False)

    def to_text(self) -> str:
        """The message as it is sent."""
        message: dict[str, Any] = {"job": self.job_id, "request": str(self.address)}
        if self.extra_data:
            message["extra_data"] = dict(self.extra_data)
        if self.version != 1:
            message["version"] = self.version
        return json.dumps({**message, **self.others})

    @classmethod
    def parse(cls, text: str | bytes) -> Self | None:
        """Read a message; None for any other text."""
        try:
            fields = json.loads(text)
            job_id, request = fields.pop("job"), fields.pop("request")
            if not (isinstance(job_id, str) and isinstance(request, str)):
                return None
            return cls(
                job_id=job_id,
                address=S3Address.parse(request),
                extra_data=fields.pop("extra_data", None),
                version=fields.pop("version", 1),
                others=fields,
            )
        except (TypeError, AttributeError, KeyError, ValueError, RecursionError, InvalidRequest):
            return None

    @property
    def default_id(self) -> str:
        """The job's id."""
        return self.job_id

    @property
    def labels(self) -> Mapping[str, str]:
        """None beside the request's own."""
        return {}

    @property
    def origin_bucket(self) -> None:
        """None: nothing that is written there becomes a job."""
        return

    @property
    def batch_id(self) -> str | None:
        """The batch it is a line of."""
        line = LineAddress.parse(self.address)
        return line.batch_id if line else None

    def read(self, *, s3: S3Client, settings: Settings) -> JobRequest:  # noqa: ARG002  (as all sources)
        """The request as it was written down, or as it stands in a line of a manifest.

        Raises:
            WorkerOutdated: a newer release has written it.
        """
        from comfy_serverless.jobs.stored_request import StoredRequest, check_version, read_line

        check_version(self.version)
        line = LineAddress.parse(self.address)
        request = read_line(s3, line) if line else StoredRequest.read(s3, self.address).request
        if request.job_id != self.job_id:
            raise InvalidRequest(f"{self.address} is the request of another job than {self.job_id}.")
        return request
