"""Notifications of SageMaker about invocations settle jobs whose end no worker has recorded, and change no others."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest

from comfy_serverless.handlers import outcome as module
from comfy_serverless.handlers import wiring
from comfy_serverless.jobs.document import JobStatus
from comfy_serverless.table.settlement import Ended, Notification, Settlement, Unreadable
from tests.unit.jobs_table import aws
from tests.unit.table.test_job_store import World, ended, new_job

NEW_LAYOUT = {
    "eventVersion": "1.0",
    "eventSource": "aws:sagemaker",
    "eventName": "InferenceResult",
    "requestParameters": {"endpointName": "stack-gpu", "inputLocation": "s3://bucket/in"},
}


def notification(job_id: str, status: str, *, reason: str = "", is_flat: bool = False) -> str:
    """A message as SNS brings it, in one of the two layouts that are seen."""
    failure = {"failureReason": reason, "failureLocation": "s3://bucket/failure"} if reason else {}
    outer, inner = (failure, {}) if is_flat else ({}, failure)
    return json.dumps(
        {
            **NEW_LAYOUT,
            "invocationStatus": status,
            "inferenceId": job_id,
            "responseParameters": {"contentType": "application/json", "outputLocation": "s3://b/o", **inner},
            **outer,
        }
    )


def event(*messages: str) -> dict[str, Any]:
    return {"Records": [{"EventSource": "aws:sns", "Sns": {"Message": message}} for message in messages]}


@pytest.fixture
def world(monkeypatch: pytest.MonkeyPatch) -> Iterator[World]:
    with aws() as session:
        here = World(session, monkeypatch)
        monkeypatch.setattr(wiring, "settlement", lambda: Settlement(here.care))
        yield here


def hear(*messages: str) -> int:
    return module.handler(event(*messages), None)["settled"]


@pytest.mark.parametrize("is_flat", [False, True])
def test_both_layouts_are_read(is_flat: bool) -> None:
    told = Notification.parse(notification("job-1", "Failed", reason="no GPU", is_flat=is_flat))
    assert told == Notification(job_id="job-1", status=Ended.FAILED, reason="no GPU")
    assert Notification.parse(notification("job-1", "Completed")).reason == ""


@pytest.mark.parametrize(
    "text", ["", "{", "[]", "null", "{}", '{"invocationStatus": "Odd", "inferenceId": "x"}', "[" * 9999]
)
def test_what_is_no_notification_is_told_from_one(text: str) -> None:
    with pytest.raises(Unreadable):
        Notification.parse(text)


@pytest.mark.parametrize("status", list(Ended))
def test_how_a_worker_ended_a_job_stands(world: World, status: Ended) -> None:
    job_id = world.submit()
    world.begin(job_id)
    assert world.store.finish(job_id, ended(job_id), run="run-1", webhook=False, places=())
    assert hear(notification(job_id, status, reason="late")) == 1
    assert world.read(job_id).status is JobStatus.SUCCEEDED


@pytest.mark.parametrize("status", list(Ended))
def test_a_job_that_runs_is_left_to_its_worker(world: World, status: Ended) -> None:
    job_id = world.submit()
    world.begin(job_id)
    hear(notification(job_id, status))
    assert world.read(job_id).status is JobStatus.RUNNING
    assert world.messages(world.queue_url) == []


def test_a_job_whose_worker_is_silent_is_looked_after_at_once(world: World) -> None:
    job_id = world.submit()
    world.begin(job_id)
    world.later(32)
    hear(notification(job_id, "Failed", reason="the container died"), notification(job_id, "Failed"))
    assert len(world.messages(world.queue_url)) == 1, "sent again, once"
    assert world.begin(job_id, "run-2").runs == 2


def test_an_invocation_with_a_key_that_has_expired_is_a_job_that_has(world: World) -> None:
    job_id = world.submit(is_rerunnable=False)
    hear(notification(job_id, "Expired"), notification(job_id, "Expired"))
    job = world.read(job_id).document()
    assert job.status is JobStatus.EXPIRED
    assert job.error is not None


@pytest.mark.parametrize("waiting", [0, 3])
def test_a_job_that_has_expired_in_the_endpoint_waits_on_as_those_do_that_are_in_the_queue(
    world: World, waiting: int
) -> None:
    job_id = world.submit()
    for _ in range(waiting):
        world.submit()
    world.later(6 * 3600)
    hear(notification(job_id, "Expired"))
    assert world.read(job_id).status is JobStatus.QUEUED
    assert len(world.messages(world.queue_url)) == 1
    world.later(4 * 86_400)
    hear(notification(job_id, "Expired"))
    assert world.read(job_id).status is JobStatus.EXPIRED


def test_a_job_of_a_batch_that_has_expired_in_the_endpoint_waits_on_in_the_batch(world: World) -> None:
    state = world.store.submit_of_batch(new_job("line", batch="b"))
    world.later(6 * 3600)
    hear(notification(state.id, "Expired"))
    assert world.read(state.id).status is JobStatus.QUEUED
    assert len(world.messages(world.queue_url)) == 1
    world.later(14 * 86_400)
    hear(notification(state.id, "Expired"))
    assert world.read(state.id).status is JobStatus.EXPIRED


@pytest.mark.parametrize("status", list(Ended))
def test_a_job_that_waits_for_its_batch_to_go_on_is_left_alone(world: World, status: Ended) -> None:
    state = world.store.submit_of_batch(new_job("line", batch="b"))
    assert world.store.park(state.id, batches=frozenset({"b"})) is None
    hear(notification(state.id, status))
    assert world.read(state.id).is_parked
    assert world.messages(world.queue_url) == []


def test_an_endpoint_that_fails_late_each_time_fails_the_job_at_last(world: World) -> None:
    job_id = world.submit()
    for _ in range(3):
        assert world.read(job_id).status is JobStatus.QUEUED
        world.later(300)
        hear(notification(job_id, "Failed", reason="no container has started"))
    error = world.read(job_id).document().error
    assert error is not None
    assert "no container has started" in error.message


def test_a_job_that_reaches_no_container_is_sent_again_and_fails_at_last_with_the_reason(world: World) -> None:
    job_id = world.submit()
    for _ in range(2):
        hear(notification(job_id, "Failed", reason="no capacity"))
        assert len(world.messages(world.queue_url)) == 1
        assert world.read(job_id).status is JobStatus.QUEUED
    hear(notification(job_id, "Failed", reason="no capacity"))
    error = world.read(job_id).document().error
    assert error is not None
    assert (error.code, error.retryable) == ("engine_crashed", True)
    assert "no capacity" in error.message
    assert world.messages(world.queue_url) == []


def test_a_job_that_was_given_back_and_sent_again_is_not_ended_by_the_failure_of_its_first_run(world: World) -> None:
    job_id = world.submit()
    world.begin(job_id)
    world.store.give_back(job_id, run="run-1")
    world.store.dispatched(job_id)
    hear(notification(job_id, "Failed", reason="worker_stopped"))
    assert world.read(job_id).status is JobStatus.RUNNING
    assert world.messages(world.queue_url) == []


def test_a_job_with_a_key_that_reaches_no_container_fails_since_it_cannot_be_sent_again(world: World) -> None:
    world.store.submit(new_job("keyed", is_rerunnable=False))
    hear(notification("keyed", "Failed", reason="no capacity"))
    assert world.read("keyed").status is JobStatus.FAILED


def test_unknown_jobs_and_messages_cost_the_others_nothing(world: World) -> None:
    job_id = world.submit(is_rerunnable=False)
    assert hear("nonsense", notification("somebody-elses", "Completed"), notification(job_id, "Expired")) == 2
    assert world.read(job_id).status is JobStatus.EXPIRED


def test_what_could_not_be_settled_is_told_again(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    first, second = (world.submit(is_rerunnable=False) for _ in range(2))
    fail = world.store.fail

    def away_for_the_first(state: Any, *arguments: Any, **fields: Any) -> bool:
        if state.id == first:
            raise TimeoutError("the table is away")
        return fail(state, *arguments, **fields)

    with monkeypatch.context() as patch:
        patch.setattr(world.store, "fail", away_for_the_first)
        with pytest.raises(TimeoutError):
            hear(notification(first, "Expired"), notification(second, "Expired"))
    assert world.read(second).status is JobStatus.EXPIRED
    hear(notification(first, "Expired"), notification(second, "Expired"))
    assert world.read(first).status is JobStatus.EXPIRED
