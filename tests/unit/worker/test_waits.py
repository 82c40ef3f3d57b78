"""How long jobs have waited for their first worker, as CloudWatch hears it."""

from __future__ import annotations

import json
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from comfy_serverless.jobs.message import JobMessage
from comfy_serverless.table.job_state import NewJob
from tests.unit.fakes import World
from tests.unit.jobs_table import aws
from tests.unit.worker.test_journal import Office

WAITED = timedelta(minutes=7)


def waits_in(output: str) -> list[tuple[str, float]]:
    """The class and the seconds of each wait that was reported."""
    documents = [json.loads(line) for line in output.splitlines() if line.startswith("{")]
    for document in (waits := [one for one in documents if "WaitedSeconds" in one]):
        (metric,) = document["_aws"]["CloudWatchMetrics"]
        assert metric["Namespace"] == "ComfyServerless"
        assert set(metric["Dimensions"][0]) == {"service", "class"}
        assert document["service"] == "comfy_serverless"
    return [(document["class"], document["WaitedSeconds"][0]) for document in waits]


@pytest.fixture
def seen(world: Callable[..., World], capsys: pytest.CaptureFixture[str]) -> Callable[..., list[tuple[str, float]]]:
    """Runs a job, sent some minutes ago, as often as asked; returns the waits that were reported."""

    def run(*, batch: str | None = None, runs: int = 1, sent_again: bool = False) -> list[tuple[str, float]]:
        with aws() as session:
            office = Office(world(), session)
            job = office.submit()
            state = NewJob(
                job_id=job.job_id,
                owner="team",
                request_uri=str(job.address),
                result_uri=office.state(job).result,
                batch=batch,
                created_at=datetime.now(UTC) - WAITED,
            ).waiting(keeper="queued", keeper_due=0)
            office.table.put(state.to_item())
            if sent_again:
                office.store.unpark(job.job_id)
            for number in range(1, runs):
                office.store.begin(job.job_id, run=f"earlier {number}")
                office.store.give_back(job.job_id, run=f"earlier {number}")
            assert office.run(JobMessage(job_id=job.job_id, address=job.address)) is not None
        return waits_in(capsys.readouterr().out)

    return run


@pytest.mark.parametrize(("batch", "whose"), [(None, "callers"), ("b", "batches")])
def test_the_wait_of_a_job_is_reported_by_its_class(seen: Any, batch: str | None, whose: str) -> None:
    ((reported, seconds),) = seen(batch=batch)
    assert reported == whose
    assert seconds >= WAITED.total_seconds() - 1


def test_a_job_of_a_batch_that_was_resumed_has_waited_since_then(seen: Any) -> None:
    ((_, seconds),) = seen(batch="b", sent_again=True)
    assert seconds < WAITED.total_seconds() / 2


def test_a_job_that_is_run_again_has_not_waited_for_a_worker_all_that_time(seen: Any) -> None:
    assert seen(runs=2) == []
