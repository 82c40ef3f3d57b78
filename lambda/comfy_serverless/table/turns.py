"""When jobs whose messages are gone may be sent again: in turns, so that dying workers cost little.

A message is gone and its job not begun if the worker that had it died. It may have been an accident; or every worker
dies, because its image does not start, and each job that is sent again is another worker that dies.

    a turn: at most `width` jobs are sent ──► has the first of them been begun?
                                                 yes: the next turn is a minute later, and twice as wide
                                                 no:  it is 2, 4, 8 … 60 minutes later, and one job wide

There is one turn for each queue, in the table, and whoever sends a job again takes part in it.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Self

from comfy_serverless.aws.dynamodb import NOT_THERE, Item, Table, Update, moment_of, not_there, now_s
from comfy_serverless.moments import moment_text
from comfy_serverless.table.columns import read_columns
from comfy_serverless.table.job_state import JobState

#: How many jobs the first turn has, and how many any turn has at most.
FIRST_WIDTH, MAX_WIDTH = 5, 100
#: The pause after something was sent for the first time, in seconds; it doubles each time, up to the second number.
FIRST_PAUSE_S, MAX_PAUSE_S = 60, 3600
#: How long after its end a turn still says how wide the next one is, in seconds.
_KNOWN_S = 3600
#: How long it is taken for known that no job may be sent, in seconds.
_CLOSED_S = 5
_PK = "care"


def again_after_s(times: int) -> int:
    """How long to wait before a thing that was sent again so many times is sent once more: 1, 2, 4 … 60 minutes."""
    return min(FIRST_PAUSE_S << min(times, 6), MAX_PAUSE_S)


@dataclass(frozen=True, slots=True, kw_only=True)
class Turn:
    """Jobs that are sent again together."""

    begun: int  # when, in seconds since 1970
    first: str  # the job that was sent first
    width: int = FIRST_WIDTH  # how many jobs it has room for
    failed: int = 0  # how many turns in a row, up to this one, came after one whose first job had not been begun
    sent: int = 1  # how many jobs have been sent

    @classmethod
    def from_item(cls, item: Item) -> Self:
        return cls(**read_columns(cls, item))

    @property
    def end(self) -> int:
        """When the next one may begin, unless the first job has been begun before."""
        return self.begun + again_after_s(self.failed)

    @property
    def expires(self) -> int:
        """When it is forgotten."""
        return self.end + _KNOWN_S

    def next(self, job_id: str, *, is_begun: Callable[[], bool], now: int) -> Turn | None:
        """The turn that this job may begin; None while this one lasts. `is_begun` is asked about the first job."""
        if self.expires <= now:
            return Turn(begun=now, first=job_id)
        if now < self.begun + FIRST_PAUSE_S:
            return None
        if is_begun():
            return Turn(begun=now, first=job_id, width=min(2 * self.width, MAX_WIDTH))
        if now < self.end:
            return None
        return Turn(begun=now, first=job_id, width=1, failed=self.failed + 1)


class Turns:
    """The turns of one table. `read` reads a job."""

    def __init__(self, table: Table, read: Callable[[str], JobState | None]) -> None:
        self._table, self._read_job = table, read
        self._closed: dict[str, int] = {}

    def take(self, state: JobState) -> bool:
        """Whether this job may be sent again now."""
        queue = str(state.keeper)
        if now_s() < self._closed.get(queue, 0):
            return False
        is_taken = self._take(queue, state.id)
        if not is_taken:
            self._closed[queue] = now_s() + _CLOSED_S
        return is_taken

    def _take(self, queue: str, job_id: str) -> bool:
        item = self._table.get(_PK, queue)
        if item is None:
            return self._begin(queue, Turn(begun=now_s(), first=job_id), after=None)
        turn = Turn.from_item(item)
        if (following := turn.next(job_id, is_begun=lambda: self._is_begun(turn), now=now_s())) is not None:
            return self._begin(queue, following, after=turn)
        change = Update(
            pk=_PK,
            sk=queue,
            assign={},
            add={"sent": 1},
            condition="#begun = :begun AND #sent < :width",
            values={"begun": turn.begun, "width": turn.width},
        )
        return self._table.try_update(change)

    def _begin(self, queue: str, turn: Turn, *, after: Turn | None) -> bool:
        """Begin a turn, for the first caller that tries."""
        change = Update(
            pk=_PK,
            sk=queue,
            assign={**asdict(turn), "expires": turn.expires},
            condition=NOT_THERE if after is None else "#begun = :seen",
            values=not_there() if after is None else {"seen": after.begun},
        )
        return self._table.try_update(change)

    def _is_begun(self, turn: Turn) -> bool:
        """Whether a worker has begun the first job since it was sent, or the job needs none any more."""
        state = self._read_job(turn.first)
        if state is None or not state.waits_in_queue:
            return True
        return state.started_at is not None and state.started_at >= moment_text(moment_of(turn.begun))
