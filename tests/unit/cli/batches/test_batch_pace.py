"""The line of `--watch`."""

from __future__ import annotations

from typing import Any

import pytest

from comfy_serverless.batches.progress import BatchProgress
from comfy_serverless.cli.batches.pace import progress_line, rate_text


def progress(**options: Any) -> BatchProgress:
    none = dict.fromkeys(("bad", "duplicates", "queued", "running", "succeeded", "failed", "canceled", "expired"), 0)
    known = {"status": "running", "lines": 500, "lines_total": 500, "is_read": True, "counted_at": None}
    return BatchProgress(**{**none, **known, "per_second": None, "left_s": None, **options})


@pytest.mark.parametrize(
    ("options", "line"),
    [
        (
            {"succeeded": 209, "failed": 2, "bad": 1, "per_second": 1.9, "left_s": 151},
            "212/500  3 failed  1.9/s  ETA 2:31",
        ),
        ({"succeeded": 212}, "212/500"),
        ({"succeeded": 212, "per_second": 0.2, "left_s": 1440}, "212/500  12/min  ETA 24:00"),
        ({"is_read": False, "lines": 400, "lines_total": 5000, "succeeded": 12}, "12/~5,000"),
        ({"succeeded": 498, "failed": 2, "per_second": 1.0, "left_s": 0}, "500/500  2 failed  1.0/s"),
        ({"status": "paused", "succeeded": 212, "per_second": 1.9, "left_s": 151}, "212/500  paused"),
        ({"status": "canceled", "succeeded": 2, "canceled": 498}, "500/500  canceled"),
    ],
)
def test_it_says_how_many_of_how_many_how_fast_and_how_long(options: dict[str, Any], line: str) -> None:
    assert progress_line(progress(**options)) == line


@pytest.mark.parametrize("width", range(1, 60))
def test_a_narrow_terminal_gets_the_beginning(width: int) -> None:
    whole = progress_line(progress(succeeded=209, failed=3, per_second=1.9, left_s=151))
    line = progress_line(progress(succeeded=209, failed=3, per_second=1.9, left_s=151), width=width)
    assert whole.startswith(line)
    assert len(line) <= max(width, len("212/500"))


@pytest.mark.parametrize(
    ("per_second", "text"),
    [(12.34, "12.3/s"), (0.96, "1.0/s"), (0.5, "30/min"), (0.01, "36/h"), (0.0001, "9/d")],
)
def test_a_rate_has_a_unit_that_fits(per_second: float, text: str) -> None:
    assert rate_text(per_second) == text
