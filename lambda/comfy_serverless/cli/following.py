"""Follows a job of the API to its end: by its events where there are any, else by asking; and what its end means.

events ──► shown at once       a stream that ends, or there is none ──► the job is asked
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from typing import Any

from comfy_serverless.cli import remote
from comfy_serverless.errors import Canceled, ComfyError, JobExpired, UpstreamError

TERMINAL = frozenset({"succeeded", "failed", "canceled", "expired"})
#: Between two questions, in seconds.
_ASK_EVERY_S = 1.0
#: A stream that ends sooner than this was none: after so many of them the job is only asked.
_SHORT_STREAM_S, _SHORT_STREAMS = 0.2, 3

#: Is shown how far a job is: from 0 to 1, and what goes on just now.
Show = Callable[[float, str], None]


def follow(api: remote.Api, job_id: str, show: Show) -> dict[str, Any]:
    """Follow a job, and return it when it has ended."""
    short_streams = 0
    found = remote.job(api, job_id)
    while not is_over(found):
        show(*how_far(found))
        if short_streams < _SHORT_STREAMS:
            begun = time.monotonic()
            _watch_events(api, found, show)
            short_streams = short_streams + 1 if time.monotonic() - begun < _SHORT_STREAM_S else 0
        else:
            remote.pause(_ASK_EVERY_S)
        found = remote.job(api, job_id)
    return found


def is_over(job: Mapping[str, Any]) -> bool:
    """Whether a job has ended."""
    return job.get("status") in TERMINAL


def how_far(job: Mapping[str, Any]) -> tuple[float, str]:
    """How far a job is, from 0 to 1, and in words."""
    progress, status = job.get("progress"), str(job.get("status") or "")
    if not isinstance(progress, Mapping) or status in {"queued", "canceling"}:
        place = job.get("queue_position")
        return 0.0, f"{status}, number {place}" if status == "queued" and place else status
    value = progress.get("value")
    return float(value) if isinstance(value, int | float) else 0.0, str(progress.get("message") or status)


def failure_of(job: Mapping[str, Any]) -> ComfyError | None:
    """What the end of a job means: None if it has succeeded."""
    job_id, status, error = job.get("id"), job.get("status"), job.get("error")
    if status == "succeeded":
        return None
    if status == "canceled":
        return Canceled(f"the job {job_id} was canceled on request", details={"job_id": job_id})
    if isinstance(error, Mapping):
        failure = remote.error_of(error)
        failure.details.setdefault("job_id", job_id)
        return failure
    if status == "expired":
        return JobExpired(f"the job {job_id} has waited for too long, and no worker has begun it: submit it again.")
    return UpstreamError(f"the job {job_id} ended as {status}, and the API does not say why.")


def _watch_events(api: remote.Api, found: Mapping[str, Any], show: Show) -> None:
    """Show what the events of a job tell, until it has ended or the stream has."""
    known = {"status": found.get("status"), "progress": found.get("progress")}
    for kind, data in remote.events(api, str(found["id"])):
        if kind == "status":
            known |= {"status": data.get("status"), "queue_position": data.get("queue_position")}
        elif kind == "progress":
            known["progress"] = data
        else:
            continue
        show(*how_far(known))
        if is_over(known):
            return
