"""Jobs of batches before an endpoint: as many go through as keep it busy, and none is lost."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest
from botocore.exceptions import EndpointConnectionError

from comfy_serverless.handlers import forward as module
from comfy_serverless.handlers.forward import Gate
from tests.unit.jobs_table import aws


class FakeEndpoint:
    def __init__(self) -> None:
        self.waiting = 0
        self.sent: list[str] = []
        self.refuses: set[str] = set()

    def depth(self) -> int:
        return self.waiting

    def send(self, job_id: str, request_uri: str, *, extra_data: Any = None) -> None:
        assert request_uri == f"s3://assets/requests/batches/b.jsonl#{job_id.partition('-')[2]}-10"
        if job_id in self.refuses:
            raise EndpointConnectionError(endpoint_url="https://runtime.sagemaker")
        self.sent.append(job_id)


class World:
    def __init__(self, session: Any) -> None:
        self.endpoint = FakeEndpoint()
        self.now = 1000.0
        self.sqs = session.client("sqs")
        self.url = self.sqs.create_queue(QueueName="batches", Attributes={"VisibilityTimeout": "0"})["QueueUrl"]
        self.gate = Gate(self.endpoint, self.sqs, self.url, 5, now=lambda: self.now)  # type: ignore[arg-type]

    def queue(self, *bodies: str) -> None:
        for body in bodies:
            self.sqs.send_message(QueueUrl=self.url, MessageBody=body)

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
    world.queue(*map(job, range(8)))
    assert [world.gate.let_through() for _ in range(3)] == [5, 0, 0]
    assert len(set(world.endpoint.sent)) == 5
    assert world.waiting() == 3


def test_what_was_sent_counts_until_the_endpoint_says_it_itself(world: World) -> None:
    world.queue(*map(job, range(8)))
    world.gate.let_through()
    world.now += 1000
    world.endpoint.waiting = 3
    assert world.gate.let_through() == 2
    assert world.waiting() == 1


def test_a_message_that_is_no_job_or_is_not_taken_stays_and_costs_the_others_nothing(world: World) -> None:
    world.endpoint.refuses = {"job-1"}
    world.queue("nonsense", job(1), job(2), "[" * 9999)
    for _ in range(3):
        world.gate.let_through()
    assert world.endpoint.sent == ["job-2"]
    assert world.waiting() == 3


def test_it_ends_before_its_time_is_over(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    class Context:
        def get_remaining_time_in_millis(self) -> int:
            return int(55_000 - (world.now - 1000) * 1000)

    def sleep(seconds: float) -> None:
        world.now += seconds

    monkeypatch.setattr(module, "gate", lambda: world.gate)
    monkeypatch.setattr(module.time, "sleep", sleep)
    world.queue(*map(job, range(3)))
    assert module.handler({}, Context()) == {"sent": 3}
    assert world.now - 1000 < 55
