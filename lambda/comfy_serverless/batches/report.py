"""The report of a batch: a table of all lines, a summary, and the failed lines, ready to be dropped again.

    range whose jobs have ended ──► its part: rows, failed lines        all parts ──► report.csv, .failed.jsonl, .json

A part is written as soon as possible, and stays: an invocation that is cut off is continued by the next, and none must
last as long as the batch. Only one part is held in memory, and only the table on disk.
"""

from __future__ import annotations

import csv
import hashlib
import io
import json
import sqlite3
import tempfile
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, TextIO

from comfy_serverless.aws.dynamodb import MAX_READS, now_text
from comfy_serverless.aws.s3 import S3Address
from comfy_serverless.batches.reading import in_chunks, read_lines, request_in
from comfy_serverless.batches.store import Batch, BatchStatus, Range
from comfy_serverless.errors import InvalidRequest
from comfy_serverless.jobs.document import JobStatus
from comfy_serverless.jobs.keys import folder_prefix
from comfy_serverless.jobs.lines import Line, document_of
from comfy_serverless.jobs.request import JobRequest
from comfy_serverless.jobs.reserved import Reserved
from comfy_serverless.jobs.shapes import shape
from comfy_serverless.json_text import finite

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client

    from comfy_serverless.table.job_state import JobState
    from comfy_serverless.table.reader import JobReader

#: How many failures the summary names; all are in the table.
MAX_FAILURES = 1000
COLUMNS = ("line", "job_id", "status", "code", "message", "result", "duplicate_of")
#: The columns of a part's row, which does not know the rows before it. New ones go to the end: an older release wrote
#: rows without names, in this order.
_PART_COLUMNS = ("job_id", "status", "code", "message", "result")
#: A row, and its line if that can be dropped again.
Part = tuple[dict[str, str], str | None]
BAD = "bad"
#: Characters of a job's id (JOB_ID_PATTERN).
MAX_JOB_ID = 64
#: The statuses of lines that can be dropped again. A bad line would be as bad as before.
_TO_REPEAT = frozenset({JobStatus.FAILED.value, JobStatus.EXPIRED.value, JobStatus.CANCELED.value})
_FAILURES = frozenset({JobStatus.FAILED.value, JobStatus.EXPIRED.value, BAD})


@dataclass(frozen=True, slots=True)
class Fate:
    """A line, its request or its problem, and the state of its job."""

    line: Line
    request: JobRequest | None = None
    problem: str = ""
    state: JobState | None = None

    @property
    def job_id(self) -> str:
        """The id of its job; empty for a bad line."""
        return str(self.request.job_id) if self.request is not None else ""

    @property
    def is_open(self) -> bool:
        """Whether its job has not ended."""
        return self.state is not None and not self.state.is_over

    @property
    def is_missing(self) -> bool:
        """Whether it has no job: it has not been read yet, or its job was forgotten meanwhile."""
        return self.request is not None and self.state is None


@dataclass(slots=True)
class Summary:
    """Counts of all lines."""

    lines: int = 0
    bad: int = 0
    duplicates: int = 0
    statuses: Counter[str] = field(default_factory=Counter)
    codes: Counter[str] = field(default_factory=Counter)
    failures: list[dict[str, Any]] = field(default_factory=list)

    def add(self, row: dict[str, Any]) -> None:
        """Count a row of the table."""
        self.lines += 1
        if row["status"] == BAD:
            self.bad += 1
        elif row["duplicate_of"]:
            self.duplicates += 1
        else:
            self.statuses[row["status"]] += 1
            self.codes.update([row["code"]] if row["code"] else [])
        if row["status"] in _FAILURES and len(self.failures) < MAX_FAILURES:
            self.failures.append({name: row[name] for name in ("line", "job_id", "status", "code", "message")})


def fates(
    s3: S3Client, jobs: JobReader, batch: Batch, *, reserved: Reserved, start: int = 0, end: int | None = None
) -> Iterator[list[Fate]]:
    """The lines of a range and their jobs, a hundred at a time: one read of the table each."""
    for chunk in in_chunks(read_lines(s3, batch, start=start, end=end), MAX_READS):
        found = [_asked(line, batch, reserved) for line in chunk]
        states = jobs.many([fate.job_id for fate in found if fate.job_id])
        yield [replace(fate, state=states.get(fate.job_id)) for fate in found]


