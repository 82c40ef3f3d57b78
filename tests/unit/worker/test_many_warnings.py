"""A job's document has the first of its warnings, and the number of the others."""

from __future__ import annotations

from comfy_serverless.jobs.document import MAX_WARNINGS
from comfy_serverless.worker.record import JobRecord


def test_a_document_has_the_first_warnings_and_says_how_many_more_there_are() -> None:
    record = JobRecord(job_id="a", metadata={}, warnings=[f"{number}\ud800" for number in range(250)])
    warnings = record.document(None).warnings
    assert warnings[:2] == ("0?", "1?")
    assert warnings[MAX_WARNINGS:] == ("and 150 more",)


def test_what_a_request_has_counted_is_counted_on() -> None:
    record = JobRecord(job_id="a", metadata={}, warnings=[*map(str, range(100)), "and 7 more", "of the run"])
    assert record.document(None).warnings[MAX_WARNINGS:] == ("and 8 more",)
