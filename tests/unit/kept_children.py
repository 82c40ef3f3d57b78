"""The processes that decode, kept from test to test: to start one takes a tenth of a second of a processor.

Each sandbox of a test has children of its own, as ever. One that it ends while the child has nothing to do is kept,
and is the next one that any sandbox starts. One that was ended within a task, or by the task, is gone.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from unittest.mock import patch

from comfy_serverless.sandbox import pool
from comfy_serverless.sandbox.process import Child

_kept: deque[Child] = deque()


class _KeptChild:
    """A child, new or kept."""

    def __init__(self, libraries: Path | None = None) -> None:
        kept = _taken() if libraries is None else None  # those that are kept have none
        self._child, self._is_idle, self._is_plain = kept or Child(libraries), True, libraries is None

    @property
    def pid(self) -> int:
        return self._child.pid

    @property
    def is_alive(self) -> bool:
        return self._child.is_alive

    def ask(self, task: Mapping[str, Any], descriptors: Sequence[int], *, deadline: float) -> Any:
        self._is_idle = False
        answer = self._child.ask(task, descriptors, deadline=deadline)
        self._is_idle = True
        return answer

    def kill(self) -> None:
        if self._is_idle and self._is_plain and self._child.is_alive:
            _kept.append(self._child)
        else:
            self._child.kill()


def _taken() -> Child | None:
    while _kept:
        child = _kept.pop()
        if child.is_alive:
            return child
        child.kill()
    return None


@contextmanager
def keeping_children() -> Iterator[None]:
    """What sandboxes start is kept, from `with` to the end of the block."""
    with patch.object(pool, "Child", _KeptChild):
        yield


def end_kept_children() -> None:
    """End those that are kept."""
    while _kept:
        _kept.pop().kill()