def write_part(s3: S3Client, jobs: JobReader, batch: Batch, part: Range, *, reserved: Reserved) -> int | None:
    """Write a range's part of the report, next to our copy of the manifest.

    Returns None; or, without writing, the offset of the first line whose job has not ended.
    """
    rows: list[str] = []  # some megabytes, mostly of the failed lines
    for chunk in fates(s3, jobs, batch, reserved=reserved, start=part.start, end=part.end):
        for fate in chunk:
            if fate.is_open or (fate.is_missing and batch.status is not BatchStatus.CANCELED):
                return fate.line.offset
            row = _row(fate)
            again = _again(fate) if row["status"] in _TO_REPEAT else None
            rows.append(json.dumps({**row, "again": again}) + "\n")
    place = _place(batch, part)
    s3.put_object(Bucket=place.bucket, Key=place.key, Body="".join(rows).encode())
    return None


def write_report(s3: S3Client, batch: Batch, parts: Sequence[Range], *, bucket: str, prefix: str) -> str:
    """Put the parts together to all three files; returns the address of the summary."""
    base = f"{folder_prefix(prefix)}batches/{batch.id}"
    with tempfile.TemporaryDirectory() as name:
        table = Path(name) / "report.csv"
        with table.open("w", newline="", encoding="utf-8", errors="replace") as rows:
            summary = _put_together(_parts(s3, batch, parts), rows, _FirstLines(Path(name) / "first.db"))
        s3.upload_file(str(table), bucket, f"{base}.report.csv", ExtraArgs={"ContentType": "text/csv"})
        with table.open(newline="", encoding="utf-8") as rows:
            failed: Any = _Pieces(_failed_lines(_parts(s3, batch, parts), rows))
            s3.upload_fileobj(failed, bucket, f"{base}.failed.jsonl", ExtraArgs={"ContentType": "application/jsonl"})
    key = f"{base}.report.json"
    document = {
        "batch": batch.id,
        "source": batch.source,
        "status": batch.final_status.value,
        "created_at": batch.created_at,
        "completed_at": now_text(),
        "lines": summary.lines,
        "bad_lines": summary.bad,
        "duplicates": summary.duplicates,
        "statuses": dict(summary.statuses),
        "codes": dict(summary.codes),
        "table": f"s3://{bucket}/{base}.report.csv",
        "failed_lines": f"s3://{bucket}/{base}.failed.jsonl",
        "first_failures": summary.failures,
    }
    content = json.dumps(document, ensure_ascii=False, indent=1).encode("utf-8", "replace")
    s3.put_object(Bucket=bucket, Key=key, Body=content, ContentType="application/json")
    return f"s3://{bucket}/{key}"


class _FirstLines:
    """The first line of each job, on disk: there may be more of them than fit into memory."""

    def __init__(self, path: Path) -> None:
        self._database = sqlite3.connect(path, isolation_level=None)
        self._database.execute("PRAGMA journal_mode = OFF")
        self._database.execute("CREATE TABLE first (job_id TEXT PRIMARY KEY, line INTEGER) WITHOUT ROWID")
        self._database.execute("BEGIN")

    def of(self, job_id: str, line: int) -> int:
        """The first line of this job; this one if there was none before."""
        inserted = self._database.execute("INSERT OR IGNORE INTO first VALUES (?, ?)", (job_id, line))
        if inserted.rowcount:
            return line
        (first,) = self._database.execute("SELECT line FROM first WHERE job_id = ?", (job_id,)).fetchone()
        return int(first)

    def close(self) -> None:
        self._database.close()


def _put_together(parts: Iterator[Part], rows: TextIO, first_lines: _FirstLines) -> Summary:
    """Write the rows with their numbers, and the first line of each job that came before."""
    summary = Summary()
    table = csv.DictWriter(rows, COLUMNS)
    table.writeheader()
    with closing(first_lines):
        for cells, _ in parts:
            line = summary.lines + 1
            row: dict[str, Any] = {**cells, "line": line, "duplicate_of": ""}
            if row["job_id"] and (first := first_lines.of(row["job_id"], line)) != line:
                row["duplicate_of"] = first
            summary.add(row)
            table.writerow(row)
    return summary


