"""Jobs before an endpoint: as many go through as keep it busy, callers' first, and none is lost."""

from __future__ import annotations

import functools
import json
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from botocore.exceptions import EndpointConnectionError

from comfy_serverless.aws.dynamodb import now_text
from comfy_serverless.batches.batch import Batch, BatchStatus
from comfy_serverless.batches.store import BatchStore, hold_back
from comfy_serverless.handlers import forward as module
from comfy_serverless.handlers import wiring
from comfy_serverless.jobs.message import JobMessage
from comfy_serverless.table import gate as gate_module
from comfy_serverless.table.dispatch import REQUEST_TTL_S, Queues
from comfy_serverless.table.gate import FLEET_KNOWN_S, Fleet, Gate, PlaceStore, places_for
from comfy_serverless.table.job_state import NewJob
from comfy_serverless.table.jobs import JobStore
from local.aws.template import properties_of
from tests.unit.jobs_table import REGION, aws, create_table
from tests.unit.table_clock import TableClock

PER_INSTANCE = 2


class FakeSageMaker:
    """The endpoint, and what SageMaker tells of it."""

    def __init__(self) -> None:
        self.sent: list[str] = []
        self.refuses: set[str] = set()
        self.instances = 1
        self.asked = 0
        self.is_away = False

    def send(self, message: JobMessage) -> None:
        if message.job_id in self.refuses:
            raise EndpointConnectionError(endpoint_url="https://runtime.sagemaker")
        self.sent.append(message.job_id)

    def describe_endpoint(self, *, EndpointName: str) -> dict[str, Any]:  # noqa: N803  (as boto3 has it)
        assert EndpointName == "gpu"
        self.asked += 1
        if self.is_away:
            raise EndpointConnectionError(endpoint_url="https://sagemaker")
        if self.instances == 0:
            return {"ProductionVariants": [{"VariantName": "worker"}]}
        return {"ProductionVariants": [{"VariantName": "worker", "CurrentInstanceCount": self.instances}]}


class Context:
    """Lambda's: the time that an invocation has."""

    def __init__(self, left_s: float = 5.0) -> None:
        self.left_s = left_s

    def get_remaining_time_in_millis(self) -> int:
        return int(self.left_s * 1000)


class World:
    def __init__(self, session: Any) -> None:
        self.sagemaker = FakeSageMaker()
        self.sqs = session.client("sqs")
        self.urls = {name: self.sqs.create_queue(QueueName=name)["QueueUrl"] for name in ("jobs", "batches")}
        self.queues = Queues.at(self.urls["jobs"], self.urls["batches"], sqs=self.sqs)
        self.table, self.calls = create_table(session)
        self.jobs = JobStore(self.table, lease_s=30, max_runs=3)
        self.batches = BatchStore(self.table)
        self.gate = self.new_gate()

    def new_gate(self) -> Gate:
        """What another process makes for itself."""
        return Gate(
            self.sagemaker,  # type: ignore[arg-type]
            Fleet(self.sagemaker, "gpu"),
            self.jobs,
            PlaceStore(self.table, "gpu"),
            PER_INSTANCE,
            functools.partial(hold_back, self.jobs, self.batches),
        )

    def submit(self, *names: str, owner: str = "team") -> list[JobMessage]:
        """Jobs that callers wait for."""
        for name in names:
            job = NewJob(
                job_id=name, owner=owner, request_uri=f"s3://assets/requests/{name}.json", result_uri="s3://o/r"
            )
            self.jobs.submit(job)
        return [message_of(name, owner=owner) for name in names]

    def submit_batch(self, count: int) -> list[JobMessage]:
        """Jobs of a batch."""
        lines = [line(number) for number in range(count)]
        for job in lines:
            self.jobs.submit_of_batch(
                NewJob(job_id=job.job_id, owner="drops", request_uri=str(job.address), result_uri="s3://o/r", batch="b")
            )
        return lines

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

    def let_through(self, *jobs: JobMessage) -> list[bool]:
        return [self.gate.let_through(job) for job in jobs]

    def waiting(self, name: str) -> list[tuple[str, str]]:
        """The job and the group of each message in a queue."""
        answer = self.sqs.receive_message(
            QueueUrl=self.urls[name], MaxNumberOfMessages=10, AttributeNames=["MessageGroupId"]
        )
        return [
            (json.loads(message["Body"])["job"], message["Attributes"]["MessageGroupId"])
            for message in answer.get("Messages", [])
        ]


