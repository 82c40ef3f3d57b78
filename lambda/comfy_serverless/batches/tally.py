"""Counts the lines of a range, from the first one on whose job has not ended. No IO: it is shown one line at a time.

`ends` has those before that line, for good; `ahead` those from there on, as they are now.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Container
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Self

from comfy_serverless.jobs.document import JobStatus

if TYPE_CHECKING:
    from comfy_serverless.batches.fates import Fate
    from comfy_serverless.batches.ranges import Range
    from comfy_serverless.batches.store import Batch

#: So many lines in a row that no worker has begun: those behind them wait, too.
WAITING_IN_A_ROW = 200
#: So many ranges in a row of which no line has been begun: those behind them wait, too. Few are read at the same time.
UNTOUCHED_IN_A_ROW = 10


@dataclass(slots=True)
class Tally:
    """The count of one range.

    Attributes:
        ended: up to here every line has ended, in bytes.
        first_open: the first line that has not.
        waiting: how many lines no worker has begun, in a row, up to the last one seen.
        ahead_seen: how many lines were seen behind the first open one.
    """

    batch: Batch
    ended: int
    ends: Counter[str]
    ahead: Counter[str] = field(default_factory=Counter)
    first_open: Fate | None = None
    waiting: int = 0
    ahead_seen: int = 0

    @classmethod
    def of(cls, batch: Batch, part: Range) -> Self:
        """The count as it stood, without what was ahead: that is counted anew."""
        return cls(batch, part.settled, Counter(part.ends or {}))

    def see(self, fate: Fate, *, just_ended: Container[str] = ()) -> None:
        """Count a line. `just_ended` has ids of jobs that were canceled since they were read."""
        is_just_ended = fate.job_id in just_ended
        name = JobStatus.CANCELED.value if is_just_ended else self._name_of(fate)
        is_open = fate.is_open_in(self.batch) and not is_just_ended
        if is_open and self.first_open is None:
            self.first_open = fate
        self.waiting = self.waiting + 1 if is_open and (fate.state is None or fate.state.is_unbegun) else 0
        if self.first_open is None:
            self.ends[name] += 1
            self.ended = fate.line.end
        else:
            self.ahead[name] += 1
            self.ahead_seen += 1

    def see_end(self, offset: int) -> None:
        """All lines before this offset were seen: there are none but blank ones behind the last."""
        if self.first_open is None:
            self.ended = max(self.ended, offset)

    @property
    def is_enough(self) -> bool:
        """Whether the lines behind the last one need not be seen."""
        return self.waiting >= WAITING_IN_A_ROW

    @property
    def is_untouched(self) -> bool:
        """Whether no line behind the first open one has been begun, as far as they were seen."""
        return self.is_enough and self.ahead_seen == self.waiting

    def put_into(self, part: Range) -> Range:
        """The range with this count."""
        return replace(part, ended=self.ended, ends=dict(self.ends), ahead=dict(self.ahead))

    def _name_of(self, fate: Fate) -> str:
        """What a line counts as (`batches.progress`)."""
        state = fate.state
        if fate.request is None:
            return "bad"
        if state is None:
            return "queued" if fate.is_open_in(self.batch) else JobStatus.CANCELED.value
        if self._is_another_lines(state.request, fate):
            return "duplicates"
        if state.is_over:
            return state.status.value
        return "queued" if state.is_unbegun else "running"

    def _is_another_lines(self, request: str, fate: Fate) -> bool:
        """Whether the job was made of another line of this manifest."""
        line = f"{self.batch.manifest}#{fate.line.offset}-"
        return request.startswith(f"{self.batch.manifest}#") and not request.startswith(line)
