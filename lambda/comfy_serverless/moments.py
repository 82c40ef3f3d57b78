"""Writes a moment, the same way everywhere: in the API, in documents and in the table."""

from __future__ import annotations

from datetime import UTC, datetime


def moment_text(moment: datetime) -> str:
    """A moment as the API writes it: `2026-01-31T12:00:00.000Z`. Sorts as text."""
    return moment.astimezone(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
