"""Server-sent events of a job. API Gateway passes on only whole answers, so each is a snapshot.

It is sent at once when something has happened, or when nothing has for a moment; then the client asks again. (The local
stack keeps the connection open, asks by itself, and passes on new events.)
"""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from dataclasses import asdict
from http import HTTPStatus
from typing import Any

from aws_lambda_powertools.event_handler import Response
from aws_lambda_powertools.event_handler.openapi.types import OpenAPIResponse
from aws_lambda_powertools.event_handler.router import APIGatewayHttpRouter

from comfy_serverless.api.auth import caller
from comfy_serverless.api.bodies import NOT_FOUND, REFUSALS
from comfy_serverless.api.jobs import JobId, find_job
from comfy_serverless.api.responses import NOT_KEPT
from comfy_serverless.api.services import services
from comfy_serverless.api.waiting import wait_for
from comfy_serverless.jobs.links import Links
from comfy_serverless.table.job_state import JobState

router = APIGatewayHttpRouter()  # type: ignore[no-untyped-call]

EVENT_STREAM = "text/event-stream"
_DOCUMENTED: dict[int, OpenAPIResponse] = {
    200: {
        "description": "`status`, `progress`, `preview` and `output` frames; the last is the terminal `status`.",
        "content": {EVENT_STREAM: {"schema": {"type": "string"}}},
    },
    **NOT_FOUND,
    **REFUSALS,
}


@router.get("/api/v2/jobs/<id>/events", summary="Live event stream (SSE)", tags=["jobs"], responses=_DOCUMENTED)
def get_events(id: JobId) -> Response[str]:  # noqa: A002  (the contract's name)
    """The job's state as events, after a moment in which something may have changed."""
    behind = services(router)
    read = behind.jobs.read_with_preview
    first = find_job(id, caller(router), behind, read=read)
    state = wait_for(
        first,
        look=read,
        enough=lambda seen: seen.is_over or _has_changed(first, seen),
        until=time.monotonic() + behind.settings.events_hold_s,
    )
    body = "".join(_frames(state, Links(behind.s3, behind.settings.link_expiry_s)))
    return Response(status_code=HTTPStatus.OK, content_type=EVENT_STREAM, body=body, headers=dict(NOT_KEPT))


def _frames(state: JobState, links: Links) -> Iterator[str]:
    """The snapshot of a job. The outputs come before a terminal status, since that ends the stream."""
    job = state.document()
    status = _frame("status", {"status": job.status.value, "queue_position": job.queue_position})
    if not state.is_over:
        yield status
    if job.progress is not None:
        yield _frame("progress", job.progress.model_dump(mode="json"))
    if state.preview is not None and not state.is_over:
        yield _frame("preview", asdict(state.preview))
    for output in links.of_job(job).to_json()["outputs"]:
        yield _frame("output", output)
    if state.is_over:
        yield status


def _has_changed(before: JobState, after: JobState) -> bool:
    """Whether there is a new state or output, for which no client should have to wait."""
    return before.status is not after.status or len(before.outputs) != len(after.outputs)


def _frame(event: str, data: dict[str, Any]) -> str:
    return f"event: {event}\ndata: {json.dumps(data)}\n\n"
