"""The route of a job's log: its owner's alone, and it says why there is none."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from comfy_serverless.api import logs
from tests.unit.api.test_job_lists import FAILURE, end, make
from tests.unit.api_world import RESULTS, ApiWorld, api_world


@pytest.fixture
def api(monkeypatch: pytest.MonkeyPatch) -> Iterator[ApiWorld]:
    with api_world(monkeypatch) as world:
        yield world


def keep(api: ApiWorld, job_id: str, content: bytes, *, owner: str = "team") -> None:
    """What a worker leaves beside the result."""
    api.s3.put_object(Bucket=RESULTS, Key=f"owners/{owner}/{job_id}/log.txt", Body=content)


def log(api: ApiWorld, job_id: str, **who: Any) -> dict[str, Any]:
    answer = api.request("GET", f"/api/v2/jobs/{job_id}/log", **who)
    assert answer.status == 200, answer.text
    document: dict[str, Any] = answer.json
    return document


def test_the_lines_of_a_job_that_failed_are_told(api: ApiWorld) -> None:
    end(api, make(api, "bad"), error=FAILURE)
    keep(api, "bad", "got prompt\n\n<script>alert(1)</script> ü\n".encode())
    api.calls.clear()
    assert log(api, "bad") == {
        "lines": ["got prompt", "", "<script>alert(1)</script> ü"],
        "is_complete": True,
        "note": None,
    }
    assert api.calls == {"GetItem": 1}


def test_a_log_without_its_beginning_is_not_complete(api: ApiWorld) -> None:
    end(api, make(api, "bad"), error=FAILURE)
    keep(api, "bad", "… 7 lines before these are left out …\nlast\n".encode())
    assert (log(api, "bad")["is_complete"], log(api, "bad")["lines"][-1]) == (False, "last")


def test_what_an_older_or_careless_worker_has_kept_is_redacted_when_it_is_read(api: ApiWorld) -> None:
    end(api, make(api, "bad"), error=FAILURE)
    keep(api, "bad", b"arn:aws:iam::123456789012:role/x may not read /tmp/a/b.txt\n\xff\xfe")
    told = "".join(log(api, "bad")["lines"])
    assert "123456789012" not in told
    assert "/tmp" not in told


def test_why_there_is_none_is_said(api: ApiWorld) -> None:
    end(api, make(api, "good"))
    assert api.services.jobs.begin(make(api, "runs"), run="run").state is not None
    make(api, "waits")
    canceled = api.services.jobs.read(make(api, "canceled"))
    assert canceled is not None
    api.services.jobs.cancel(canceled)
    notes = {job_id: log(api, job_id)["note"] for job_id in ("good", "runs", "waits", "canceled")}
    assert "KEEP_LOGS" in notes["good"]
    assert "not ended" in notes["runs"] == notes["waits"]
    assert "before a worker ran it" in notes["canceled"]
    assert not any(log(api, job_id)["lines"] or log(api, job_id)["is_complete"] for job_id in notes)


def test_nobody_reads_the_log_of_another_owner(api: ApiWorld) -> None:
    end(api, make(api, "theirs", owner="other"), error=FAILURE)
    keep(api, "theirs", b"secret\n", owner="other")
    keep(api, "theirs", b"mine\n")
    foreign, missing = (api.request("GET", f"/api/v2/jobs/{job_id}/log") for job_id in ("theirs", "nobody"))
    assert (foreign.status, foreign.text.replace("theirs", "nobody")) == (404, missing.text)
    assert log(api, "theirs", owner="other")["lines"] == ["secret"]


def test_a_log_is_read_up_to_a_bound(api: ApiWorld, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(logs, "MAX_LOG_BYTES", 10)
    end(api, make(api, "bad"), error=FAILURE)
    keep(api, "bad", b"0123\n5678\n" + b"x" * 1_000_000)
    assert log(api, "bad")["lines"] == ["0123", "5678"]
    keep(api, "bad", b"")
    assert log(api, "bad") == {"lines": [], "is_complete": True, "note": None}


def test_a_parameter_that_it_does_not_have_is_refused(api: ApiWorld) -> None:
    end(api, make(api, "bad"), error=FAILURE)
    assert api.request("GET", "/api/v2/jobs/bad/log?follow=1").status == 422
