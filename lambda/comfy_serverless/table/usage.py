"""Reads the counters of what jobs have cost; `table.jobs` writes them, with the end of each job."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable, Iterator
from datetime import date
from itertools import chain
from typing import Final

from comfy_serverless.aws.dynamodb import Table, moment_of, now_s
from comfy_serverless.table.usage_items import Counter, Usage, days, month_of_key, total, usage_pk

#: How long the sum of a key's month is believed, in seconds: jobs that end meanwhile are not in it.
KNOWN_S: Final = 30.0
#: Keys whose sums a process keeps.
_MOST_KEYS: Final = 1000


class UsageStore:
    """The counters of one table. Thread-safe."""

    def __init__(self, table: Table, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._table = table
        self._clock = clock
        self._lock = threading.Lock()
        self._months: dict[tuple[str, str, str], tuple[float, int]] = {}

    def counters(self, owner: str, first: date, last: date) -> Iterator[Counter]:
        """The counters of an owner, from one day to another, both included. A read for each megabyte of them."""
        begin, end = days(first, last)
        items = self._table.query_all(
            "#pk = :pk AND #sk BETWEEN :begin AND :end", {"pk": usage_pk(owner), "begin": begin, "end": end}
        )
        return map(Counter.from_item, items)

    def of_owners(self, owners: Iterable[str], first: date, last: date) -> Iterator[Counter]:
        """The same of several owners."""
        return chain.from_iterable(self.counters(owner, first, last) for owner in owners)

    def spent_nanousd(self, owner: str, key_id: str) -> int:
        """What the jobs of a key have cost in this month (UTC), as it was known at most `KNOWN_S` ago. One read."""
        month = this_month()
        known = (owner, key_id, month)
        with self._lock:
            until, spent = self._months.get(known, (0.0, 0))
        if self._clock() < until:
            return spent
        spent = self._read_month(owner, key_id, month).nanousd or 0
        with self._lock:
            if len(self._months) >= _MOST_KEYS:
                self._months.clear()
            self._months[known] = (self._clock() + KNOWN_S, spent)
        return spent

    def _read_month(self, owner: str, key_id: str, month: str) -> Usage:
        begin, end = month_of_key(month, key_id)
        items = self._table.query_all(
            "#pk = :pk AND #sk BETWEEN :begin AND :end", {"pk": usage_pk(owner), "begin": begin, "end": end}
        )
        return total(map(Usage.from_item, items))


def this_month() -> str:
    """The month that it is now, in UTC: `2026-11`."""
    return f"{moment_of(now_s()):%Y-%m}"
