"""How far a batch is, in lines: counted whenever its keeper looks after it. No IO.

    a range:   [ every line has ended: `ends` ][ some have: `ahead` ][ none has begun ]

Nothing is written for each job. The keeper reads the states of lines from the first one on that has not ended, until it
meets many in a row that no worker has begun (`batches.tally`): jobs begin about in the order of their lines. Lines
behind those are taken to wait; so the counts are a little behind, and those of the report are exact.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import datetime
from typing import TYPE_CHECKING, Any

from comfy_serverless.jobs.document import JobStatus

if TYPE_CHECKING:
    from comfy_serverless.batches.ranges import Range

#: The rate is measured over this time at least, in seconds, once a batch is that old.
RATE_OVER_S = 60.0
#: The names of counts: of lines that have ended, and of the others.
ENDED = (
    "bad",
    "duplicates",
    *(status.value for status in (JobStatus.SUCCEEDED, JobStatus.FAILED, JobStatus.CANCELED, JobStatus.EXPIRED)),
)
OPEN = ("queued", "running")


@dataclass(frozen=True, slots=True, kw_only=True)
class BatchProgress:
    """How far a batch is.

    Attributes:
        status: `BatchStatus`, in words.
        lines: how many lines are read, without blank ones.
        lines_total: how many there are: estimated by their bytes until `is_read`.
        bad: lines that are no requests.
        duplicates: lines that are a job of an earlier line of the manifest, as far as that is known.
        queued, running, succeeded, failed, canceled, expired: lines that are read, by the states of their jobs.
        counted_at: when they were counted; None if they never were: all count as queued then.
        per_second: how many lines have ended in a second, lately; None if that is not known.
        left_s: how long the rest takes at this rate; None if that is not known.
    """

    status: str
    lines: int
    lines_total: int
    is_read: bool
    bad: int
    duplicates: int
    queued: int
    running: int
    succeeded: int
    failed: int
    canceled: int
    expired: int
    counted_at: str | None
    per_second: float | None
    left_s: int | None

    @property
    def ended(self) -> int:
        """How many lines need nothing any more."""
        return sum(getattr(self, name) for name in ENDED)

    def to_json(self) -> dict[str, Any]:
        """All of it, by the names of the fields."""
        return {**asdict(self), "ended": self.ended}


@dataclass(frozen=True, slots=True, kw_only=True)
class Counting:
    """When the lines of a batch were counted.

    Attributes:
        created_at: when the batch began.
        counted_at: the last time; None if they never were.
        before: how many had ended some time before, and when: for the rate.
        is_over: whether they will not be counted any more.
    """

    created_at: str
    counted_at: str | None
    before: Mapping[str, Any] | None
    is_over: bool

    def rate(self, ended: int) -> float | None:
        """How many lines have ended in a second, lately; None if that is not known."""
        if self.is_over or self.counted_at is None or self.before is None:
            return None
        seconds = _seconds(str(self.before["at"]), self.counted_at)
        return max(0, ended - int(self.before["ended"])) / seconds if seconds > 0 else None

    def next_before(self, ended_then: int) -> Mapping[str, Any] | None:
        """What the rate is measured from, once the lines are counted again; None if that stays as it is.

        Args:
            ended_then: how many lines had ended when they were counted the last time.
        """
        if self.counted_at is None:
            return {"ended": 0, "at": self.created_at}
        if self.before is None or _seconds(str(self.before["at"]), self.counted_at) >= RATE_OVER_S:
            return {"ended": ended_then, "at": self.counted_at}
        return None


def progress_of(ranges: Sequence[Range], counting: Counting, *, status: str, is_taken: bool = True) -> BatchProgress:
    """How far a batch with these ranges is, as of when it was last counted.

    Args:
        is_taken: whether it has its lines; until then it has no ranges.
    """
    counts = counts_of(ranges)
    lines = sum(counts.values())
    is_read = is_taken and all(part.is_read for part in ranges)
    lines_total = lines if is_read else _estimate(lines, ranges)
    ended = sum(counts[name] for name in ENDED)
    per_second = counting.rate(ended)
    return BatchProgress(
        status=status,
        lines=lines,
        lines_total=lines_total,
        is_read=is_read,
        **{name: counts[name] for name in (*ENDED, *OPEN)},
        counted_at=counting.counted_at,
        per_second=per_second,
        left_s=round((lines_total - ended) / per_second) if per_second else None,
    )


def progress_at_end(counts: Mapping[str, int], counting: Counting, *, status: str) -> BatchProgress:
    """How a batch has ended, by the counts of its report."""
    lines = sum(counts.values())
    return BatchProgress(
        status=status,
        lines=lines,
        lines_total=lines,
        is_read=True,
        **{name: int(counts.get(name, 0)) for name in (*ENDED, *OPEN)},
        counted_at=counting.counted_at,
        per_second=None,
        left_s=None,
    )


def counts_of(ranges: Sequence[Range]) -> Counter[str]:
    """The lines of all ranges that are read, by what has become of them."""
    counts: Counter[str] = Counter()
    for part in ranges:
        seen = Counter(part.ends or {}) + Counter(part.ahead or {})
        unseen = max(0, part.lines - seen.total())
        bad = max(0, part.bad - seen["bad"]) if unseen else 0
        counts.update(seen)
        counts.update({"bad": min(bad, unseen), "queued": max(0, unseen - bad)})
    return counts


def _estimate(lines: int, ranges: Sequence[Range]) -> int:
    """How many lines there are in all, if the rest are as long as those that are read."""
    read_bytes = sum(min(part.offset, part.end) - part.start for part in ranges)
    size_bytes = sum(part.end - part.start for part in ranges)
    return max(lines, round(lines * size_bytes / read_bytes)) if read_bytes else lines


def _seconds(first: str, second: str) -> float:
    return (datetime.fromisoformat(second) - datetime.fromisoformat(first)).total_seconds()
