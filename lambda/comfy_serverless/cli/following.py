"""Follows a job of the API to its end: by its live events where there are any, else by asking; and what its end means.

urls.events ──► shown at once      ends, or breaks off ──► the job is asked ──► again, from the last event's id on
                                   three times nothing ──► the job is asked every second, and the events once a minute
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from comfy_serverless.cli import remote
from comfy_serverless.cli.habits import one_line, say
from comfy_serverless.cli.remote_events import NoStream, events
from comfy_serverless.errors import Canceled, ComfyError, JobExpired, UpstreamError

TERMINAL = frozenset({"succeeded", "failed", "canceled", "expired"})
#: Between two questions, in seconds.
_ASK_EVERY_S = 1.0
#: A stream that ends sooner than this was none; after so many in a row the job is asked, and the next one tried later.
_SHORT_STREAM_S, _SHORT_STREAMS, _TRY_AGAIN_S = 0.2, 3, 60.0

#: Is shown how far a job is: from 0 to 1, and what goes on just now.
Show = Callable[[float, str], None]


def follow(api: remote.Api, job_id: str, show: Show) -> dict[str, Any]:
    """Follow a job, and return it when it has ended."""
    streams, watcher = Streams(), _Watcher(api, show)
    found = remote.job(api, job_id)
    while not is_over(found):
        show(*how_far(found))
        pause_s = _ASK_EVERY_S
        if streams.is_due(now := time.monotonic()):
            reason = watcher.watch(found)
            pause_s = streams.ended(now, time.monotonic(), reason, has_told=watcher.has_told)
            if streams.is_given_up:
                say(one_line(f"No live events ({streams.reason}): the job is asked every second instead."))
        if pause_s and not watcher.is_over:
            remote.pause(pause_s)
        found = remote.job(api, job_id)
    return found


@dataclass(slots=True)
class Streams:
    """Decides, from how its streams have ended, whether a job is watched by its events or asked. No IO.

    Attributes:
        reason: why the last one was none.
        is_given_up: whether that is so since the last one: somebody should be told.
    """

    reason: str = ""
    is_given_up: bool = False
    _short: int = 0
    _not_before: float = 0.0
    _is_told: bool = False

    def is_due(self, now: float) -> bool:
        """Whether a stream is to be tried now."""
        self.is_given_up = False
        return now >= self._not_before

    def ended(self, begun: float, now: float, reason: str | None, *, has_told: bool) -> float:
        """A stream has ended. Returns how long to wait before the job is asked.

        Args:
            reason: why it was none, or broke off; None if it ended as one does.
            has_told: whether there was an event in it.
        """
        if now - begun >= _SHORT_STREAM_S and (has_told or reason is None):
            self._short = 0
            return 0.0 if reason is None else _ASK_EVERY_S
        self._short += 1
        self.reason = reason or "they end at once"
        if self._short >= _SHORT_STREAMS:
            self._not_before = now + _TRY_AGAIN_S
            self.is_given_up, self._is_told = not self._is_told, True
        return _ASK_EVERY_S


@dataclass(slots=True)
class _Watcher:
    """Shows what the events of a job tell, and remembers up to where."""

    api: remote.Api
    show: Show
    is_over: bool = False
    has_told: bool = False
    last_id: str = ""

    def watch(self, found: Mapping[str, Any]) -> str | None:
        """Watch until the job has ended or its stream has. Returns why there is no stream, or no more of it."""
        self.has_told = False
        known = {"status": found.get("status"), "progress": found.get("progress")}
        try:
            for event in events(self.api, found, last_id=self.last_id):
                self.has_told, self.last_id = True, event.id or self.last_id
                if event.kind == "status":
                    known |= {name: event.data.get(name) for name in ("status", "queue_position")}
                elif event.kind == "progress":
                    known["progress"] = event.data
                else:
                    continue
                self.show(*how_far(known))
                if is_over(known):
                    self.is_over = True
                    break
        except NoStream as none:
            return str(none)
        return None


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
