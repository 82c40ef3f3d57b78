"""One row of the fault matrix, written at the test that proves it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeVar

Test = TypeVar("Test", bound=Callable[..., None])


@dataclass(frozen=True, slots=True)
class Row:
    """What is proven.

    Attributes:
        fault: what goes wrong, and when.
        code: of the failure the job ends with; None when it succeeds, or when there is no job.
        so: what happens besides.
        within_s: from the submit, or from what is named in `fault`, to the outcome, in seconds of `QuietClock`.
    """

    fault: str
    code: str | None
    so: str
    within_s: float

    @property
    def outcome(self) -> str:
        """For people."""
        return "; ".join(filter(None, (f"`{self.code}`" if self.code else "", self.so)))


def row(fault: str, *, so: str = "", code: str | None = None, within_s: float) -> Callable[[Test], Test]:
    """Mark a test as the proof of a row: its outcomes are held to the code and the time."""

    def mark(test: Test) -> Test:
        test.row = Row(fault, code, so, within_s)  # type: ignore[attr-defined]
        return test

    return mark
