"""Counts the lines of a range, from the first one on whose job has not ended. No IO: it is shown one line at a time.

`ends` has those before that line, for good; `ahead` those from there on, as they are now.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Container, Mapping
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, Self

from comfy_serverless.batches.fates import line_of
from comfy_serverless.jobs.document import JobStatus

if TYPE_CHECKING:
    from comfy_serverless.batches.batch import Batch
    from comfy_serverless.batches.fates import Fate
    from comfy_serverless.batches.ranges import Range
    from comfy_serverless.table.job_state import JobState

#: So many lines in a row that no worker has begun: those behind them wait, too.
WAITING_IN_A_ROW = 200
#: The failed lines that are named of a range, and the characters of what is said of each.
MAX_FAILURES, MAX_SAID = 10, 300
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
        before: how many lines begin before those that are seen; None if that is not known.
        failures: the first lines that have failed; by their numbers in the range.
    """

    batch: Batch
    ended: int
    ends: Counter[str]
    ahead: Counter[str] = field(default_factory=Counter)
    first_open: Fate | None = None
    waiting: int = 0
    ahead_seen: int = 0
    before: int | None = None
    ended_lines: int | None = None
    failures: list[Mapping[str, Any]] = field(default_factory=list)

    @classmethod
    def of(cls, batch: Batch, part: Range) -> Self:
        """The count as it stood, without what was ahead: that is counted anew."""
        tally = cls(batch, part.settled, Counter(part.ends or {}), before=part.lines_before)
        tally.ended_lines = tally.before
        if tally.before is not None:
            tally.failures += [one for one in part.failures if one["line"] <= tally.before]
        return tally

    def see(self, fate: Fate, *, just_ended: Container[str] = ()) -> None:
        """Count a line. `just_ended` has ids of jobs that were canceled since they were read."""
        is_just_ended = fate.job_id in just_ended
        name = JobStatus.CANCELED.value if is_just_ended else self._name_of(fate)
        is_open = fate.is_open_in(self.batch) and not is_just_ended
        if is_open and self.first_open is None:
            self.first_open = fate
        self.waiting = self.waiting + 1 if is_open and (fate.state is None or fate.state.is_unbegun) else 0
        number = None if self.before is None else self.before + fate.line.number
        if name in (JobStatus.FAILED.value, JobStatus.EXPIRED.value) and fate.state is not None:
            self._note(number, fate.state)
        if self.first_open is None:
            self.ends[name] += 1
            self.ended = fate.line.end
            self.ended_lines = number
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
        counted = replace(part, ended=self.ended, ends=dict(self.ends), ahead=dict(self.ahead))
        return replace(counted, ended_lines=self.ended_lines, failures=tuple(self.failures))

    def _note(self, number: int | None, state: JobState) -> None:
        """Remember a line that has failed, for whoever looks on."""
        if number is None or len(self.failures) >= MAX_FAILURES:
            return
        error = state.document().error
        said = {"code": error.code if error else "", "message": (error.message if error else "")[:MAX_SAID]}
        self.failures.append({"line": number, "job_id": state.id, **said})

    def _name_of(self, fate: Fate) -> str:
        """What a line counts as (`batches.progress`)."""
        state = fate.state
        if fate.request is None:
            return "bad"
        if state is None:
            return "queued" if fate.is_open_in(self.batch) else JobStatus.CANCELED.value
        if is_of_another_line(self.batch, fate):
            return "duplicates"
        if state.is_over:
            return state.status.value
        return "queued" if state.is_unbegun else "running"


def is_of_another_line(batch: Batch, fate: Fate) -> bool:
    """Whether the job of a line was made of another line of the same batch: this one repeats it."""
    return fate.state is not None and line_of(batch, fate.state) not in (None, fate.line.offset)
