"""A queue for facts, from the threads that see them to the thread that follows the prompt."""

from __future__ import annotations

import contextlib
import queue
from collections import deque
from collections.abc import Collection

from comfy_serverless.connector.facts import CancelAsked, EventSeen, Fact

#: Events that need no reaction until `executing {node: null}` or an error comes.
ON_THE_WAY = frozenset({"execution_start", "execution_cached", "execution_success", "progress", "progress_state"})


class FactQueue:
    """A queue that wakes its reader only for facts that need a reaction. It keeps their order, except for a cancel.

    Waking a thread costs more than reading an event, and a short prompt has a dozen events. One thread reads.

    Args:
        quiet: kinds of events that do not wake the reader; `executing` without a node always does.
    """

    def __init__(self, quiet: Collection[str]) -> None:
        self._quiet = frozenset(quiet)
        self._facts: deque[Fact] = deque()
        self._bell: queue.SimpleQueue[None] = queue.SimpleQueue()

    def put(self, fact: Fact) -> None:
        """Add a fact. From any thread, and from a signal handler; never blocks."""
        if isinstance(fact, CancelAsked):
            # A cancel must not wait until a slow callback has handled everything before it.
            self._facts.appendleft(fact)
        else:
            self._facts.append(fact)
        if not self._is_quiet(fact):
            self._bell.put(None)

    def empty(self) -> bool:
        """Whether the queue is empty."""
        return not self._facts

    def get(self, timeout_s: float) -> Fact | None:
        """The oldest fact; None if nothing worth waking for came in time."""
        with contextlib.suppress(queue.Empty):
            if not self._facts:
                self._bell.get(timeout=timeout_s)
        return self._facts.popleft() if self._facts else None

    def _is_quiet(self, fact: Fact) -> bool:
        if not isinstance(fact, EventSeen):
            return False
        if fact.kind == "executing":
            return "executing" in self._quiet and fact.data.get("node") is not None
        return fact.kind in self._quiet
