"""The report of a batch: what became of each line, as rows and as a table; a summary; and lines for another try.

    range whose jobs have ended ──► its part: rows
    all parts ──► .report.jsonl and .csv, .failed.jsonl, .bad.jsonl, and at last .report.json

A part is written as soon as possible, and stays: an invocation that is cut off is continued by the next, and none must
last as long as the batch. The parts are gone through several times: only one of them is in memory, and on disk only the
table and the first line of each job.
"""

from __future__ import annotations

import csv
import gzip
import hashlib
import io
import json
import tempfile
from collections import Counter
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, TextIO

from boto3.s3.transfer import TransferConfig

from comfy_serverless.aws.dynamodb import now_text
from comfy_serverless.aws.s3 import S3Address
from comfy_serverless.batches.batch import Batch, BatchStatus
from comfy_serverless.batches.cells import cell
from comfy_serverless.batches.cure import BAD, REPEATABLE, is_curable
from comfy_serverless.batches.fates import BadBetween, Fate, fates
from comfy_serverless.batches.first_lines import FirstLines
from comfy_serverless.batches.pinning import Pins, labels_of_job
from comfy_serverless.batches.reading import THREADS, read_lines
from comfy_serverless.batches.results import Row, shown_input
from comfy_serverless.errors import InvalidRequest
from comfy_serverless.jobs.document import JobStatus
from comfy_serverless.jobs.keys import folder_prefix
from comfy_serverless.jobs.named_lines import with_job_id
from comfy_serverless.jobs.outward import outward

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client

    from comfy_serverless.batches.ranges import Range
    from comfy_serverless.errors import ComfyError
    from comfy_serverless.jobs.request import JobRequest
    from comfy_serverless.jobs.reserved import Reserved
    from comfy_serverless.table.job_state import JobState
    from comfy_serverless.table.reader import JobReader

#: The form in which parts are written. Those of another form, of another release, are written anew.
PART_FORM = 2
#: How many failures the summary names; all are in the table.
MAX_FAILURES = 1000
#: Of these, how many the table keeps beside the batch, and the characters of their messages.
MAX_TOLD, MAX_SAID = 10, 300
#: The table's columns. New ones go to the end: people read them by their position. Behind them come those of labels
#: and of inputs, whose names are those of the requests.
COLUMNS = (
    *("line", "job_id", "status", "code", "message", "result", "duplicate_of"),
    *("retryable", "created_at", "completed_at", "outputs"),
)
#: The most columns for labels, and for inputs; what has none is in the rows.
MAX_COLUMNS = 100
#: The most characters of a message in a row.
MAX_MESSAGE_CHARACTERS = 500
#: Characters of a job's id (JOB_ID_PATTERN).
MAX_JOB_ID = 64
_FAILURES = frozenset({JobStatus.FAILED.value, JobStatus.EXPIRED.value, BAD})
#: One piece after the other: with threads, s3transfer holds ten pieces of 8 MB of what cannot be read twice.
ONE_BY_ONE = TransferConfig(use_threads=False)


@dataclass(slots=True)
class Summary:
    """Counts of all lines, and the names that labels and inputs have, in the order in which they come."""

    lines: int = 0
    bad: int = 0
    duplicates: int = 0
    curable: int = 0
    statuses: Counter[str] = field(default_factory=Counter)
    codes: Counter[str] = field(default_factory=Counter)
    failures: list[dict[str, Any]] = field(default_factory=list)
    labels: dict[str, None] = field(default_factory=dict)
    inputs: dict[str, None] = field(default_factory=dict)
    unread: int = 0

    def add(self, row: dict[str, Any]) -> None:
        """Count a row."""
        error = row["error"] or {}
        self.lines += 1
        if row["status"] == BAD:
            self.bad += 1
        elif row["duplicate_of"]:
            self.duplicates += 1
        else:
            self.statuses[row["status"]] += 1
            self.codes.update([error["code"]] if error else [])
            self.curable += is_curable(row["status"], error.get("code", ""), retryable=error.get("retryable", False))
        if row["status"] in _FAILURES and len(self.failures) < MAX_FAILURES:
            named = {name: row[name] for name in ("line", "job_id", "status")}
            self.failures.append({**named, "code": error.get("code", ""), "message": error.get("message", "")})
        for names, found in ((self.labels, row["metadata"]), (self.inputs, row["inputs"])):
            if len(names) < 100 * MAX_COLUMNS:  # they are only counted, from some on
                names.update(dict.fromkeys(found))

    @property
    def columns_left_out(self) -> int:
        """How many labels and inputs have no column."""
        return max(0, len(self.labels) - MAX_COLUMNS) + max(0, len(self.inputs) - MAX_COLUMNS)

    @property
    def is_all_bad(self) -> bool:
        """Whether no line is a request, of one at least."""
        return 0 < self.lines == self.bad


