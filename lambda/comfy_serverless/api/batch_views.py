"""Batches as the API shows them: counts, first failures, and signed links to their reports."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import TYPE_CHECKING, Any, Final

from comfy_serverless import moments
from comfy_serverless.api.batch_bodies import BatchDocument, Failure
from comfy_serverless.batches.batch import Batch, BatchStatus
from comfy_serverless.batches.ranges import Range, first_lines
from comfy_serverless.batches.results import Results
from comfy_serverless.errors import InvalidRequest
from comfy_serverless.jobs.outward import outward

if TYPE_CHECKING:
    from comfy_serverless.api.services import Services
    from comfy_serverless.batches.progress import BatchProgress

#: The failures that are shown.
MAX_SHOWN: Final = 10
_LINKS: Final = {
    "report_url": (".report.json", "application/json"),
    "csv_url": (".report.csv", "text/csv"),
    "rows_url": (".report.jsonl", "application/jsonl"),
}


def shown(batch: Batch, behind: Services) -> BatchDocument:
    """A batch, with fresh links. One or two reads of the table; of one that has ended, none."""
    if batch.report is not None:
        summary = batch.summary if batch.summary is not None else _read_summary(batch, behind)
        at_end = batch.progress_at_end(summary["counts"])
        return _document(batch, at_end, _told(summary["failures"]), summary=summary, links=_links(batch, behind))
    ranges = behind.batches.ranges(batch.id)
    return _document(batch, batch.progress(ranges), _failures(batch, ranges, behind))


def needs_counting(batch: Batch, *, every_s: float) -> bool:
    """Whether the counts of a batch that somebody looks at are old."""
    if batch.report is not None or batch.status is BatchStatus.PAUSED:
        return False
    if batch.counted_at is None:
        return True
    return (moments.now() - datetime.fromisoformat(batch.counted_at)).total_seconds() > every_s


def _document(
    batch: Batch,
    progress: BatchProgress,
    failures: Sequence[Failure],
    *,
    summary: Mapping[str, Any] | None = None,
    links: Mapping[str, str] | None = None,
) -> BatchDocument:
    ended = summary or {}
    told: dict[str, Any] = {
        **progress.to_json(),
        **{name: ended.get(name) for name in ("completed_at", "curable")},
        **{name: (links or {}).get(name) for name in _LINKS},
    }
    return BatchDocument(
        name=batch.called,
        id=batch.id,
        created_at=batch.created_at,
        first_failures=list(failures),
        notes=[outward(note) for note in batch.notes],
        codes=dict(ended.get("codes", {})),
        **told,
    )


def _links(batch: Batch, behind: Services) -> dict[str, str]:
    results, links = Results.of(behind.s3, batch), behind.links
    return {
        name: links.of(
            address := results.address_of(ending), name=address.key.rpartition("/")[2], content_type=content_type
        ).url
        for name, (ending, content_type) in _LINKS.items()
    }


def _read_summary(batch: Batch, behind: Services) -> dict[str, Any]:
    """What the table would keep of a report that an older release has written."""
    summary = Results.of(behind.s3, batch).summary()
    counts = {**summary["statuses"], "bad": summary["bad_lines"], "duplicates": summary["duplicates"]}
    known = {name: summary.get(name) for name in ("codes", "curable", "completed_at")}
    return {**known, "codes": known["codes"] or {}, "counts": counts, "failures": summary.get("first_failures", [])}


def _failures(batch: Batch, ranges: Sequence[Range], behind: Services) -> list[Failure]:
    """The first lines that have failed so far, or are bad."""
    found = [
        Failure(
            line=None if first is None else first + one["line"] - 1,
            job_id=one["job_id"],
            code=one["code"],
            message=one["message"],
        )
        for part, first in zip(ranges, first_lines(ranges), strict=True)
        for one in part.failures
    ]
    if any(part.bad for part in ranges):
        found += [
            Failure(line=bad.line, job_id=None, code=InvalidRequest.code, message=outward(bad.message)[:300])
            for bad in behind.batches.first_bad(batch.id, ranges, limit=MAX_SHOWN)
        ]
    return sorted(found, key=lambda one: (one.line is None, one.line or 0))[:MAX_SHOWN]


def _told(failures: Sequence[Mapping[str, Any]]) -> list[Failure]:
    """Those of a report; one of a dropped batch was written for the operator."""
    return [
        Failure(
            line=one["line"],
            job_id=one["job_id"] or None,
            code=one["code"],
            message=outward(str(one["message"]))[:300],
        )
        for one in failures[:MAX_SHOWN]
    ]