@pytest.fixture
def world() -> Iterator[World]:
    with aws() as session:
        yield World(session)


@pytest.fixture
def handled(world: World, monkeypatch: pytest.MonkeyPatch) -> World:
    """The same, behind the function."""
    monkeypatch.setattr(wiring, "gate", lambda: world.gate)
    monkeypatch.setattr(wiring, "workers", lambda: world.queues)
    monkeypatch.setattr(wiring, "sqs", lambda: world.sqs)
    return world


def message_of(job_id: str, *, owner: str = "team") -> JobMessage:
    text = json.dumps({"job": job_id, "request": f"s3://assets/requests/{job_id}.json", "owner": owner})
    parsed = JobMessage.parse(text)
    assert parsed is not None
    return parsed


def line(number: int) -> JobMessage:
    address = f"s3://assets/requests/batches/b.jsonl#{number}-10"
    parsed = JobMessage.parse(json.dumps({"job": f"line-{number}", "request": address, "owner": "drops"}))
    assert parsed is not None
    return parsed


def event(*bodies: str) -> dict[str, Any]:
    return {
        "Records": [
            {
                "messageId": f"m-{number}",
                "receiptHandle": f"r-{number}",
                "body": body,
                "attributes": {"ApproximateReceiveCount": "1"},
                "eventSourceARN": f"arn:aws:sqs:{REGION}:123456789012:jobs",
            }
            for number, body in enumerate(bodies)
        ]
    }


@pytest.mark.parametrize(("instances", "of_batches", "of_callers"), [(0, 2, 3), (1, 2, 3), (4, 8, 12)])
def test_there_are_places_for_each_instance_and_callers_have_some_that_batches_have_not(
    instances: int, of_batches: int, of_callers: int
) -> None:
    assert places_for(instances, per_instance=PER_INSTANCE, is_batch=True) == of_batches
    assert places_for(instances, per_instance=PER_INSTANCE, is_batch=False) == of_callers


def test_a_job_of_a_caller_is_let_through_at_once_and_starts_the_first_instance(world: World) -> None:
    world.sagemaker.instances = 0
    assert world.let_through(*world.submit("a")) == [True]
    assert world.sagemaker.sent == ["a"], "SageMaker counts what waits in it, and nothing else"


def test_so_many_go_through_that_the_endpoint_stays_busy_and_no_more(world: World) -> None:
    lines = world.submit_batch(5)
    assert world.let_through(*lines) == [True, True, False, False, False]
    world.begin("line-1")
    assert world.let_through(*lines[2:]) == [True, False, False]
    assert world.sagemaker.sent == ["line-0", "line-1", "line-2"]


def test_a_batch_never_takes_the_places_of_callers(world: World) -> None:
    lines = world.submit_batch(4)
    world.let_through(*lines)
    first, second, third = world.submit("a", "b", "c")
    assert world.let_through(first, second) == [True, False]
    world.begin("line-0")
    assert world.let_through(lines[2]) == [False], "the place that is free now is a caller's"
    assert world.let_through(second, third) == [True, False]
    world.begin("line-1", "a")
    assert world.let_through(third, lines[2]) == [True, False]
    world.begin("b")
    assert world.let_through(lines[2]) == [True], "no caller waits, and the batch goes on"


