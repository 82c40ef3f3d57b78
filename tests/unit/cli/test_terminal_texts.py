"""What others have written moves no cursor and forges no line in the terminal of whoever looks at a batch."""

from __future__ import annotations

import pytest

from comfy_serverless.batches.progress import BatchProgress
from comfy_serverless.cli.batches.place import Known
from comfy_serverless.cli.batches.telling import show, show_all
from comfy_serverless.cli.habits import say

HOSTILE = "it failed\x1b[2J\x1b]0;owned\x07\r\nstatus     completed\u202e\x9b31m"


def batch() -> Known:
    failure = {"line": 1, "code": "node_execution_error", "message": HOSTILE, "status": "failed", "job_id": "a"}
    return Known(
        name=f"photos{HOSTILE}",
        id=HOSTILE,
        created_at="2026-11-30T00:00:00.000Z",
        progress=BatchProgress(
            status="completed",
            lines=3,
            lines_total=3,
            is_read=True,
            bad=1,
            duplicates=0,
            queued=0,
            running=0,
            succeeded=1,
            failed=1,
            canceled=0,
            expired=0,
            counted_at=None,
            per_second=None,
            left_s=None,
        ),
        report=f"s3://bucket/{HOSTILE}",
        bad_lines=[{"line": 2, "message": HOSTILE}],
        first_failures=[failure],
        curable=1,
    )


def test_a_batchs_names_and_messages_are_shown_as_they_are_written(capsys: pytest.CaptureFixture[str]) -> None:
    show(batch(), as_json=False)
    show_all([batch()], as_json=False)
    shown = capsys.readouterr().out
    assert all(letter.isprintable() or letter == "\n" for letter in shown)
    assert "\\x1b[2J" in shown
    assert [text for text in shown.splitlines() if text.startswith("status")] == ["status     completed"]


def test_what_is_said_beside_has_its_own_lines_and_no_other_sign_that_a_terminal_obeys(
    capsys: pytest.CaptureFixture[str],
) -> None:
    say("two\nlines \x1b[31m\x07\x9b")
    assert capsys.readouterr().err == "two\nlines \\x1b[31m\\x07\\x9b\n"
