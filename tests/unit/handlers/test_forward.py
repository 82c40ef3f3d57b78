"""Jobs of batches before an endpoint: as many go through as keep it busy, and none is lost."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest
from botocore.exceptions import EndpointConnectionError

from comfy_serverless.aws.dynamodb import now_text
from comfy_serverless.batches.gate import Gate
from comfy_serverless.batches.store import Batch, BatchStatus, BatchStore
from comfy_serverless.handlers import forward as module
from comfy_serverless.handlers import wiring
from comfy_serverless.jobs.message import JobMessage
from comfy_serverless.table.job_state import NewJob
from comfy_serverless.table.jobs import JobStore
from tests.unit.jobs_table import aws, create_table


class FakeEndpoint:
    def __init__(self) -> None:
        self.sent: list[str] = []
        self.refuses: set[str] = set()

    def send(self, message: JobMessage) -> None:
        number = message.job_id.partition("-")[2]
        assert str(message.address) == f"s3://assets/requests/batches/b.jsonl#{number}-10"
        if message.job_id in self.refuses:
            raise EndpointConnectionError(endpoint_url="https://runtime.sagemaker")
        self.sent.append(message.job_id)


class World:
    def __init__(self, session: Any) -> None:
        self.endpoint = FakeEndpoint()
        self.now = 1000.0
        self.sqs = session.client("sqs")
        self.url = self.sqs.create_queue(QueueName="batches", Attributes={"VisibilityTimeout": "0"})["QueueUrl"]
        self.table, self.calls = create_table(session)
        self.jobs = JobStore(self.table, lease_s=30, max_runs=3)
        self.batches = BatchStore(self.table)
        self.gate = Gate(
            self.endpoint,  # type: ignore[arg-type]
            self.jobs,
            self.batches,
            self.sqs,
            self.url,
            5,
            wait_s=0,
            now=lambda: self.now,
        )

    def queue(self, *bodies: str) -> None:
        for body in bodies:
            self.sqs.send_message(QueueUrl=self.url, MessageBody=body)

    def submit(self, count: int) -> None:
        """Jobs of a batch: in the table, and in the queue."""
        for number in range(count):
            self.jobs.submit_of_batch(
                NewJob(
                    job_id=f"job-{number}",
                    owner="drops",
                    request_uri="s3://assets/r",
                    result_uri="s3://out/r",
                    batch="b",
                )
            )
            self.queue(job(number))

    def set_status(self, status: BatchStatus) -> None:
        """The batch exists, with this status."""
        batch = Batch(
            id="b",
            owner="drops",
            source="s3://drops/batches/b.jsonl",
            manifest="s3://assets/requests/batches/b.jsonl",
            size_bytes=100,
            status=BatchStatus.RUNNING,
            created_at=now_text(),
        )
        self.batches.create(batch, [(0, 100)])
        assert self.batches.set_status("b", status, was=[BatchStatus.RUNNING])

    def begin(self, *job_ids: str) -> None:
        for job_id in job_ids:
            self.jobs.begin(job_id, run=f"run of {job_id}")

    def let_through(self) -> int:
        free = self.gate.free()
        return self.gate.let_through(free) if free else 0

    def waiting(self) -> int:
        names = ["ApproximateNumberOfMessages", "ApproximateNumberOfMessagesNotVisible"]
        attributes = self.sqs.get_queue_attributes(QueueUrl=self.url, AttributeNames=names)["Attributes"]
        return sum(map(int, attributes.values()))


@pytest.fixture
def world() -> Iterator[World]:
    with aws() as session:
        yield World(session)


def job(number: int) -> str:
    return json.dumps({"job": f"job-{number}", "request": f"s3://assets/requests/batches/b.jsonl#{number}-10"})


def test_so_many_go_through_that_the_endpoint_stays_busy(world: World) -> None:
    world.submit(8)
    assert [world.let_through() for _ in range(3)] == [5, 0, 0]
    assert len(set(world.endpoint.sent)) == 5
    assert world.waiting() == 3


def test_one_goes_through_as_soon_as_one_is_begun_however_fast_that_is(world: World) -> None:
    world.submit(40)
    for _ in range(40):
        world.let_through()
        waiting = [one for one in world.endpoint.sent if world.jobs.many([one])[one].waits_in_queue]
        assert 0 < len(waiting) <= 5
        world.begin(waiting[0])
    assert len(world.endpoint.sent) == 40


def test_a_job_that_is_canceled_parked_or_gone_keeps_no_other_waiting(world: World) -> None:
    world.submit(8)
    world.let_through()
    canceled, parked, gone, *_ = world.endpoint.sent
    world.jobs.cancel(world.jobs.many([canceled])[canceled])
    assert world.jobs.park(parked, batches=frozenset({"b"})) is None
    world.table.delete(f"job#{gone}", "job")
    assert world.let_through() == 3


def test_jobs_of_a_paused_batch_wait_without_a_message_and_start_no_instance(world: World) -> None:
    world.submit(8)
    world.set_status(BatchStatus.PAUSED)
    assert world.let_through() == 5
    assert world.let_through() == 3
    assert world.endpoint.sent == []
    assert world.waiting() == 0
    assert all(state.is_parked for state in world.jobs.many([f"job-{number}" for number in range(8)]).values())


def test_jobs_of_a_canceled_batch_end_and_start_no_instance(world: World) -> None:
    world.submit(4)
    world.begin("job-2")
    world.set_status(BatchStatus.CANCELED)
    assert world.let_through() == 4
    assert world.endpoint.sent == []
    assert world.waiting() == 0
    states = world.jobs.many([f"job-{number}" for number in range(4)])
    assert [states[f"job-{number}"].status.value for number in range(4)] == [
        "canceling",
        "canceling",
        "running",
        "canceling",
    ], "whoever looks after the batch ends them"
    world.queue(*(job(number) for number in range(4)))
    assert world.let_through() == 4
    assert world.endpoint.sent == [], "nor by a second message"


def test_a_job_that_expired_in_the_endpoint_keeps_no_other_waiting(world: World) -> None:
    world.submit(8)
    world.let_through()
    world.now += 6 * 3600 + 1
    assert world.let_through() == 3


def test_many_that_wait_are_not_asked_for_one_by_one(world: World) -> None:
    world.gate.most = 120
    world.submit(120)
    while world.let_through():
        pass
    world.calls.clear()
    assert world.gate.free() == 0
    assert dict(world.calls) == {"BatchGetItem": 1}


def test_a_message_that_is_no_job_or_is_not_taken_stays_and_costs_the_others_nothing(world: World) -> None:
    world.endpoint.refuses = {"job-1"}
    world.submit(3)
    world.queue("nonsense", "[" * 9999)
    for _ in range(3):
        world.let_through()
    assert sorted(set(world.endpoint.sent)) == ["job-0", "job-2"]
    assert world.waiting() == 3


def test_it_ends_before_its_time_is_over(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    class Context:
        def get_remaining_time_in_millis(self) -> int:
            return int(55_000 - (world.now - 1000) * 1000)

    def sleep(seconds: float) -> None:
        world.now += seconds

    monkeypatch.setattr(wiring, "gate", lambda: world.gate)
    monkeypatch.setattr(module.time, "sleep", sleep)
    world.submit(8)
    assert module.handler({}, Context()) == {"messages": 5}  # and then it waits for one to be begun
    assert 30 < world.now - 1000 < 55
    world.begin(*world.endpoint.sent)
    world.now = 1000.0
    assert module.handler({}, Context()) == {"messages": 3}
    assert world.now == 1000.0  # nothing is left to wait for
