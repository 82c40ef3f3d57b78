"""Server-sent events of jobs. API Gateway passes on only whole answers, so each is a snapshot: of what is new.

It is sent at once when something has happened, or when nothing has for a moment; then the client asks again, and says
with `Last-Event-ID` what it has seen. Live streams have the same frames: see `event_streams`.
"""

from __future__ import annotations

import time
from http import HTTPStatus
from typing import Any

from aws_lambda_powertools.event_handler import Response
from aws_lambda_powertools.event_handler.router import APIGatewayHttpRouter

from comfy_serverless.api.auth import caller
from comfy_serverless.api.bodies import NOT_FOUND, REFUSALS, ErrorEnvelope, documented
from comfy_serverless.api.event_links import LIST_PATH
from comfy_serverless.api.jobs import JobId, find_job
from comfy_serverless.api.live import EVENT_STREAM, Seen, SeenJobs, unseen
from comfy_serverless.api.responses import NOT_KEPT
from comfy_serverless.api.services import services
from comfy_serverless.api.waiting import wait_for
from comfy_serverless.api.watching import ListWatch, frames_of_job
from comfy_serverless.table.job_state import JobState

router = APIGatewayHttpRouter()  # type: ignore[no-untyped-call]

LAST_EVENT_ID = "last-event-id"


def _documented(frames: str) -> dict[int, Any]:
    return {
        200: {"description": frames, "content": {EVENT_STREAM: {"schema": {"type": "string"}}}},
        **REFUSALS,
        429: documented("`rate_limited`, `too_many_streams`: wait as long as `Retry-After` says.", ErrorEnvelope),
    }


@router.get(
    "/api/v2/jobs/<id>/events",
    summary="Live event stream (SSE)",
    tags=["jobs"],
    responses={
        **_documented("`status`, `progress`, `preview` and `output` frames; the last is the terminal `status`."),
        **NOT_FOUND,
    },
)
def get_events(id: JobId) -> Response[str]:  # noqa: A002  (the contract's name)
    """The job's state as events, after a moment in which something may have changed."""
    behind, last = services(router), router.current_event.headers.get(LAST_EVENT_ID) or ""
    seen, read = Seen.parse(last), behind.jobs.read_with_preview
    first = find_job(id, caller(router), behind, read=read)

    def is_enough(state: JobState) -> bool:
        news = any(unseen(state, seen)) if last else _has_changed(first, state)
        return state.is_over or news

    state = wait_for(first, look=read, enough=is_enough, until=time.monotonic() + behind.settings.events_hold_s)
    text, _ = frames_of_job(state, seen, behind.links)
    return _answer(text)


@router.get(
    LIST_PATH,
    summary="Live events of the newest hundred jobs (SSE). Ours",
    tags=["jobs"],
    responses=_documented("A `job` frame for each job that is new or has changed: its entry in the list of jobs."),
)
def get_list_events() -> Response[str]:
    """What has changed among the caller's newest jobs, after a moment in which something may."""
    behind, last = services(router), router.current_event.headers.get(LAST_EVENT_ID) or ""
    watch = ListWatch(caller(router).owner, behind.jobs, behind.links, behind.beside, SeenJobs.parse(last))
    text = watch.look()
    if last and not text:  # one more look: a client that has seen all must not ask at once again
        time.sleep(behind.settings.events_hold_s)
        text = watch.look()
    return _answer(text)


def _answer(text: str) -> Response[str]:
    return Response(status_code=HTTPStatus.OK, content_type=EVENT_STREAM, body=text, headers=dict(NOT_KEPT))


def _has_changed(before: JobState, after: JobState) -> bool:
    """Whether there is a new state or output, for which no client should have to wait."""
    return before.status is not after.status or len(before.outputs) != len(after.outputs)
