"""The message that asks a worker for a job: it waits in a queue of SQS, or is sent to a SageMaker endpoint.

    {"job": "id", "owner": "name", "request": "s3://bucket/requests/…", "extra_data": {…}, "version": 2,
     "content": {…}, "result": "s3://bucket/…/result.json"}

`traceparent` and `tracestate` (W3C Trace Context) name the span that the job is a child of, if there is one.
`job` and `request` mean the same in every version; `version` is left out while it is 1. `content` is what stands at
`request`, if it is small, and `result` says where the result will stand: a worker need not ask S3 for the first, nor
wait for the first to look for the second. Other fields, which a newer release has written, are passed on as they came.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, ClassVar, Self

from comfy_serverless.aws.s3 import S3Address
from comfy_serverless.errors import InvalidRequest
from comfy_serverless.jobs.lines import LineAddress
from comfy_serverless.tracing import Trace
from comfy_serverless.uncollected import load_json

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client

    from comfy_serverless.jobs.named import Named
    from comfy_serverless.jobs.request import JobRequest
    from comfy_serverless.settings import Settings


@dataclass(frozen=True, slots=True, kw_only=True)
class JobMessage:
    """A job that was taken: its request is in S3, its state in the table. A `RequestSource` of the worker.

    Attributes:
        address: where the stored request is (`jobs.stored_request`), alone or in a line, or the line of a manifest
            (`LineAddress`).
        owner: whose job it is; "" in the message of a release that did not say.
        content: the stored request (`StoredRequest.in_message`); None if only `address` has it.
        result: where the result will stand; None if only the request says it.
        extra_data: data for ComfyUI; it is in the message, and kept nowhere.
        batch: the batch that its line is of, if the address does not say so.
        trace: where it stands in a trace; None if it is in none.
        version: the version that a worker must understand to run the job.
        others: fields of a newer release.
    """

    job_id: str
    address: S3Address
    owner: str = ""
    content: Mapping[str, Any] | None = field(default=None, repr=False)
    result: S3Address | None = None
    extra_data: Mapping[str, Any] | None = field(default=None, repr=False)
    batch: str | None = None
    trace: Trace | None = None
    version: object = 1
    others: Mapping[str, Any] = field(default_factory=dict, repr=False)
    labels: ClassVar[Mapping[str, str]] = {}
    origin_bucket: ClassVar[None] = None

    def to_text(self) -> str:
        """The message as it is sent."""
        message: dict[str, Any] = {"job": self.job_id, "request": str(self.address)}
        if self.owner:
            message["owner"] = self.owner
        if self.content is not None:
            message["content"] = dict(self.content)
        if self.result is not None:
            message["result"] = str(self.result)
        if self.extra_data:
            message["extra_data"] = dict(self.extra_data)
        if self.batch:
            message["batch"] = self.batch
        if self.trace is not None:
            message |= self.trace.fields()
        if self.version != 1:
            message["version"] = self.version
        return json.dumps({**message, **self.others})

    @classmethod
    def parse(cls, text: str | bytes) -> Self | None:
        """Read a message; None for any other text."""
        try:
            fields = load_json(text)
            job_id, request, result = fields.pop("job"), fields.pop("request"), fields.pop("result", None)
            if not (isinstance(job_id, str) and isinstance(request, str)):
                return None
            return cls(
                job_id=job_id,
                address=S3Address.parse(request),
                owner=str(fields.pop("owner", None) or ""),
                content=fields.pop("content", None),
                result=S3Address.parse(result) if result is not None else None,
                extra_data=fields.pop("extra_data", None),
                batch=str(fields.pop("batch", None) or "") or None,
                trace=Trace.of({name: fields.pop(name, None) for name in ("traceparent", "tracestate")}),
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
    def owner_name(self) -> str:
        """Whose files ComfyUI may have at the same time: of a job whose owner is not known, its own alone."""
        return self.owner or f"job {self.job_id}"

    @property
    def batch_id(self) -> str | None:
        """The batch it is a line of."""
        if self.batch is not None:
            return self.batch
        line = LineAddress.parse(self.address)
        return line.batch_id if line else None

    @property
    def is_checked(self) -> bool:
        """A stored request was checked before it was stored; a line of a manifest is as it came."""
        line = LineAddress.parse(self.address)
        return self.batch_id is None or (line is not None and line.is_stored)

    def read(self, *, s3: S3Client, settings: Settings, named: Named | None = None) -> JobRequest:  # noqa: ARG002  (as all sources)
        """Read the stored request, or that of a line. Raises WorkerOutdated if a newer release has written it."""
        from comfy_serverless.jobs.stored_request import StoredRequest, check_version, read_line, read_stored_line

        check_version(self.version)
        if (line := LineAddress.parse(self.address)) is not None and line.is_stored:
            request = StoredRequest.parse(read_stored_line(s3, line)).request
        elif line is not None:
            request = read_line(s3, line)
        elif self.content is not None:
            request = StoredRequest.parse(self.content).request
        else:
            request = StoredRequest.read(s3, self.address).request
        if request.job_id != self.job_id:
            raise InvalidRequest(f"{self.address} is the request of another job than {self.job_id}.")
        return request
