"""A request that waits for a job's end: how long, how often it looks, and what it is told."""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta

import pytest

from comfy_serverless.api import waiting
from comfy_serverless.api.waiting import LONGEST_S, SHORTEST_S, wait_for
from comfy_serverless.jobs.document import JobStatus
from comfy_serverless.moments import moment_text
from comfy_serverless.table.job_state import JobState, NewJob
from tests.patience import PATIENCE_S
from tests.unit.api.test_api_jobs import run, submit
from tests.unit.api_world import ApiWorld, api_world
from tests.unit.table.test_job_store import output


@pytest.fixture
def patient(monkeypatch: pytest.MonkeyPatch) -> Iterator[ApiWorld]:
    """An API that lets those wait who ask for a young job: one that any test's is."""
    with api_world(monkeypatch, poll_hold_s=PATIENCE_S) as world:
        yield world


def state_of(age_s: float, status: JobStatus = JobStatus.QUEUED) -> JobState:
    job = NewJob(
        job_id="a",
        owner="team",
        request_uri="s3://b-b/r",
        result_uri="s3://b-b/r",
        created_at=datetime.now(UTC) - timedelta(seconds=age_s),
    )
    waiting_job = job.waiting(keeper="open", keeper_due=0)
    return (
        waiting_job if status is JobStatus.QUEUED else JobState.from_item({**waiting_job.to_item(), "status": status})
    )


def test_who_asks_for_a_young_job_hears_of_its_end_with_its_outputs(patient: ApiWorld) -> None:
    job_id = submit(patient).json["id"]
    ends = threading.Timer(0.05, run, args=(patient, job_id), kwargs={"outputs": (output("a.png"),)})
    ends.start()
    job = patient.request("GET", f"/api/v2/jobs/{job_id}").json
    ends.join(PATIENCE_S)
    assert (job["status"], [made["name"] for made in job["outputs"]]) == ("succeeded", ["a.png"])


def test_who_asks_for_an_old_job_is_answered_at_once_by_one_read(monkeypatch: pytest.MonkeyPatch) -> None:
    with api_world(monkeypatch, poll_hold_s=1e-9) as api:
        job_id = submit(api).json["id"]
        before = Counter(api.calls)
        assert api.request("GET", f"/api/v2/jobs/{job_id}").json["status"] == "queued"
        assert Counter(api.calls) - before == {"Query": 1}


def test_a_job_that_no_worker_has_begun_is_young_for_a_quarter_of_the_time(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    with api_world(monkeypatch, poll_hold_s=PATIENCE_S) as api:
        job_id = submit(api).json["id"]
        monkeypatch.setattr("comfy_serverless.api.jobs.age_s", lambda _: PATIENCE_S / 4 + 0.1)
        before = Counter(api.calls)
        assert api.request("GET", f"/api/v2/jobs/{job_id}").json["status"] == "queued"
        assert Counter(api.calls) - before == {"Query": 1}


def test_no_answer_waits_longer_than_the_function_may_take(patient: ApiWorld, monkeypatch: pytest.MonkeyPatch) -> None:
    job_id = submit(patient).json["id"]
    monkeypatch.setattr("comfy_serverless.api.jobs.ANSWER_RESERVE_S", 29.0)  # of the 29 that the context has
    assert patient.request("GET", f"/api/v2/jobs/{job_id}").json["status"] == "queued"


@pytest.mark.parametrize(
    ("age_s", "pause_s"), [(0, SHORTEST_S), (0.1, SHORTEST_S), (0.8, 0.1), (2, LONGEST_S), (3600, LONGEST_S)]
)
def test_a_young_job_is_looked_at_often_and_an_old_one_seldom(age_s: float, pause_s: float) -> None:
    assert waiting._pause_s(age_s) == pytest.approx(pause_s)


def test_waiting_ends_with_what_was_waited_for_and_a_deleted_job_changes_nothing() -> None:
    seen = iter([None, state_of(0, JobStatus.RUNNING), state_of(0, JobStatus.SUCCEEDED)])
    ended = wait_for(
        state_of(0), look=lambda _: next(seen), enough=lambda state: state.is_over, until=time.monotonic() + PATIENCE_S
    )
    assert ended.status is JobStatus.SUCCEEDED
    assert next(seen, "all were read") == "all were read"


def test_waiting_ends_with_its_time() -> None:
    looked = wait_for(state_of(0), look=lambda _: None, enough=lambda _: False, until=time.monotonic() + 0.01)
    assert looked.status is JobStatus.QUEUED


def test_the_age_of_a_job_counts_from_its_submission() -> None:
    state = state_of(100)
    assert state.created_at == moment_text(datetime.fromisoformat(state.created_at))
    assert 99 < waiting.age_s(state) < 100 + PATIENCE_S
