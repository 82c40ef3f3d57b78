"""The last reports of a run: they are written beside `result.json`, once, and nothing is missing at the end."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from typing import Any, cast

import pytest
from botocore.exceptions import EndpointConnectionError

from comfy_serverless.connector.progress import Progress
from comfy_serverless.jobs.document import JobStatus, Output
from comfy_serverless.table.job_state import NewJob
from comfy_serverless.table.jobs import JobStore
from comfy_serverless.worker import journal as module
from comfy_serverless.worker.journal import Reporter
from tests.patience import PATIENCE_S
from tests.unit.table.test_job_store import output
from tests.unit.worker.test_journal import wait_until


class Jobs:
    """A table that notes what it is told, and does what a test says with outputs."""

    def __init__(self) -> None:
        self.told: list[list[str]] = []
        self.signs = 0
        self.then: Callable[[], object] = lambda: None

    def put_outputs(self, _state: Any, outputs: Any, *, run: str) -> None:
        assert run == "run"
        self.told.append([made.name for _, made in outputs])
        self.then()

    def report(self, _job_id: str, **_: Any) -> JobStatus:
        self.signs += 1
        return JobStatus.RUNNING


@pytest.fixture
def jobs(monkeypatch: pytest.MonkeyPatch) -> Jobs:
    monkeypatch.setattr(module, "TICK_S", PATIENCE_S)
    return Jobs()


@pytest.fixture
def reporter(jobs: Jobs) -> Iterator[Reporter]:
    job = NewJob(job_id="a", owner="team", request_uri="s3://b-b/r", result_uri="s3://b-b/r")
    state = job.waiting(keeper="open", keeper_due=0)
    with Reporter(cast("JobStore", jobs), state, run_id="run", most_outputs=100) as started:
        yield started


def named(*names: str) -> list[Output]:
    return [output(name) for name in names]


def test_what_is_left_when_all_is_delivered_is_told_at_once(jobs: Jobs, reporter: Reporter) -> None:
    first, second = named("a.png", "b.png")
    reporter.see_output(first)
    wait_until(lambda: jobs.told == [["a.png"]])
    reporter.see_output(second)
    reporter.see_all_delivered()
    wait_until(lambda: jobs.told == [["a.png"], ["b.png"]])
    assert reporter.commit((first, second)) == [0, 1]
    assert jobs.told == [["a.png"], ["b.png"]], "nothing is written twice"


def test_outputs_that_are_being_told_are_waited_for_and_not_told_again(jobs: Jobs, reporter: Reporter) -> None:
    (made,) = named("a.png")
    may_end = threading.Event()
    jobs.then = lambda: may_end.wait(PATIENCE_S)
    reporter.see_output(made)
    wait_until(lambda: jobs.told)
    committed: list[list[int]] = []
    commit = threading.Thread(target=lambda: committed.append(reporter.commit((made,))))
    commit.start()
    assert committed == []
    may_end.set()
    commit.join(PATIENCE_S)
    assert (committed, jobs.told) == ([[0]], [["a.png"]])


def test_what_the_table_did_not_take_is_told_by_the_end_of_the_job(jobs: Jobs, reporter: Reporter) -> None:
    (made,) = named("a.png")

    def fail() -> None:
        jobs.then = lambda: None
        raise EndpointConnectionError(endpoint_url="dynamodb")

    jobs.then = fail
    reporter.see_output(made)
    reporter.see_all_delivered()
    wait_until(lambda: jobs.told)
    assert reporter.commit((made,)) == [0]
    assert jobs.told == [["a.png"], ["a.png"]]


def test_an_output_that_was_made_anew_is_told_as_it_is_now(jobs: Jobs, reporter: Reporter) -> None:
    (made,) = named("a.png")
    anew = made.model_copy(update={"size_bytes": made.size_bytes + 1})
    reporter.see_output(made)
    wait_until(lambda: jobs.told)
    reporter.see_output(anew)
    assert reporter.commit((anew,)) == [0]
    assert jobs.told == [["a.png"], ["a.png"]]


def test_progress_is_not_told_just_before_the_end_of_a_short_job(jobs: Jobs, reporter: Reporter) -> None:
    (made,) = named("a.png")
    reporter.see_progress(Progress(value=0.5, nodes_done=1, nodes_total=2))
    reporter.see_output(made)
    reporter.see_all_delivered()
    reporter.commit((made,))
    assert (jobs.told, jobs.signs) == ([["a.png"]], 0)