def _failed_lines(parts: Iterator[Part], rows: TextIO) -> Iterator[bytes]:
    """The lines that can be dropped again, each job once."""
    for row, (_, again) in zip(csv.DictReader(rows), parts, strict=True):
        if again is not None and not row["duplicate_of"]:
            yield again.encode() + b"\n"


def _parts(s3: S3Client, batch: Batch, parts: Sequence[Range]) -> Iterator[Part]:
    """Each row of each part, with its line if that can be dropped again."""
    for part in parts:
        place = _place(batch, part)
        for line in s3.get_object(Bucket=place.bucket, Key=place.key)["Body"].read().splitlines():
            yield _parse_row(line)


def _parse_row(line: bytes) -> Part:
    """A row as any release has written it: as a list, before columns had names, and maybe with other columns."""
    row = json.loads(line)
    if isinstance(row, list):
        *cells, again = row
        row = {**dict(zip(_PART_COLUMNS, cells, strict=False)), "again": again}
    return {name: str(row.get(name, "")) for name in _PART_COLUMNS}, row.get("again")


class _Pieces(io.RawIOBase):
    """Reads pieces of bytes like a file."""

    def __init__(self, pieces: Iterator[bytes]) -> None:
        self._pieces = pieces
        self._held = b""

    def readable(self) -> bool:
        return True

    def read(self, size: int = -1) -> bytes:
        """At most `size` bytes, or all of them if that is negative; none at the end."""
        held = [self._held]
        length = len(self._held)
        while size < 0 or length < size:
            piece = next(self._pieces, b"")
            if not piece:
                break
            held.append(piece)
            length += len(piece)
        whole = b"".join(held)
        end = len(whole) if size < 0 else size
        self._held = whole[end:]
        return whole[:end]


def _place(batch: Batch, part: Range) -> S3Address:
    manifest = S3Address.parse(batch.manifest)
    return S3Address(manifest.bucket, f"{manifest.key.removesuffix('.jsonl')}/{part.start:015}.jsonl")


def _row(fate: Fate) -> dict[str, str]:
    row = dict.fromkeys(_PART_COLUMNS, "")
    if fate.request is None:
        return {**row, "status": BAD, "code": InvalidRequest.code, "message": fate.problem}
    row["job_id"] = fate.job_id
    if fate.state is None:  # the batch was canceled before it was read
        return {**row, "status": JobStatus.CANCELED.value}
    document = fate.state.whole_document()
    error = document.error
    return {
        **row,
        "status": fate.state.status.value,
        "code": error.code if error else "",
        "message": error.message[:500] if error else "",
        "result": document.result_uri or fate.state.result,  # in OUTPUT_BUCKET, if its own bucket refused it
    }


def _again(fate: Fate) -> str:
    """The line with a new id, the same each time: the old id has its outcome."""
    shaped = shape(document_of(fate.line.content or b"{}"), known=JobRequest.field_names())
    # Halves of characters, which JSON can hold and a file cannot, stay escaped as in JSON.
    return json.dumps({**finite(shaped.fields), "job_id": next_id(fate.job_id or "line")})


def next_id(job_id: str) -> str:
    """The id for another try of a job: different for different jobs, however long their ids are."""
    stem, _, number = job_id.rpartition("-again")
    is_again = bool(stem) and number.isdecimal()
    stem, suffix = (stem, f"-again{int(number) + 1}") if is_again else (job_id, "-again2")
    if len(stem) + len(suffix) > MAX_JOB_ID:
        digest = hashlib.sha256(stem.encode()).hexdigest()[:12]
        stem = f"{stem[: MAX_JOB_ID - len(suffix) - 13]}-{digest}"
    return stem + suffix


def _asked(line: Line, batch: Batch, reserved: Reserved) -> Fate:
    try:
        return Fate(line, request_in(line, batch, reserved))
    except InvalidRequest as error:
        return Fate(line, problem=error.message[:500])