def write_part(
    s3: S3Client,
    jobs: JobReader,
    batch: Batch,
    part: Range,
    *,
    reserved: Reserved,
    bad_between: BadBetween = lambda _first, _last: {},
) -> int | None:
    """Write a range's part of the report, next to our copy of the manifest. `bad_between`: see `fates`.

    Returns None; or, without writing, the offset of the first line whose job has not ended.
    """
    content, number, pins = io.BytesIO(), 0, Pins(s3)
    with gzip.GzipFile(fileobj=content, mode="wb", compresslevel=1, mtime=0) as rows:
        for chunk in fates(s3, jobs, batch, part, reserved=reserved, bad_between=bad_between):
            open_fate = next((fate for fate in chunk.lines if fate.is_open_in(batch)), None)
            if open_fate is not None:
                return open_fate.line.offset
            outputs = _unsaid_outputs([fate.state for fate in chunk.lines if fate.state is not None], jobs)
            for fate in chunk.lines:
                rows.write(json.dumps(_row(fate, outputs, pins, batch)).encode() + b"\n")
            number = chunk.number
        unread = _unread_lines(s3, batch, part)
        number += len(unread)
        last = {"begun": number, **({"unread": sum(unread)} if unread else {})}
        rows.write(json.dumps(last).encode() + b"\n")
    place = _place(batch, part)
    s3.put_object(Bucket=place.bucket, Key=place.key, Body=content.getvalue())
    return None


def _unread_lines(s3: S3Client, batch: Batch, part: Range) -> bytes:
    """The lines of a range that are not read, one for each that is not blank: only counted, so that those behind them
    keep their numbers.
    """
    lines = read_lines(s3, batch, start=part.end, end=part.end + part.unread)
    return bytes(not line.is_blank for line in lines)


@dataclass(frozen=True, slots=True)
class Written:
    """A report that is written.

    Attributes:
        address: of the summary.
        status: how the batch has ended.
        summary: what the table keeps of it (`Batch.summary`).
    """

    address: str
    status: BatchStatus
    summary: dict[str, Any]


def write_report(
    s3: S3Client, batch: Batch, parts: Sequence[Range], *, bucket: str, prefix: str, problem: ComfyError | None = None
) -> Written:
    """Put the parts together to all files.

    Args:
        problem: why the batch has no lines at all.
    """
    base = f"{folder_prefix(prefix)}batches/{batch.id}"

    def upload(pieces: Iterator[bytes], ending: str, content_type: str) -> str:
        body: Any = Pieces(pieces)
        extra = {"ContentType": content_type}
        s3.upload_fileobj(body, bucket, f"{base}{ending}", ExtraArgs=extra, Config=ONE_BY_ONE)
        return f"s3://{bucket}/{base}{ending}"

    with tempfile.TemporaryDirectory() as name, closing(FirstLines(Path(name) / "first.db")) as first_lines:
        summary = Summary()
        _summarise(_numbered(s3, batch, parts, into=summary), first_lines, summary)

        def rows(having: bytes = b"") -> Iterator[dict[str, Any]]:
            for row in first_lines.marked(_numbered(s3, batch, parts, having=having)):
                yield _told(row, first_lines)

        table, lines = Path(name) / "report.csv", "application/jsonl"
        with table.open("w", newline="", encoding="utf-8", errors="replace") as cells:
            both = _as_lines(_put_into(cells, rows(), summary))
            written = {"rows": upload(both, ".report.jsonl", lines)}
        written["table"] = f"s3://{bucket}/{base}.report.csv"
        s3.upload_file(str(table), bucket, f"{base}.report.csv", ExtraArgs={"ContentType": "text/csv"})
        written["failed_lines"] = upload(_lines_again(rows(having=b'"again": "')), ".failed.jsonl", lines)
        written["bad_lines_text"] = upload(_bad_lines(rows(having=b'"raw": "')), ".bad.jsonl", lines)
    if problem is not None:
        said = {"code": problem.code, "message": outward(problem.message)[:MAX_MESSAGE_CHARACTERS]}
        summary.failures.append({"line": None, "job_id": "", "status": BAD, **said})
    status = batch.final_status(is_all_bad=summary.is_all_bad or problem is not None)
    # It has ended with this.
    notes = replace(batch, report=f"s3://{bucket}/{base}.report.json").notes
    document = {
        "batch": batch.id,
        "source": batch.called if batch.is_owned else batch.source,
        "status": status.value,
        "created_at": batch.created_at,
        "completed_at": now_text(),
        "lines": summary.lines,
        "bad_lines": summary.bad,
        "duplicates": summary.duplicates,
        "statuses": dict(summary.statuses),
        "codes": dict(summary.codes),
        "curable": summary.curable,
        **written,
        "columns_left_out": summary.columns_left_out,
        **({"unread_lines": summary.unread} if summary.unread else {}),
        **({"notes": notes} if notes else {}),
        "first_failures": summary.failures,
    }
    content = json.dumps(document, ensure_ascii=False, indent=1).encode("utf-8", "replace")
    s3.put_object(Bucket=bucket, Key=f"{base}.report.json", Body=content, ContentType="application/json")
    kept = {
        "counts": {**summary.statuses, "bad": summary.bad, "duplicates": summary.duplicates},
        **{name: document[name] for name in ("codes", "curable", "completed_at")},
        "failures": [{**one, "message": str(one["message"])[:MAX_SAID]} for one in summary.failures[:MAX_TOLD]],
    }
    return Written(f"s3://{bucket}/{base}.report.json", status, kept)


