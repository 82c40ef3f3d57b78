"""One row of the fault matrix, written at the test that proves it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeVar

Test = TypeVar("Test", bound=Callable[..., None])


@dataclass(frozen=True, slots=True)
class Row:
    """A claim and its limit.

    Attributes:
        fault: what goes wrong, and when.
        code: of the failure that the job ends with; None if it succeeds, or if there is no job.
        so: what else happens.
        within_s: from the submit, or from the event that `fault` names, to the outcome, in seconds of `QuietClock`.
    """

    fault: str
    code: str | None
    so: str
    within_s: float

    @property
    def outcome(self) -> str:
        """The outcome, for people."""
        return "; ".join(filter(None, (f"`{self.code}`" if self.code else "", self.so)))


def row(fault: str, *, so: str = "", code: str | None = None, within_s: float) -> Callable[[Test], Test]:
    """Mark a test as the proof of a row: its outcomes are checked against the code and the time."""

    def mark(test: Test) -> Test:
        test.row = Row(fault, code, so, within_s)  # type: ignore[attr-defined]
        return test

    return mark
