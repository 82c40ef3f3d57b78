"""Which of the lines that ComfyUI writes are of which run. No IO.

    submitted ──► waits ──► first in line: what is written is its own ──► "Prompt executed in …": the next one's turn
                                 └─ begun, by an event: whatever was before it is over

ComfyUI runs one prompt after the other, and its last line of each says so. That line comes by another way than events:
after an event that ends a run, lines of it may still be on their way. A line that may be of an earlier run is never
given to a later one.
"""

from __future__ import annotations

import re
from collections import deque
from dataclasses import dataclass, field

#: How many lines of a run are kept, the last ones, and how many characters of each.
MAX_LINES, MAX_CHARACTERS = 200, 2000
_COLOURS = re.compile(r"\x1b\[[0-9;]*[A-Za-z]")
_LAST_LINE = re.compile(r"(?:\[\w+\] )?Prompt executed in \d")


@dataclass(eq=False, slots=True)
class _Run:
    lines: deque[str] = field(default_factory=lambda: deque(maxlen=MAX_LINES))
    left_out: int = 0


class RunLog:
    """The lines of the runs in hand. Not thread-safe."""

    def __init__(self) -> None:
        self._runs: dict[str, _Run] = {}
        self._line: list[_Run] = []

    @property
    def is_first(self) -> bool:
        """Whether at most one run may be writing."""
        return len(self._line) < 2

    def submitted(self, run_id: str) -> None:
        """Note that a run is about to be submitted, for the first time or again."""
        run = self._runs.setdefault(run_id, _Run())
        if run not in self._line:
            self._line.append(run)

    def begun(self, run_id: str) -> None:
        """Note that ComfyUI executes a run: all before it are over."""
        run = self._runs.get(run_id)
        if run is None:
            return
        self._line = [run, *self._line[self._line.index(run) + 1 :]] if run in self._line else [run, *self._line]

    def see(self, line: str) -> None:
        """Take a line."""
        if not self._line:
            return
        run, text = self._line[0], _COLOURS.sub("", line)
        run.left_out += len(run.lines) == MAX_LINES
        run.lines.append(text[:MAX_CHARACTERS])
        if _LAST_LINE.match(text):
            del self._line[0]

    def restarted(self) -> None:
        """Note that the process has ended: what a new one writes is of no run that was submitted before."""
        self._line.clear()

    def take(self, run_id: str, *, was_refused: bool = False) -> tuple[str, ...]:
        """The last lines of a run that is over, or that ComfyUI has refused. It is forgotten."""
        run = self._runs.pop(run_id, None)
        if run is None:
            return ()
        # One that may have run stays in line until its last line has come: that must not be the next one's.
        if was_refused and run in self._line:
            self._line.remove(run)
        more = (f"… {run.left_out} lines before these are left out …",) if run.left_out else ()
        return (*more, *run.lines)