# The rows of a part.


def _row(fate: Fate, outputs: dict[str, tuple[str, ...]], pins: Pins, batch: Batch) -> dict[str, Any]:
    """A line's row, with its number in the range, and what another try of it needs."""
    if (request := fate.request) is None:
        bad = Row(line=fate.line.number, status=BAD, code=InvalidRequest.code, message=fate.problem)
        is_shown = fate.line.content is not None and not fate.may_hold_keys
        raw = (fate.line.content or b"").decode("utf-8", "surrogateescape") if is_shown else None
        return {**bad.to_json(), "raw": raw, **({"id_of_line": fate.id_of_line} if fate.id_of_line else {})}
    row = _row_of_job(fate, request, outputs, batch)
    if row.status not in REPEATABLE:
        return {**row.to_json(), "again": None}
    again = with_job_id(fate.line, next_id(fate.job_id), workflow=pins.of(request, fate.state))
    return {**row.to_json(), "again": again}


def _row_of_job(fate: Fate, request: JobRequest, outputs: dict[str, tuple[str, ...]], batch: Batch) -> Row:
    state = fate.state
    inputs = {name: shown_input(value) for name, value in request.inputs.items()}
    if state is None:  # the batch was canceled before it was read
        status = JobStatus.CANCELED.value
        return Row(line=fate.line.number, job_id=fate.job_id, status=status, metadata=request.metadata, inputs=inputs)
    document = state.document() if batch.is_owned else state.whole_document()  # an owner's report is for key holders
    error = document.error
    result = document.result_uri or state.result  # in OUTPUT_BUCKET, if its own bucket refused it
    return Row(
        line=fate.line.number,
        job_id=fate.job_id,
        status=state.status.value,
        code=error.code if error else "",
        message=error.message[:MAX_MESSAGE_CHARACTERS] if error else "",
        retryable=error.retryable if error else False,
        result=result,
        created_at=state.created_at,
        completed_at=state.completed_at or "",
        metadata=labels_of_job(request, state),
        inputs=inputs,
        outputs=state.outputs_beside(result) or outputs.get(state.id, ()),
        outputs_uri=document.outputs_uri or "",
    )


def _unsaid_outputs(states: Sequence[JobState], jobs: JobReader) -> dict[str, tuple[str, ...]]:
    """The addresses of what jobs have made, where their items do not say: of older releases, and of very many files."""
    unsaid = [state.id for state in states if state.output_places and state.output_names is None]
    if not unsaid:
        return {}
    with ThreadPoolExecutor(THREADS, thread_name_prefix="outputs") as pool:
        read = [state for state in pool.map(jobs.read, unsaid) if state is not None]
    return {state.id: tuple(output.s3_uri for output in state.outputs if output.s3_uri) for state in read}


