"""Watches a job, or a list of jobs, in the table, and tells as server-sent events what is new: one loop for both.

The stream ends by itself at the end of the job, before the function's time is over, and when the table has not answered
for a minute. `retry` and the ids of the frames let browsers go on where it ended; SDKs read the job and connect again.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Executor
from dataclasses import dataclass, field
from datetime import datetime
from typing import Protocol

from botocore.exceptions import BotoCoreError, ClientError

from comfy_serverless import moments
from comfy_serverless.api.job_lists import EVERYTHING, MAX_PAGE, ShownJob, entries_of, look_up
from comfy_serverless.api.live import (
    Pace,
    Seen,
    SeenJobs,
    frame,
    frames_of_list,
    is_moving,
    list_id,
    list_pause_s,
    tag_of,
    unseen,
)
from comfy_serverless.jobs.document import Output
from comfy_serverless.jobs.links import Links
from comfy_serverless.observability import log
from comfy_serverless.table.job_item import JobEntry
from comfy_serverless.table.job_state import JobState
from comfy_serverless.table.reader import JobReader

#: No longer is nothing sent: a client that has left is noticed by what is sent. API Gateway ends what is idle for 30 s
#: (edge-optimised) or 5 minutes, SDKs what is for 45 s.
KEEP_ALIVE_S = 10.0
KEEP_ALIVE = ": keep-alive\n\n"
#: How soon browsers connect again, once a stream has ended.
RETRY_MS = 1000
#: The last of a stream that ends before what it is about.
ENDS = f": this connection ends, and not what it is about\nretry: {RETRY_MS}\n\n"
#: For so long the table may fail before a stream ends, and so long are the pauses meanwhile, at most.
PATIENCE_S, LONGEST_FAULT_PAUSE_S = 60.0, 5.0
#: A query answers a megabyte at a time: about so many outputs.
_OUTPUTS_A_READ = 1500


class Watch(Protocol):
    """What looks at something in the table, again and again."""

    @property
    def is_over(self) -> bool:
        """Whether nothing will ever be new again."""

    def look(self) -> str:
        """Frames of what is new; "" if nothing is."""

    def pause_s(self, now: float, *, since_news_s: float) -> float:
        """How long to wait before the next look."""


@dataclass(slots=True)
class JobWatch:
    """Watches one job.

    Attributes:
        first: the job as it was found; the first look takes it.
    """

    first: JobState
    reader: JobReader
    links: Links
    seen: Seen
    pace: Pace = field(default_factory=Pace)
    is_over: bool = False
    _state: JobState | None = None
    _in_state_since: float | None = None

    def look(self) -> str:
        state = self.first if self._state is None else self.reader.read_with_preview(self.first.id)
        if state is None or state.owner != self.first.owner:  # deleted
            self.is_over = True
            return ""
        if self._state is not None and state.status is not self._state.status:
            self._in_state_since = None
        self._state, self.is_over = state, state.is_over
        text, self.seen = frames_of_job(state, self.seen, self.links)
        return text

    def pause_s(self, now: float, *, since_news_s: float) -> float:
        state = self._state or self.first
        if self._in_state_since is None:
            self._in_state_since = now - _age_s(state)
        return self.pace.pause_s(
            now,
            is_running=is_moving(state.status),
            since_state_s=now - self._in_state_since,
            since_news_s=since_news_s,
            reads=1 + len(state.outputs) // _OUTPUTS_A_READ,
        )


@dataclass(slots=True)
class ListWatch:
    """Watches the newest jobs of an owner: a query, and a read of those that may have changed, for each look."""

    owner: str
    reader: JobReader
    links: Links
    beside: Executor
    seen: SeenJobs
    is_over: bool = False
    _moving: int = 0

    def look(self) -> str:
        entries, _ = self.reader.page(self.owner, labels={}, status=None, limit=MAX_PAGE, before=None)
        asked = [entry for entry in entries if self.seen.may_have_changed(entry)]
        found = look_up(asked, self.reader, self.beside)
        self._moving = sum(is_moving(entry.status) for entry in entries)
        return self._frames(entries, {one.entry.id: one for one in found}, asked)

    def pause_s(self, now: float, *, since_news_s: float) -> float:  # noqa: ARG002  (of the protocol)
        return list_pause_s(moving=self._moving, since_news_s=since_news_s)

    def _frames(self, entries: Sequence[JobEntry], found: dict[str, ShownJob], asked: Sequence[JobEntry]) -> str:
        left = {entry.id for entry in asked} - found.keys()  # of an older release, and not read yet
        tags = {entry.id: _tag(entry, found.get(entry.id)) for entry in entries if entry.id not in left}
        new = [one for job_id, one in found.items() if tags[job_id] not in self.seen.tags]
        self.seen = SeenJobs(frozenset(tags.values()))
        return "".join(frames_of_list(entries_of(new, EVERYTHING, self.links), seen_then=list_id(tags.values())))


def frames_of_job(state: JobState, seen: Seen, links: Links) -> tuple[str, Seen]:
    """Frames of what is new of a job, its outputs with links, and what was seen with them."""
    parts = list(unseen(state, seen))
    linked = iter(links.of_outputs(part.content for part in parts if isinstance(part.content, Output)))
    text = "".join(
        frame(
            part.event,
            next(linked).to_json() if isinstance(part.content, Output) else part.content,
            id_=part.seen.id(),
        )
        for part in parts
    )
    return text, parts[-1].seen if parts else seen


def stream(
    watch: Watch,
    first: str,
    *,
    until: float,
    clock: Callable[[], float] = time.monotonic,
    wait: Callable[[float], object] = time.sleep,
) -> Iterator[str]:
    """What a watcher is sent, from its first look to the end.

    Args:
        first: the frames of the first look, which was made before the answer began.
        until: when it ends at last, on the clock.
        wait: waits for so many seconds; returns whether to end.
    """
    yield f"retry: {RETRY_MS}\n\n{first}"
    sent = news = clock()
    failing_since: float | None = None
    while not watch.is_over:
        now = clock()
        pause_s = watch.pause_s(now, since_news_s=now - news)
        if failing_since is not None:
            pause_s = max(pause_s, min(LONGEST_FAULT_PAUSE_S, now - failing_since))
        if now + pause_s >= until or wait(pause_s):
            break
        try:
            text, failing_since = watch.look(), None
        except (ClientError, BotoCoreError, TimeoutError):
            text = ""
            if failing_since is None:
                log.exception("the table does not answer a watcher of events: it is asked again")
                failing_since = clock()
            elif clock() - failing_since > PATIENCE_S:
                break
        now = clock()
        if text:
            news = now
        elif now - sent >= KEEP_ALIVE_S:
            text = KEEP_ALIVE
        if text:
            sent = now
            yield text
    if not watch.is_over:
        yield ENDS


def _tag(entry: JobEntry, found: ShownJob | None) -> str:
    """The tag of a job as it was sent: of its own columns, if they were read."""
    job = found.job if found else None
    if found is None or job is None:
        return tag_of(entry.id, entry.status, entry.updated_at, "")
    progress = found.shown.progress
    told = "" if progress is None else progress.model_dump_json()
    return tag_of(job.id, job.status.value, job.updated_at, told)


def _age_s(state: JobState) -> float:
    """How long ago a job got into its state, in seconds."""
    return (moments.now() - datetime.fromisoformat(state.updated_at)).total_seconds()
