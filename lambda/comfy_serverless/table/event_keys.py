"""The keys that links to live events are signed with: one for each day, random, in a partition of their own.

The roles that workers have cannot reach that partition: who could read a key could watch any owner's jobs.
"""

from __future__ import annotations

import secrets
import threading
from datetime import UTC, datetime, timedelta

from comfy_serverless.aws.dynamodb import NOT_THERE, ConditionFailed, Item, Table, moment_of, not_there, now_s

_KEY = "key"
_KEY_BYTES = 32
#: How long a key stays in the table: longer than any link that was signed with it.
KEPT = timedelta(days=3)


class EventKeys:
    """The keys in the table; each is read once by a process. Thread-safe."""

    def __init__(self, table: Table) -> None:
        self._table = table
        self._known: dict[str, bytes] = {}
        self._lock = threading.Lock()

    def today(self) -> tuple[str, bytes]:
        """The day's name and its key, which the first who asks for it makes."""
        day = day_of(moment_of(now_s()))
        return day, self.of(day) or self._make(day)

    def of(self, day: str) -> bytes | None:
        """The key of a day; None if there is none. A day that nobody signs on any more is not asked for."""
        with self._lock:
            if (known := self._known.get(day)) is not None:
                return known
        item = self._table.get(key_pk(day), _KEY)
        return self._keep(day, item) if item else None

    def _make(self, day: str) -> bytes:
        expires = datetime.fromisoformat(day).replace(tzinfo=UTC) + KEPT
        item = {
            "pk": key_pk(day),
            "sk": _KEY,
            "secret": secrets.token_hex(_KEY_BYTES),
            "expires": int(expires.timestamp()),
        }
        try:
            self._table.put(item, condition=NOT_THERE, values=not_there())
        except ConditionFailed:  # another process was first, or this one was, and only the answer was lost
            found = self._table.get(key_pk(day), _KEY)
            if found is None:
                raise
            item = found
        return self._keep(day, item)

    def _keep(self, day: str, item: Item) -> bytes:
        key = bytes.fromhex(item["secret"])
        with self._lock:
            self._known = {one: kept for one, kept in self._known.items() if one >= yesterday()} | {day: key}
        return key


def day_of(moment: datetime) -> str:
    """The name of a key: its day, in UTC."""
    return moment.date().isoformat()


def yesterday() -> str:
    """The oldest day whose links may still work."""
    return day_of(moment_of(now_s()) - timedelta(days=1))


def key_pk(day: str) -> str:
    """The partition key of a day's key."""
    return f"live#{day}"
