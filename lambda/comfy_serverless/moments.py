"""The present moment, and how moments are written: the same in the API, in documents and in the table."""

from __future__ import annotations

import time
from collections.abc import Callable
from datetime import UTC, datetime

#: Seconds since 1970. Tests have their own.
_clock: Callable[[], float] = time.time


def now() -> datetime:
    """This moment."""
    return datetime.fromtimestamp(_clock(), UTC)


def moment_text(moment: datetime) -> str:
    """A moment as the API writes it: `2026-01-31T12:00:00.000Z`. Sorts as text."""
    return moment.astimezone(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
