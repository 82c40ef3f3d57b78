"""What became of every line of a batch: a table, a summary, and the failed lines ready to be dropped again."""

from __future__ import annotations

import csv
import json
import tempfile
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, TextIO

from comfy_serverless.batches.manifest import in_chunks, read_lines, request_in
from comfy_serverless.batches.store import Batch
from comfy_serverless.errors import InvalidRequest
from comfy_serverless.jobs.keys import folder_prefix
from comfy_serverless.jobs.lines import Line
from comfy_serverless.jobs.models import JobStatus
from comfy_serverless.jobs.store.table import MAX_READS, now_text

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client

    from comfy_serverless.jobs.models import JobRequest
    from comfy_serverless.jobs.store.job_state import JobState
    from comfy_serverless.jobs.store.jobs import JobStore

#: Failures that the summary names; all are in the table.
MAX_FAILURES = 1000
COLUMNS = ("line", "job_id", "status", "code", "message", "result", "duplicate_of")


@dataclass(frozen=True, slots=True)
class Fate:
    """A line and what became of it."""

    line: Line
    request: JobRequest | None = None
    problem: str = ""
    state: JobState | None = None


@dataclass(slots=True)
class Summary:
    """Counts, over all lines."""

    lines: int = 0
    bad: int = 0
    duplicates: int = 0
    statuses: Counter[str] = field(default_factory=Counter)
    codes: Counter[str] = field(default_factory=Counter)
    failures: list[dict[str, Any]] = field(default_factory=list)


def fates(s3: S3Client, jobs: JobStore, batch: Batch, *, start: int = 0) -> Iterator[list[Fate]]:
    """Lines and their jobs, a hundred at a time: one read of the table each."""
    for chunk in in_chunks(read_lines(s3, batch, start=start), MAX_READS):
        found = [_asked(line, batch) for line in chunk]
        states = jobs.many([str(fate.request.job_id) for fate in found if fate.request is not None])
        yield [
            Fate(fate.line, fate.request, fate.problem, states.get(str(fate.request.job_id)))
            if fate.request is not None
            else fate
            for fate in found
        ]


def write_report(s3: S3Client, jobs: JobStore, batch: Batch, *, bucket: str, prefix: str) -> str:
    """Write all three files; answers where the summary is. Again, they are the same."""
    base = f"{folder_prefix(prefix)}batches/{batch.id}"
    summary = Summary()
    with tempfile.TemporaryDirectory() as folder:
        table, failed = Path(folder) / "report.csv", Path(folder) / "failed.jsonl"
        with table.open("w", newline="", encoding="utf-8") as rows, failed.open("w", encoding="utf-8") as lines:
            _write_rows(s3, jobs, batch, summary, rows, lines)
        s3.upload_file(str(table), bucket, f"{base}.report.csv", ExtraArgs={"ContentType": "text/csv"})
        s3.upload_file(str(failed), bucket, f"{base}.failed.jsonl", ExtraArgs={"ContentType": "application/jsonl"})
    key = f"{base}.report.json"
    document = {
        "batch": batch.id,
        "source": batch.source,
        "status": batch.status.value,
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


def _write_rows(s3: S3Client, jobs: JobStore, batch: Batch, summary: Summary, rows: TextIO, failed: TextIO) -> None:
    table = csv.writer(rows)
    table.writerow(COLUMNS)
    seen: dict[str, int] = {}
    for chunk in fates(s3, jobs, batch):
        for fate in chunk:
            summary.lines += 1
            row = _row(fate, summary, seen)
            table.writerow([row[name] for name in COLUMNS])
            if row["status"] in {"failed", "expired", "bad"} and len(summary.failures) < MAX_FAILURES:
                summary.failures.append({name: row[name] for name in ("line", "job_id", "status", "code", "message")})
            if row["status"] in {"failed", "expired", "canceled"} and not row["duplicate_of"]:
                failed.write(_again(fate) + "\n")


def _row(fate: Fate, summary: Summary, seen: dict[str, int]) -> dict[str, Any]:
    row: dict[str, Any] = {**dict.fromkeys(COLUMNS, ""), "line": summary.lines}
    if fate.request is None:
        summary.bad += 1
        return {**row, "status": "bad", "code": InvalidRequest.code, "message": fate.problem}
    job_id = str(fate.request.job_id)
    # Only what comes again is remembered by its whole id: memory stays flat enough for a manifest of millions.
    first = seen.setdefault(job_id, summary.lines)
    if first != summary.lines:
        summary.duplicates += 1
        row["duplicate_of"] = first
    if fate.state is None:
        status, job = JobStatus.CANCELED.value, None
    else:
        status, job = fate.state.status.value, fate.state.document()
    if first == summary.lines:
        summary.statuses[status] += 1
        if job is not None and job.error is not None:
            summary.codes[job.error.code] += 1
    error = job.error if job is not None else None
    result = fate.state.head.get("result", "") if fate.state is not None else ""
    return {
        **row,
        "job_id": job_id,
        "status": status,
        "code": error.code if error else "",
        "message": error.message[:500] if error else "",
        "result": result,
    }


def _again(fate: Fate) -> str:
    """The line with a new id, the same each time: the old one has had its outcome."""
    request = json.loads(fate.line.content or b"{}")
    if "workflow" not in request:
        request = {"workflow": request}
    old = str(fate.request.job_id) if fate.request else "line"
    stem, _, number = old.rpartition("-again")
    count = int(number) + 1 if stem and number.isdecimal() else 2
    base = stem if stem and number.isdecimal() else old
    return json.dumps({**request, "job_id": f"{base[:54]}-again{count}"}, ensure_ascii=False)


def _asked(line: Line, batch: Batch) -> Fate:
    try:
        return Fate(line, request_in(line, batch))
    except InvalidRequest as error:
        return Fate(line, problem=error.message[:500])
