"""A queue for facts, from the threads that see them to the thread that follows the prompt."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Collection
from contextlib import suppress

from comfy_serverless.connector.facts import CancelAsked, EventSeen, Fact

#: Events that need no reaction until a node begins or ends, or an error comes.
ON_THE_WAY = frozenset({"execution_start", "execution_cached", "execution_success", "progress", "progress_state"})


class FactQueue:
    """A queue that wakes its reader only for facts that need a reaction. It keeps their order, except for a cancel.

    Waking a thread costs more than reading an event, and a short prompt has a dozen events, most of them at once. What
    comes with the beginning and the end of a node is handled while the next one runs. One thread reads.

    Args:
        quiet: kinds of events that do not wake the reader.
    """

    def __init__(self, quiet: Collection[str]) -> None:
        self._quiet = frozenset(quiet)
        self._facts: deque[Fact] = deque()
        #: Not held: it rings. However often it was rung, the reader wakes once.
        self._bell = threading.Lock()
        self._bell.acquire()

    def put(self, fact: Fact) -> None:
        """Add a fact. From any thread, and from a signal handler; never blocks."""
        if isinstance(fact, CancelAsked):
            # A cancel must not wait until a slow callback has handled everything before it.
            self._facts.appendleft(fact)
        else:
            self._facts.append(fact)
        if not isinstance(fact, EventSeen) or fact.kind not in self._quiet:
            with suppress(RuntimeError):  # it rings already
                self._bell.release()

    def get(self, timeout_s: float) -> Fact | None:
        """The oldest fact; None if nothing worth waking for came in time."""
        if not self._facts:
            self._bell.acquire(timeout=timeout_s)
        return self._facts.popleft() if self._facts else None