def _place(batch: Batch, part: Range) -> S3Address:
    manifest = S3Address.parse(batch.manifest)
    return S3Address(manifest.bucket, f"{manifest.key.removesuffix('.jsonl')}/{part.start:015}.{PART_FORM}.jsonl.gz")


def next_id(job_id: str) -> str:
    """The id for another try of a job: different for different jobs, however long their ids are."""
    stem, _, number = job_id.rpartition("-again")
    is_again = bool(stem) and number.isdecimal()
    stem, suffix = (stem, f"-again{int(number) + 1}") if is_again else (job_id, "-again2")
    if len(stem) + len(suffix) > MAX_JOB_ID:
        digest = hashlib.sha256(stem.encode()).hexdigest()[:12]
        stem = f"{stem[: MAX_JOB_ID - len(suffix) - 13]}-{digest}"
    return stem + suffix


# The parts together.


def _numbered(
    s3: S3Client, batch: Batch, parts: Sequence[Range], *, having: bytes = b"", into: Summary | None = None
) -> Iterator[dict[str, Any]]:
    """All rows, with their lines' numbers in the file: as many more as lines begin in the ranges before.

    Args:
        having: rows without these bytes are left out, without being parsed.
        into: is told how many lines are not read.
    """
    before = 0
    for part in parts:
        place = _place(batch, part)
        body = s3.get_object(Bucket=place.bucket, Key=place.key)["Body"].read()
        with gzip.GzipFile(fileobj=io.BytesIO(body)) as rows:
            for line in rows:
                if having not in line and not line.startswith(b'{"begun"'):
                    continue
                row = json.loads(line)
                if "begun" in row:  # the last one
                    before += row["begun"]
                    if into is not None:
                        into.unread += row.get("unread", 0)
                else:
                    row["line"] += before
                    yield row


def _summarise(rows: Iterator[dict[str, Any]], first_lines: FirstLines, summary: Summary) -> None:
    for row in rows:
        if row["job_id"]:
            row["duplicate_of"] = first_lines.of(row["job_id"], row["line"])
        summary.add(_told(row, first_lines))


def _told(row: dict[str, Any], first_lines: FirstLines) -> dict[str, Any]:
    """The row of a line whose job's id another line has says which, if that was seen."""
    if (job_id := row.get("id_of_line")) and (line := first_lines.find(job_id)) is not None:
        row["error"]["message"] += f" It is that of line {line}."
    return row


def _as_lines(rows: Iterator[dict[str, Any]]) -> Iterator[bytes]:
    """The rows as `results.Row` reads them."""
    for row in rows:
        row.pop("again", None)
        row.pop("raw", None)
        row.pop("id_of_line", None)
        yield json.dumps(row, ensure_ascii=False).encode("utf-8", "replace") + b"\n"


def _put_into(cells: TextIO, rows: Iterator[dict[str, Any]], summary: Summary) -> Iterator[dict[str, Any]]:
    """Write the rows into the table as they pass."""
    labels, inputs = list(summary.labels)[:MAX_COLUMNS], list(summary.inputs)[:MAX_COLUMNS]
    table = csv.writer(cells)
    table.writerow([*COLUMNS, *(f"metadata.{name}" for name in labels), *(f"inputs.{name}" for name in inputs)])
    for row in rows:
        error = row["error"]
        table.writerow(
            [
                *(row["line"], row["job_id"], row["status"]),
                *((error["code"], cell(error["message"])) if error else ("", "")),
                *(row["result"], row["duplicate_of"] or ""),
                *(str(error["retryable"]).lower() if error else "", row["created_at"], row["completed_at"]),
                "\n".join(row["outputs"]),
                *(cell(row["metadata"].get(name, "")) for name in labels),
                *(cell(row["inputs"].get(name, "")) for name in inputs),
            ]
        )
        yield row


def _lines_again(rows: Iterator[dict[str, Any]]) -> Iterator[bytes]:
    """The lines that can be dropped again, each job once."""
    for row in rows:
        if row.get("again") is not None and not row["duplicate_of"]:
            yield row["again"].encode() + b"\n"


def _bad_lines(rows: Iterator[dict[str, Any]]) -> Iterator[bytes]:
    """The lines that are no requests, as they came, to be mended; without those that are too long, or may hold keys."""
    for row in rows:
        if row.get("raw") is not None:
            yield row["raw"].encode("utf-8", "surrogateescape") + b"\n"


class Pieces(io.RawIOBase):
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
