"""A report of usage has an end, however many workflows labels name: it says so, instead of adding up a part."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import date

import pytest

from comfy_serverless.errors import InvalidRequest
from comfy_serverless.table import usage_report
from comfy_serverless.table.usage_items import Counter, Usage
from comfy_serverless.table.usage_report import Asked, report

WEEK = Asked(by=("workflow",), first=date(2026, 11, 1), last=date(2026, 11, 7))


def counters(count: int, *, workflows: int) -> Iterator[Counter]:
    """Counters of so many workflows, read one by one: nobody has them all in memory."""
    for number in range(count):
        yield Counter(owner="ana", day="2026-11-01", workflow=f"w{number % workflows}", key_id="", usage=Usage(jobs=1))


def test_as_many_rows_as_a_report_has_are_added_up() -> None:
    told = report(counters(2 * usage_report.MOST_ROWS, workflows=usage_report.MOST_ROWS), WEEK)
    assert (len(told["rows"]), told["total"]["jobs"]) == (usage_report.MOST_ROWS, 2 * usage_report.MOST_ROWS)


def test_more_rows_are_refused_before_the_rest_is_read() -> None:
    many = counters(1_000_000, workflows=1_000_000)
    with pytest.raises(InvalidRequest, match=r"more than 10,000 rows.*the jobs of 'ana'.*fewer days"):
        report(many, WEEK)
    assert next(many).workflow == f"w{usage_report.MOST_ROWS + 2}", "no more was read than shows that it is too much"


def test_more_counters_than_one_report_adds_up_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(usage_report, "MOST_COUNTERS", 50)
    day = Asked(by=("day", "key"), first=date(2026, 11, 1), last=date(2026, 11, 1))
    assert report(counters(50, workflows=50), day)["total"]["jobs"] == 50
    with pytest.raises(InvalidRequest, match=r"50 counters of a workflow, key and day.*ask for less at once"):
        report(counters(51, workflows=1), day)