def test_instances_that_come_have_places_of_their_own(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    jobs = world.submit(*(f"job-{number}" for number in range(8)))
    assert world.let_through(*jobs) == [True] * 3 + [False] * 5
    world.sagemaker.instances = 2
    assert world.let_through(*jobs[3:]) == [False] * 5, "that is not asked each time"
    later = time.monotonic() + FLEET_KNOWN_S
    monkeypatch.setattr(time, "monotonic", lambda: later)
    assert world.let_through(*jobs[3:]) == [True] * 3 + [False] * 2
    assert world.sagemaker.asked == 2


def test_while_sagemaker_does_not_say_how_many_instances_there_are_the_last_number_counts(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    world.sagemaker.instances = 3
    assert world.gate.fleet.size() == 3
    world.sagemaker.is_away = True
    monkeypatch.setattr(gate_module, "FLEET_KNOWN_S", 0.0)
    assert world.gate.fleet.size() == 3
    assert world.sagemaker.asked == 2


def test_a_job_that_is_canceled_parked_or_gone_keeps_no_other_waiting(world: World) -> None:
    world.sagemaker.instances = 2
    lines = world.submit_batch(8)
    assert sum(world.let_through(*lines)) == 4
    world.jobs.cancel(world.jobs.many(["line-0"])["line-0"])
    assert world.jobs.park("line-1", batches=frozenset({"b"})) is None
    world.table.delete("job#line-2", "job")
    assert world.let_through(*lines[4:]) == [True, True, True, False]


def test_a_job_that_has_ended_or_runs_is_not_sent_again_by_a_second_message(world: World) -> None:
    canceled, running, gone = world.submit("canceled", "running", "gone")
    world.jobs.cancel(world.jobs.many(["canceled"])["canceled"])
    world.begin("running")
    world.table.delete("job#gone", "job")
    assert world.let_through(canceled, running, gone) == [True] * 3
    assert world.sagemaker.sent == []


def test_jobs_of_a_paused_batch_wait_without_a_message_and_start_no_instance(world: World) -> None:
    lines = world.submit_batch(8)
    world.set_status(BatchStatus.PAUSED)
    assert world.let_through(*lines) == [True] * 8
    assert world.sagemaker.sent == []
    assert all(state.is_parked for state in world.jobs.many([job.job_id for job in lines]).values())


def test_jobs_of_a_canceled_batch_end_and_start_no_instance(world: World) -> None:
    lines = world.submit_batch(4)
    world.begin("line-2")
    world.set_status(BatchStatus.CANCELED)
    assert world.let_through(*lines, *lines) == [True] * 8
    assert world.sagemaker.sent == []
    states = world.jobs.many([job.job_id for job in lines])
    assert [states[f"line-{number}"].status.value for number in range(4)] == [
        "canceling",
        "canceling",
        "running",
        "canceling",
    ], "whoever looks after the batch ends them"


def test_a_job_that_expired_in_the_endpoint_keeps_no_other_waiting(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    lines = world.submit_batch(4)
    world.let_through(*lines)
    TableClock(monkeypatch).later(REQUEST_TTL_S + 1)
    assert world.let_through(*lines[2:]) == [True, True]


def test_a_job_that_was_not_sent_keeps_its_place_and_is_sent_when_its_message_comes_again(world: World) -> None:
    world.sagemaker.refuses = {"a"}
    jobs = world.submit("a", "b", "c", "d")
    with pytest.raises(EndpointConnectionError):
        world.gate.let_through(jobs[0])
    assert world.let_through(*jobs[1:]) == [True, True, False]
    world.sagemaker.refuses.clear()
    assert world.let_through(jobs[0]) == [True], "without a second place"
    assert world.sagemaker.sent == ["b", "c", "a"]


def test_functions_that_let_jobs_through_at_once_do_not_give_a_place_twice(world: World) -> None:
    jobs = world.submit(*(f"job-{number}" for number in range(24)))
    world.sagemaker.instances = 4
    gates = [world.new_gate() for _ in range(4)]
    with ThreadPoolExecutor(4) as pool:
        passed = list(pool.map(lambda pair: gates[pair[0] % 4].let_through(pair[1]), enumerate(jobs)))
    assert sum(passed) == len(world.sagemaker.sent) == places_for(4, per_instance=PER_INSTANCE, is_batch=False)


def test_a_look_costs_two_reads_however_many_wait(world: World) -> None:
    world.sagemaker.instances = 30
    lines = world.submit_batch(61)
    assert all(world.let_through(*lines[:60]))
    world.calls.clear()
    assert world.let_through(lines[60]) == [False]
    assert dict(world.calls) == {"GetItem": 1, "BatchGetItem": 1}


def test_the_function_waits_with_a_job_until_there_is_room(handled: World, monkeypatch: pytest.MonkeyPatch) -> None:
    lines = handled.submit_batch(3)
    pauses: list[float] = []

    def begin_one(seconds: float) -> None:
        pauses.append(seconds)
        if len(pauses) == 3:
            handled.begin("line-0")

    monkeypatch.setattr(time, "sleep", begin_one)
    assert module.handler(event(*(job.to_text() for job in lines)), Context(900)) == {"batchItemFailures": []}
    assert handled.sagemaker.sent == ["line-0", "line-1", "line-2"]
    assert pauses == [module.PAUSE_S] * 3


def test_a_job_that_finds_no_room_in_all_the_time_goes_back_as_a_new_message_of_its_owner(handled: World) -> None:
    own, other = handled.submit("a", "b", owner="the other team"), handled.submit_batch(4)
    for job in (*other, *own):
        answer = module.handler(event(job.to_text()), Context(module.RESERVE_S))
        assert answer == {"batchItemFailures": []}, "given back, it would count as a failure"
    assert handled.sagemaker.sent == ["line-0", "line-1", "a"]
    assert handled.waiting("batches") == [("line-2", "drops"), ("line-3", "drops")]
    ((job_id, group),) = handled.waiting("jobs")
    assert (job_id, group.startswith("sha256:")) == ("b", True)


def test_what_a_message_has_beside_the_job_goes_on_with_it(handled: World) -> None:
    handled.submit("a", "b", "c", "d")
    for name in ("a", "b", "c"):
        handled.gate.let_through(message_of(name))
    text = json.dumps({"job": "d", "request": "s3://assets/d", "owner": "team", "extra_data": {"k": "v"}, "version": 7})
    module.handler(event(text), Context(module.RESERVE_S))
    (message,) = handled.sqs.receive_message(QueueUrl=handled.urls["jobs"])["Messages"]
    assert json.loads(message["Body"]) == json.loads(text)


def test_a_message_that_is_no_job_or_is_not_taken_comes_again_soon_and_costs_the_others_nothing(
    handled: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    pauses: dict[str, int] = {}

    def hide(*, QueueUrl: str, ReceiptHandle: str, VisibilityTimeout: int) -> None:  # noqa: N803  (as boto3 has it)
        assert QueueUrl.endswith("/jobs")
        pauses[ReceiptHandle] = VisibilityTimeout

    monkeypatch.setattr(handled.sqs, "change_message_visibility", hide)
    handled.sagemaker.refuses = {"a"}
    bodies = ["nonsense", "[" * 9999, *(job.to_text() for job in handled.submit("a", "b"))]
    answer = module.handler(event(*bodies), Context())
    assert [failure["itemIdentifier"] for failure in answer["batchItemFailures"]] == ["m-0", "m-1", "m-2"]
    assert set(pauses) == {"r-0", "r-1", "r-2"}
    assert max(pauses.values()) <= 60
    assert handled.sagemaker.sent == ["b"]


def test_a_job_that_an_endpoint_refuses_for_hours_is_not_among_the_dead_letters(
    handled: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    pauses: list[int] = []
    monkeypatch.setattr(
        handled.sqs, "change_message_visibility", lambda **told: pauses.append(told["VisibilityTimeout"])
    )
    handled.sagemaker.refuses = {"a"}
    (job,) = handled.submit("a")
    deliveries = properties_of("JobQueue")["RedrivePolicy"]["maxReceiveCount"]
    for received in range(1, deliveries):
        delivered = event(job.to_text())
        delivered["Records"][0]["attributes"] = {"ApproximateReceiveCount": str(received)}
        assert module.handler(delivered, Context())["batchItemFailures"]
    assert pauses[0] <= 60
    assert sum(pauses) > 4 * 3600
