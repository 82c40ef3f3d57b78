"""The children that are kept: none of them ever gets files of two owners.

    unused ──first call──► an owner's own ──► idle ──► the same owner's next call
      ▲                                        └─ ended, if others need the room, or nothing has come for a while
      └─ from the second owner on there is always one, so that nobody waits for a process to start

A file that has taken its child over stays in it. That child could answer with what it has seen, and say of a later file
what it likes; but all of it is the same owner's. What it cannot reach at all, like other children, is in `calls`.
"""

from __future__ import annotations

import contextlib
import threading
import weakref
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from comfy_serverless.sandbox.process import Child, ChildGone

#: Children that have had files, at work or idle; beside them at most one that has had none.
MOST: Final = 3


class Pool:
    """Children for at most `MOST` calls at the same time, which its caller sees to. Safe to use from several threads.

    Args:
        libraries: see `Child`.
    """

    def __init__(self, libraries: Path | None = None) -> None:
        self._libraries = libraries
        self._lock = threading.Lock()
        #: Whose they are, beside each; who was idle longest stands first.
        self._idle: list[tuple[str, Child]] = []
        self._unused: list[Child] = []
        #: Whose those at work are.
        self._busy: list[str | None] = []
        self._owners: set[str] = set()
        self._end = weakref.finalize(self, _end_all, self._idle, self._unused)

    def warm(self, owner: str) -> None:
        """Have a child for this owner's next call, without waiting: it is there already, or is being started."""
        with self._lock:
            self._forget_dead()
            if owner not in self._busy and not any(whose == owner for whose, _ in self._idle):
                self._have_unused()

    def close(self) -> None:
        """End all children that have nothing to do; others end with their call."""
        with self._lock:
            self._end()

    @contextlib.contextmanager
    def lent(self, owner: str | None, *, is_new: bool = False) -> Iterator[Child]:
        """A child that has had no file of another owner: until the end of the block, and killed if that raises.

        Args:
            owner: whose the files are. None, if others than one owner trust the answer: the child has had no file
                before, and ends afterwards.
            is_new: start one, whoever is there: those may all have ended in this moment, as after a freeze on Lambda.

        Raises ChildGone if none can be started.
        """
        child, was_used = self._taken(owner, is_new=is_new)
        try:
            yield child
        except BaseException:
            child.kill()
            raise
        else:
            self._give_back(owner, child)
        finally:
            with self._lock:
                self._busy.remove(owner)
                if not was_used and len(self._owners) > 1:
                    self._have_unused()

    def _taken(self, owner: str | None, *, is_new: bool) -> tuple[Child, bool]:
        """A child that lives, as far as one can know, and whether it has had files before."""
        child, was_used = None, False
        with self._lock:
            self._forget_dead()
            if owner is not None and len(self._owners) < 2:
                self._owners.add(owner)
            if not is_new:
                mine = [entry for entry in self._idle if entry[0] == owner]
                if mine:
                    self._idle.remove(mine[-1])
                    child, was_used = mine[-1][1], True
                elif self._unused:
                    child = self._unused.pop()
            self._busy.append(owner)
            too_many = max(0, len(self._busy) + len(self._idle) - MOST)
            ended = [self._idle.pop(0)[1] for _ in range(min(too_many, len(self._idle)))]
        for one in ended:
            one.kill()
        if child is not None:
            return child, was_used
        try:
            return Child(self._libraries), False
        except BaseException:
            with self._lock:
                self._busy.remove(owner)
            raise

    def _give_back(self, owner: str | None, child: Child) -> None:
        with self._lock:
            if owner is not None and self._end.alive:
                self._idle.append((owner, child))
                return
        child.kill()

    def _have_unused(self) -> None:
        """Start a child, unless there is one that nobody had. It gets ready by itself, also after a freeze."""
        if self._end.alive and not self._unused:
            with contextlib.suppress(ChildGone):  # whoever needs it tries again, and says so
                self._unused.append(Child(self._libraries))

    def _forget_dead(self) -> None:
        for entry in [entry for entry in self._idle if not entry[1].is_alive]:
            self._idle.remove(entry)
            entry[1].kill()
        for child in [child for child in self._unused if not child.is_alive]:
            self._unused.remove(child)
            child.kill()


def _end_all(idle: list[tuple[str, Child]], unused: list[Child]) -> None:
    while idle:
        idle.pop()[1].kill()
    while unused:
        unused.pop().kill()
