"""Which line of a batch was a job's first: a line that names the job again is a duplicate of it."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from pathlib import Path
from typing import Any


class FirstLines:
    """The first line of each job, on disk: there may be more of them than fit into memory."""

    def __init__(self, path: Path) -> None:
        self._database = sqlite3.connect(path, isolation_level=None)
        self._database.execute("PRAGMA journal_mode = OFF")
        self._database.execute("CREATE TABLE first (job_id TEXT PRIMARY KEY, line INTEGER) WITHOUT ROWID")
        self._database.execute("CREATE TABLE twice (line INTEGER PRIMARY KEY, first INTEGER)")
        self._database.execute("BEGIN")

    def of(self, job_id: str, line: int) -> int | None:
        """The first line of this job; None if it is this one."""
        inserted = self._database.execute("INSERT OR IGNORE INTO first VALUES (?, ?)", (job_id, line))
        if inserted.rowcount:
            return None
        (first,) = self._database.execute("SELECT line FROM first WHERE job_id = ?", (job_id,)).fetchone()
        self._database.execute("INSERT INTO twice VALUES (?, ?)", (line, first))
        return int(first)

    def find(self, job_id: str) -> int | None:
        """The first line of a job, among those that were told."""
        found = self._database.execute("SELECT line FROM first WHERE job_id = ?", (job_id,)).fetchone()
        return int(found[0]) if found else None

    def marked(self, rows: Iterator[dict[str, Any]]) -> Iterator[dict[str, Any]]:
        """The rows, those of a job that came before with its first line."""
        pairs = self._database.execute("SELECT line, first FROM twice ORDER BY line")
        line, first = pairs.fetchone() or (None, None)
        for row in rows:
            while line is not None and line < row["line"]:
                line, first = pairs.fetchone() or (None, None)
            if row["line"] == line:
                row["duplicate_of"] = first
            yield row

    def close(self) -> None:
        """Let go of the file."""
        self._database.close()
