"""Live events: what of a job, or of a list of jobs, its watcher has not seen yet, and when to look again. No IO.

    what the table says ──► what is new ──► frames (server-sent events), each with an id
                               ▲
                 `Last-Event-ID` of a watcher that connects again

An id says what its watcher has seen up to this frame, so nothing has to be kept for those who may come back, and any
function can go on where another one has ended.
"""

from __future__ import annotations

import base64
import hashlib
import json
import re
from collections.abc import Collection, Iterator, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any, Self

from comfy_serverless.jobs.document import JobStatus, Output
from comfy_serverless.table.job_item import JobEntry
from comfy_serverless.table.job_state import TERMINAL, JobState

EVENT_STREAM = "text/event-stream"
#: Longer ids are none of ours, and one of a job may not get longer: it is sent as a header.
MAX_ID_CHARACTERS = 2000
_STATES = "|".join(JobStatus)
_DIGEST = r"([A-Za-z0-9_-]{0,8})"
_JOB_ID = re.compile(rf"({_STATES})?\.{_DIGEST}\.{_DIGEST}\.{_DIGEST}\.((?:[0-9]{{1,9}}-[0-9]{{1,9}},?)*)")
_TAG_CHARACTERS = 6
_LIST_ID = re.compile(rf"(?:[A-Za-z0-9_-]{{{_TAG_CHARACTERS}}})*")


def frame(event: str, data: Any, *, id_: str | None) -> str:  # noqa: ANN401  (any JSON)
    """One server-sent event. JSON has no line ends, so `data` is one line, whatever texts are in it."""
    named = "" if id_ is None else f"id: {id_}\n"
    return f"event: {event}\ndata: {json.dumps(data)}\n{named}\n"


def digest(text: str) -> str:
    """A short name of a text; "" of none."""
    return base64.urlsafe_b64encode(hashlib.sha256(text.encode()).digest()[:6]).decode() if text else ""


# A job.


@dataclass(frozen=True, slots=True)
class Places:
    """Whole numbers, as ranges: the places of the outputs that were sent, which are thousands of numbers in a row."""

    ranges: tuple[tuple[int, int], ...] = ()

    def __contains__(self, place: int) -> bool:
        return any(first <= place <= last for first, last in self.ranges)

    def with_(self, place: int) -> Places:
        """The same with one more."""
        joined: list[tuple[int, int]] = []
        for first, last in sorted((*self.ranges, (place, place))):
            if joined and first <= joined[-1][1] + 1:
                joined[-1] = (joined[-1][0], max(last, joined[-1][1]))
            else:
                joined.append((first, last))
        return Places(tuple(joined))

    def text(self) -> str:
        """As `parse` reads it: `0-7,9-9`."""
        return ",".join(f"{first}-{last}" for first, last in self.ranges)

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read ranges, of which `Seen.parse` knows that they are some."""
        pairs = (part.split("-") for part in text.split(",") if part)
        return cls(tuple((int(first), int(last)) for first, last in pairs))


@dataclass(frozen=True, slots=True, kw_only=True)
class Seen:
    """What a watcher of a job has seen.

    Attributes:
        status: the state that was sent last.
        progress, preview: digests of what was sent last.
        run: digest of the run whose outputs were sent; another run's are others.
        outputs: their places.
    """

    status: str = ""
    progress: str = ""
    preview: str = ""
    run: str = ""
    outputs: Places = field(default_factory=Places)

    def id(self) -> str:
        """The id of the frame up to which this was seen."""
        text = f"{self.status}.{self.progress}.{self.preview}.{self.run}."
        places = self.outputs.text()
        if len(text) + len(places) > MAX_ID_CHARACTERS:  # some are sent again then, and none is lost
            places = places[: MAX_ID_CHARACTERS - len(text)].rpartition(",")[0]
        return text + places

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read a `Last-Event-ID`; of anything that is not one of ours, nothing was seen."""
        found = _JOB_ID.fullmatch(text) if len(text) <= MAX_ID_CHARACTERS else None
        if found is None:
            return cls()
        status, progress, preview, run, places = found.groups()
        return cls(
            status=status or "", progress=progress, preview=preview, run=run, outputs=Places.parse(places.strip(","))
        )


@dataclass(frozen=True, slots=True)
class Part:
    """One frame of a job before it is written: an output has no link yet.

    Attributes:
        seen: what its watcher has seen with it.
    """

    event: str
    content: dict[str, Any] | Output
    seen: Seen


def unseen(state: JobState, seen: Seen) -> Iterator[Part]:
    """What of a job is new. The outputs come before a terminal status, since that ends the stream."""
    job = state.document()
    if (run := digest(state.counted_run or "")) != seen.run:
        seen = replace(seen, run=run, outputs=Places())
    status = {"status": job.status.value, "queue_position": job.queue_position}
    is_new_status = job.status.value != seen.status
    if is_new_status and not state.is_over:
        seen = replace(seen, status=job.status.value)
        yield Part("status", status, seen)
    if job.progress is not None:
        progress = job.progress.model_dump(mode="json")
        if (told := digest(json.dumps(progress))) != seen.progress:
            seen = replace(seen, progress=told)
            yield Part("progress", progress, seen)
    preview = None if state.is_over else state.preview
    if preview is not None and (told := digest(preview.data_base64)) != seen.preview:
        seen = replace(seen, preview=told)
        yield Part("preview", asdict(preview), seen)
    for place, output in zip(state.places, job.outputs, strict=True):
        if place not in seen.outputs:
            seen = replace(seen, outputs=seen.outputs.with_(place))
            yield Part("output", output, seen)
    if is_new_status and state.is_over:
        yield Part("status", status, replace(seen, status=job.status.value))


