"""The fault matrix: what can go wrong, how the job ends, and within what time.

`python -m tests.contract.faults.matrix` prints it as Markdown for `docs/reliability.md`, together with the rows of S3
and of the sandbox. The times are those of the tests' settings: STALL_S is 2 s.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from types import ModuleType

from tests.contract.faults import test_disk, test_hangs, test_killed, test_refused, test_sockets, test_start, test_time
from tests.contract.faults.rows import Row
from tests.integration import s3_fault_rows, sandbox_fault_rows

SECTIONS = {
    "The engine dies": test_killed,
    "The engine hangs": test_hangs,
    "The websocket": test_sockets,
    "The workflow, memory, the GPU": test_refused,
    "Deadline and cancel": test_time,
    "The start": test_start,
    "The disk": test_disk,
}


def rows_of(module: ModuleType) -> dict[str, Row | None]:
    """The row of every test of a module, by its name; None for a test without one."""
    return {
        name: getattr(test, "row", None)
        for name, test in vars(module).items()
        if name.startswith("test_") and test.__module__ == module.__name__
    }


def markdown() -> str:
    """The whole matrix as Markdown."""
    return "\n".join(_lines())


def _lines() -> Iterator[str]:
    for title, module in SECTIONS.items():
        found = filter(None, rows_of(module).values())
        yield from _table(title, ((row.fault, row.outcome, f"{row.within_s:g} s") for row in found))
    others = {"S3": s3_fault_rows.ROWS, "The sandbox": (*sandbox_fault_rows.ROWS, *sandbox_fault_rows.SHUTDOWN_ROWS)}
    for title, rows in others.items():
        yield from _table(title, ((row.fault, row.outcome, row.bound) for row in rows))


def _table(title: str, cells: Iterable[tuple[str, str, str]]) -> Iterator[str]:
    yield from (f"### {title}", "", "| What goes wrong | Outcome | Within |", "|---|---|---|")
    yield from (f"| {' | '.join(row)} |" for row in cells)
    yield ""


if __name__ == "__main__":
    print(markdown())
