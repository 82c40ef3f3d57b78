"""The waiting prompts, the running one, and the history of those that ended.

One lock guards all three: at every moment a prompt is in one of them. `on_change` announces changes, in the thread
that makes them.
"""

from __future__ import annotations

import heapq
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

_LONGEST_HISTORY = 10000
#: Keys of `extra_data` that must not reach the history.
_SECRETS = ("auth_token_comfy_org", "api_key_comfy_org")

#: ``(number, prompt_id, prompt, extra_data, outputs_to_execute)``: the tuple /queue and /history show.
QueueItem = tuple[float, str, dict[str, Any], dict[str, Any], list[str]]


@dataclass(frozen=True, slots=True)
class Outcome:
    """How a prompt ended: the outputs by node, which node made them, and the messages of the run."""

    outputs: Mapping[str, Any]
    meta: Mapping[str, Any]
    status: Mapping[str, Any]


class PromptQueue:
    """A priority queue: the smallest ``(number, prompt_id)`` runs first."""

    def __init__(self, *, on_change: Callable[[], None]) -> None:
        self._on_change = on_change
        self._lock = threading.RLock()
        self._changed = threading.Condition(self._lock)
        self._pending: list[QueueItem] = []
        self._running: dict[int, QueueItem] = {}
        self._tickets = 0
        self._history: dict[str, dict[str, Any]] = {}
        self._free_memory = False

    def put(self, item: QueueItem) -> None:
        """Queue a prompt.

        Raises:
            TypeError: a queued prompt has the same number and id. This one is queued all the same, as in ComfyUI,
                where the worker then compares the two graphs and dies of it.
        """
        with self._changed:
            heapq.heappush(self._pending, item)
            self._on_change()
            self._changed.notify()

    def get(self, timeout_s: float) -> tuple[int, QueueItem] | None:
        """Take the next prompt, with a ticket for `finish`. None if nothing came in time, or /free woke the worker."""
        with self._changed:
            if not self._pending and not self._free_memory:
                self._changed.wait(timeout_s)
            if not self._pending:
                return None
            item = heapq.heappop(self._pending)
            self._tickets += 1
            self._running[self._tickets] = item
            self._on_change()
            return self._tickets, item

    def finish(self, ticket: int, outcome: Outcome) -> None:
        """Move a running prompt to the history."""
        with self._lock:
            item = _without_keys(self._running.pop(ticket))
            prompt_id = item[1]
            if len(self._history) >= _LONGEST_HISTORY:
                del self._history[next(iter(self._history))]
            self._history[prompt_id] = {
                "prompt": item,
                "outputs": outcome.outputs,
                "status": outcome.status,
                "meta": outcome.meta,
            }
            self._on_change()

    def delete(self, prompt_id: object) -> bool:
        """Drop one waiting prompt with this id without a trace. Returns whether there was one."""
        with self._lock:
            for position, item in enumerate(self._pending):
                if item[1] == prompt_id:
                    del self._pending[position]
                    heapq.heapify(self._pending)
                    self._on_change()
                    return True
            return False

    def clear(self) -> None:
        """Drop every waiting prompt."""
        with self._lock:
            self._pending.clear()
            self._on_change()

    def snapshot(self, *, with_keys: bool) -> tuple[list[QueueItem], list[QueueItem]]:
        """The running prompts and the waiting ones (in the heap's order, which is not the order of execution)."""
        with self._lock:
            running, pending = list(self._running.values()), list(self._pending)
        return (running, pending) if with_keys else ([*map(_without_keys, running)], [*map(_without_keys, pending)])

    def remaining(self) -> int:
        """How many prompts run or wait."""
        with self._lock:
            return len(self._running) + len(self._pending)

    def status(self) -> dict[str, Any]:
        """The queue as `GET /prompt` and the `status` message show it."""
        return {"exec_info": {"queue_remaining": self.remaining()}}

    def is_running(self, prompt_id: object) -> bool:
        with self._lock:
            return any(item[1] == prompt_id for item in self._running.values())

    def history(self, *, max_items: int | None = None, offset: int = -1) -> dict[str, Any]:
        """The ended prompts, oldest first: at most `max_items` from `offset` on, or the newest if it is negative."""
        with self._lock:
            if offset < 0 and max_items is not None:
                offset = len(self._history) - max_items
            wanted = list(self._history.items())[max(offset, 0) :]
            return dict(wanted if max_items is None else wanted[: max(max_items, 0)])

    def history_of(self, prompt_id: str) -> dict[str, Any]:
        """``{prompt_id: entry}``, or {} while the prompt waits or runs, or if it is unknown."""
        with self._lock:
            return {prompt_id: self._history[prompt_id]} if prompt_id in self._history else {}

    def forget(self, prompt_id: str) -> None:
        with self._lock:
            self._history.pop(prompt_id, None)

    def clear_history(self) -> None:
        with self._lock:
            self._history.clear()

    def ask_for_memory(self) -> None:
        """Have the worker drop its cache before the next prompt, or at once if it is idle."""
        with self._changed:
            self._free_memory = True
            self._changed.notify()

    def take_memory_request(self) -> bool:
        with self._lock:
            asked, self._free_memory = self._free_memory, False
            return asked


def _without_keys(item: QueueItem) -> QueueItem:
    number, prompt_id, prompt, extra_data, outputs = item
    shown = {key: value for key, value in extra_data.items() if key not in _SECRETS}
    return number, prompt_id, prompt, shown, outputs
