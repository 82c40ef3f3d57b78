"""The message that asks a worker for a job of the API."""

from __future__ import annotations

from typing import Any

from comfy_serverless.aws.s3 import S3Address
from comfy_serverless.errors import InvalidRequest
from comfy_serverless.jobs.sources import QueuedJob


def queued_job_of(body: Any) -> QueuedJob | None:  # noqa: ANN401  (any JSON value)
    """The job of the API that a message asks for: `{"job": id, "request": "s3://…"}`; None for any other."""
    try:
        job_id, request = body["job"], body["request"]
        if not (isinstance(job_id, str) and isinstance(request, str)):
            return None
        return QueuedJob(job_id=job_id, address=S3Address.parse(request), extra_data=body.get("extra_data"))
    except (TypeError, KeyError, InvalidRequest):
        return None