# A list of jobs.


@dataclass(frozen=True, slots=True)
class SeenJobs:
    """What a watcher of a list has seen: a tag of each job, as it was."""

    tags: frozenset[str] = frozenset()

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read a `Last-Event-ID`; of anything that is not one of ours, nothing was seen."""
        if len(text) > MAX_ID_CHARACTERS or not _LIST_ID.fullmatch(text):
            return cls()
        return cls(frozenset(text[at : at + _TAG_CHARACTERS] for at in range(0, len(text), _TAG_CHARACTERS)))

    def may_have_changed(self, entry: JobEntry) -> bool:
        """Whether the job itself must be read: its progress is not in the index of jobs."""
        return is_moving(entry.status) or tag_of(entry.id, entry.status, entry.updated_at, "") not in self.tags


def tag_of(job_id: str, status: str, updated_at: str, progress: str) -> str:
    """A short name of a job as it is. `progress` counts while it is made."""
    told = [job_id, status, updated_at, progress if is_moving(status) else ""]
    return digest(json.dumps(told))[:_TAG_CHARACTERS]


def list_id(tags: Collection[str]) -> str:
    """The id of a frame after which these were seen."""
    return "".join(tags)


def is_moving(status: str) -> bool:
    """Whether a job in this state is in a worker's hands: it changes without another state."""
    return status in (JobStatus.RUNNING, JobStatus.CANCELING)


def is_open(status: str) -> bool:
    """Whether a job in this state has not ended."""
    return status not in TERMINAL


def frames_of_list(entries: Sequence[dict[str, Any]], *, seen_then: str) -> Iterator[str]:
    """Frames of new entries, with the id of all on the last one: they are written as one."""
    for number, entry in enumerate(entries, start=1):
        yield frame("job", entry, id_=seen_then if number == len(entries) else None)


# When to look again.

#: The most reads at once, and how many come back each second: no watcher of a job makes more than these reads a minute.
BURST, READS_A_SECOND = 20.0, 1.0
READS_A_MINUTE = round(BURST + 60 * READS_A_SECOND)
#: A watcher of a list looks twice as seldom, and each look may be two reads: a query, and a batch of items.
LIST_PAUSE_S, QUIET_LIST_PAUSE_S, CROWDED_LIST_PAUSE_S = 2.0, 5.0, 7.0
LIST_READS_A_MINUTE = round(2 * (60 / LIST_PAUSE_S + 1))
_QUIET_LIST_S = 60.0
#: Where more than twenty run, the pauses get longer: nobody reads the bars of fifty jobs each second.
_LIST_PAUSE_A_JOB_S = 0.1


@dataclass(slots=True)
class Pace:
    """When a watcher looks at a job again: soon after a change of its state, each second while it runs, less later.

    Attributes:
        shortest_s: the pause right after a change of its state.
        running_s: the longest pause while it runs, as long as something is new now and then.
        longest_s: that of a job which waits, or has not changed for a minute.
        burst, reads_a_second: how many reads may be made at once, and how many come back.
    """

    shortest_s: float = 0.1
    running_s: float = 1.0
    longest_s: float = 3.0
    burst: float = BURST
    reads_a_second: float = READS_A_SECOND
    _spent: float = 0.0
    _counted_at: float | None = None

    def pause_s(self, now: float, *, is_running: bool, since_state_s: float, since_news_s: float, reads: int) -> float:
        """How long to wait after a look that has cost so many reads.

        Args:
            now: on the monotonic clock, as in later calls.
            since_state_s: how long the job has been in its state.
            since_news_s: how long nothing was new.
        """
        if self._counted_at is not None:
            self._spent = max(0.0, self._spent - (now - self._counted_at) * self.reads_a_second)
        self._counted_at = now
        self._spent += reads
        longest = self.longest_s
        if is_running:
            longest = min(self.longest_s, max(self.running_s, since_news_s / 20))
        wanted = min(longest, max(self.shortest_s, since_state_s / 8))
        return max(wanted, (self._spent + 1 - self.burst) / self.reads_a_second)


def list_pause_s(*, moving: int, since_news_s: float) -> float:
    """How long a watcher of a list waits, in which so many jobs run. Each of them is read in each look."""
    if not moving and since_news_s >= _QUIET_LIST_S:
        return QUIET_LIST_PAUSE_S
    return min(CROWDED_LIST_PAUSE_S, max(LIST_PAUSE_S, moving * _LIST_PAUSE_A_JOB_S))
