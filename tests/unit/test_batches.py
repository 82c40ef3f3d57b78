"""Batches from the dropped manifest to the report: every line has its outcome, whatever is cut off or comes twice."""

from __future__ import annotations

import contextlib
import csv
import dataclasses
import io
import json
import random
from collections import Counter
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from botocore.exceptions import EndpointConnectionError

from comfy_serverless.batches import ingest as ingest_module
from comfy_serverless.batches import reading as reading_module
from comfy_serverless.batches import store as store_module
from comfy_serverless.batches.holding import hold_back
from comfy_serverless.batches.ingest import Ingest, NotThere
from comfy_serverless.batches.report import fates, next_id
from comfy_serverless.batches.store import Batch, BatchStatus, BatchStore
from comfy_serverless.errors import NodeExecutionError
from comfy_serverless.jobs.dispatch import JobQueue, Queues, WebhookQueue
from comfy_serverless.jobs.intake import DroppedObject, QueuedJob
from comfy_serverless.jobs.journal import Journal
from comfy_serverless.jobs.models import Job, JobError, JobStatus, JobUrls
from comfy_serverless.jobs.s3 import S3Address
from comfy_serverless.jobs.store.job_state import Claim
from comfy_serverless.jobs.store.jobs import JobStore
from comfy_serverless.settings import InvalidSetting, Settings
from tests.unit.jobs_table import REGION, aws, create_table

DROPS, ASSETS, RESULTS = "drops-bucket", "assets-bucket", "results-bucket"
GRAPH = {"1": {"class_type": "EmptyImage", "inputs": {"width": 8}}, "2": {"class_type": "SaveImage", "inputs": {}}}


class Clock:
    """Moves on by a second whenever it is asked."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        self.now += 1.0
        return self.now


class StepFunctions:
    """Executions that run until they are said to have ended."""

    def __init__(self) -> None:
        self.started: list[dict[str, Any]] = []
        self.status = "RUNNING"

    def start_execution(self, **fields: Any) -> dict[str, Any]:
        self.started.append(fields)
        return {"executionArn": f"arn:execution-{len(self.started)}"}

    def describe_execution(self, **fields: Any) -> dict[str, Any]:
        assert fields == {"executionArn": f"arn:execution-{len(self.started)}"}
        return {"status": self.status}


class World:
    """An ingest with everything behind it, a worker that ends jobs, and AWS calls that can be made to fail."""

    def __init__(self, session: Any) -> None:
        self.table, self.calls = create_table(session)
        self.s3, self.sqs = session.client("s3"), session.client("sqs")
        for bucket in (DROPS, ASSETS, RESULTS):
            self.s3.create_bucket(Bucket=bucket, CreateBucketConfiguration={"LocationConstraint": REGION})
        names = ("jobs", "batches", "manifests", "webhooks")
        self.urls = {name: self.sqs.create_queue(QueueName=name)["QueueUrl"] for name in names}
        self.jobs = JobStore(self.table, lease_s=30, max_runs=3)
        self.batches = BatchStore(self.table)
        workers = Queues.at(self.urls["jobs"], self.urls["batches"], sqs=self.sqs)
        self.ingest = Ingest(
            jobs=self.jobs,
            batches=self.batches,
            workers=workers,
            own_queue=JobQueue(self.sqs, self.urls["manifests"]),
            s3=self.s3,
            settings=Settings(output_bucket=RESULTS, assets_bucket=ASSETS),
        )
        self.journal = Journal(self.jobs, workers, WebhookQueue(self.sqs, None), self.batches)
        self.clients = [self.table._client, self.s3, self.sqs]

    def drop(self, key: str, content: bytes) -> DroppedObject:
        version = self.s3.put_object(Bucket=DROPS, Key=key, Body=content)["ETag"]
        return DroppedObject(address=S3Address(DROPS, key), version=version)

    def begin(self, content: bytes, key: str = "batches/many.jsonl") -> Batch:
        return self.ingest.begin_batch(self.drop(key, content))

    def drop_surely(self, key: str, content: bytes) -> DroppedObject:
        while True:
            try:
                return self.drop(key, content)
            except EndpointConnectionError:
                continue

    @staticmethod
    def attempt(action: Any) -> None:
        """As Lambda does it: what fails is tried again later, by whoever looks after it."""
        with contextlib.suppress(EndpointConnectionError):
            action()

    def open_jobs(self, batch: Batch) -> list[Any]:
        chunks = fates(self.s3, self.jobs, batch)
        states = [fate.state for chunk in chunks for fate in chunk if fate.state is not None]
        return [state for state in states if not state.is_over]

    def requeue(self, messages: list[Any]) -> None:
        self.ingest.workers.send_many([(message["job"], message["request"]) for message in messages])

    def messages(self, name: str) -> list[Any]:
        found: list[Any] = []
        while True:
            answer = self.sqs.receive_message(QueueUrl=self.urls[name], MaxNumberOfMessages=10)
            if not answer.get("Messages"):
                return found
            for message in answer["Messages"]:
                self.sqs.delete_message(QueueUrl=self.urls[name], ReceiptHandle=message["ReceiptHandle"])
                found.append(json.loads(message["Body"]))

    def read_all(self) -> None:
        while messages := self.messages("manifests"):
            for message in messages:
                self.ingest.read_or_pass_on(message["batch"], message["start"], until=float("inf"))

    def work(self, *, failing: int = 0, some: int = 10**9) -> list[str]:
        """What workers do with the messages; every `failing`-th job fails. Answers the jobs that ran."""
        ran: list[str] = []
        for message in self.messages("batches")[:some]:
            job = QueuedJob(job_id=message["job"], address=S3Address.parse(message["request"]))
            assert job.read(s3=self.s3, settings=self.ingest.settings).job_id == job.job_id
            if hold_back(self.jobs, self.batches, job):
                continue
            begun = self.jobs.begin(job.job_id, run="run")
            if begun.claim.name != "RUN" or begun.state is None:
                continue
            ran.append(job.job_id)
            error = JobError.of(NodeExecutionError("no")) if failing and len(ran) % failing == 0 else None
            assert self.jobs.finish(job.job_id, ended(job.job_id, error), run="run", webhook=False, places=())
        return ran

    def look(self, batch: Batch) -> Batch:
        self.ingest.look(batch.id, until=float("inf"))
        found = self.batches.get(batch.id)
        assert found is not None
        return found

    def report(self, batch: Batch) -> tuple[dict[str, Any], list[dict[str, str]], list[dict[str, Any]]]:
        def text(kind: str) -> str:
            return self.s3.get_object(Bucket=RESULTS, Key=f"batches/{batch.id}.{kind}")["Body"].read().decode()

        rows = list(csv.DictReader(io.StringIO(text("report.csv"))))
        return json.loads(text("report.json")), rows, [json.loads(line) for line in text("failed.jsonl").splitlines()]


def ended(job_id: str, error: JobError | None) -> Job:
    now = datetime.now(UTC)
    return Job(
        id=job_id,
        status=JobStatus.FAILED if error else JobStatus.SUCCEEDED,
        created_at=now,
        started_at=now,
        completed_at=now,
        expires_at=now + timedelta(days=30),
        error=error,
        urls=JobUrls.of(job_id),
    )


def manifest(count: int, *, bad: int = 0, first: int = 0) -> bytes:
    """So many good lines, and bad ones among them."""
    lines = [json.dumps({"workflow": GRAPH, "set": {"1.width": number}}) for number in range(first, first + count)]
    chance = random.Random(7)
    for number in range(bad):
        lines.insert(chance.randrange(len(lines) + 1), ["{", "[]", '{"workflow": 1}', "nonsense"][number % 4])
    return "\n".join(lines).encode()


@pytest.fixture
def world(monkeypatch: pytest.MonkeyPatch) -> Iterator[World]:
    monkeypatch.setattr("comfy_serverless.jobs.dispatch.DEPTH_KNOWN_S", 0.0)
    with aws() as session:
        yield World(session)


def test_a_manifest_of_a_thousand_lines_with_ten_bad_ones_is_that_many_jobs_and_reports(world: World) -> None:
    batch = world.begin(manifest(990, bad=10))
    world.read_all()
    assert world.look(batch).report is None, "its jobs have not ended"
    ran = world.work(failing=99)
    assert len(ran) == len(set(ran)) == 990
    done = world.look(batch)
    assert (done.status, done.report) == (BatchStatus.COMPLETED, f"s3://{RESULTS}/batches/{batch.id}.report.json")
    summary, rows, failed = world.report(batch)
    assert (summary["lines"], summary["bad_lines"]) == (1000, 10)
    assert summary["statuses"] == {"succeeded": 980, "failed": 10}
    assert summary["codes"] == {"node_execution_error": 10}
    assert Counter(row["status"] for row in rows) == {"succeeded": 980, "failed": 10, "bad": 10}
    assert [int(row["line"]) for row in rows] == list(range(1, 1001))
    assert all(row["message"] for row in rows if row["status"] == "bad")
    assert len(failed) == 10
    assert sum(1 for _ in world.batches.bad_lines(batch.id)) == 10
    assert [(part.lines, part.bad, part.is_read) for part in world.batches.ranges(batch.id)] == [(1000, 10, True)]


def test_the_failed_lines_of_a_report_are_a_manifest_that_runs_them_again(world: World) -> None:
    batch = world.begin(manifest(20))
    world.read_all()
    world.work(failing=4)
    world.look(batch)
    failed = world.report(batch)[2]
    again = world.begin("\n".join(map(json.dumps, failed)).encode(), key="batches/again.jsonl")
    world.read_all()
    assert len(world.work(failing=5)) == 5
    world.look(again)
    summary, _, third = world.report(again)
    assert summary["statuses"] == {"succeeded": 4, "failed": 1}
    assert third[0]["job_id"].endswith("-again3")


def test_the_same_event_twice_and_the_same_lines_in_two_manifests_run_each_job_once(world: World) -> None:
    dropped = world.drop("batches/a.jsonl", manifest(30) + b"\n" + manifest(5))
    first = world.ingest.begin_batch(dropped)
    assert world.ingest.begin_batch(dropped).id == first.id
    second = world.begin(manifest(40), key="batches/b.jsonl")
    world.read_all()
    assert len(world.work()) == 40
    for batch in (first, second):
        assert world.look(batch).status is BatchStatus.COMPLETED
    assert world.report(first)[0]["duplicates"] == 5
    assert world.report(second)[0]["statuses"] == {"succeeded": 40}


def test_many_ranges_read_by_many_are_one_batch(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ingest_module, "RANGE_BYTES", 700)
    batch = world.begin(manifest(200, bad=3))
    assert len(world.batches.ranges(batch.id)) > 20
    world.read_all()
    assert len(world.work()) == 200
    assert world.look(batch).status is BatchStatus.COMPLETED
    summary = world.report(batch)[0]
    assert (summary["lines"], summary["bad_lines"], summary["statuses"]) == (203, 3, {"succeeded": 200})
    assert sum(part.lines for part in world.batches.ranges(batch.id)) == 203


@pytest.mark.parametrize("seed", range(4))
def test_whatever_is_cut_off_every_line_has_one_outcome(
    world: World, monkeypatch: pytest.MonkeyPatch, seed: int
) -> None:
    monkeypatch.setattr(reading_module, "CHUNK_LINES", 10)
    monkeypatch.setattr(reading_module, "THREADS", 2)
    monkeypatch.setattr(ingest_module, "RANGE_BYTES", 2000)
    monkeypatch.setattr(store_module, "LOOK_EVERY_S", -1)
    monkeypatch.setattr(store_module, "UNTOUCHED_S", -1)
    chance = random.Random(seed)
    faults, is_ours = [60], [False]

    def fail_sometimes(**_fields: Any) -> None:
        if faults[0] > 0 and is_ours[0] and chance.random() < 0.15:
            faults[0] -= 1
            raise EndpointConnectionError(endpoint_url="https://aws")

    for client in world.clients:
        for operation in ("PutItem", "UpdateItem", "BatchWriteItem", "BatchGetItem", "GetItem", "Query"):
            client.meta.events.register(f"before-call.dynamodb.{operation}", fail_sometimes)
        for operation in ("SendMessageBatch", "SendMessage"):
            client.meta.events.register(f"before-call.sqs.{operation}", fail_sometimes)
        for operation in ("PutObject", "GetObject", "CopyObject", "HeadObject"):
            client.meta.events.register(f"before-call.s3.{operation}", fail_sometimes)
    dropped = world.drop_surely("batches/a.jsonl", manifest(90, bad=10))
    ran: list[str] = []
    found: Batch | None = None
    for _ in range(300):
        is_ours[0] = True
        try:
            found = world.ingest.begin_batch(dropped)
            for message in world.messages("manifests"):
                # What fails is lost here, message and all: `look` finds it.
                world.attempt(lambda message=message: world.ingest.read(message["batch"], message["start"], until=0.0))
            world.ingest.look(found.id, until=float("inf"))
        except EndpointConnectionError:
            continue
        finally:
            is_ours[0] = False  # the workers' faults are in test_journal.py
            ran += world.work()
        found = world.batches.get(found.id) or found
        if found is not None and found.report is not None:
            break
    thrown, faults[0] = 60 - faults[0], 0
    assert thrown > 5
    assert found is not None
    assert found.status is BatchStatus.COMPLETED
    assert len(ran) == len(set(ran))
    summary, rows, _ = world.report(found)
    assert (summary["lines"], summary["bad_lines"], sum(summary["statuses"].values())) == (100, 10, 90)
    assert len(rows) == 100


def test_a_paused_batch_waits_without_messages_and_goes_on_where_it_was(world: World) -> None:
    batch = world.begin(manifest(30))
    world.read_all()
    assert len(world.work(some=10)) == 10
    assert world.batches.set_status(batch.id, BatchStatus.PAUSED, was=[BatchStatus.RUNNING])
    world.ingest.workers.send_many([(state.id, state.head["request"]) for state in world.open_jobs(batch)])
    assert world.work() == []
    assert world.look(batch).report is None
    assert all("lease" not in state.head for state in world.open_jobs(batch)), "nobody sends them meanwhile"
    assert world.batches.set_status(batch.id, BatchStatus.RUNNING, was=[BatchStatus.PAUSED])
    world.ingest.resume(batch.id, until=float("inf"))
    assert len(world.work()) == 20
    assert world.look(batch).status is BatchStatus.COMPLETED


def test_a_batch_paused_while_it_is_read_is_read_on_afterwards(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reading_module, "CHUNK_LINES", 10)
    batch = world.begin(manifest(50))
    (message,) = world.messages("manifests")
    assert not world.ingest.read(batch.id, message["start"], until=0.0)
    world.batches.set_status(batch.id, BatchStatus.PAUSED, was=[BatchStatus.RUNNING])
    assert world.ingest.read(batch.id, message["start"], until=float("inf"))
    assert world.batches.ranges(batch.id)[0].lines == 10
    world.batches.set_status(batch.id, BatchStatus.RUNNING, was=[BatchStatus.PAUSED])
    world.ingest.resume(batch.id, until=float("inf"))
    world.read_all()
    assert world.batches.ranges(batch.id)[0].lines == 50


def test_a_canceled_batch_runs_nothing_more_and_reports_what_was_done(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reading_module, "CHUNK_LINES", 10)
    batch = world.begin(manifest(50))
    (message,) = world.messages("manifests")
    world.ingest.read(batch.id, message["start"], until=0.0)
    messages = world.messages("batches")
    world.requeue(messages[:4])
    assert len(world.work()) == 4
    world.batches.set_status(batch.id, BatchStatus.CANCELED, was=[BatchStatus.RUNNING, BatchStatus.PAUSED])
    world.requeue(messages[4:])
    assert world.work() == []
    done = world.look(batch)
    assert (done.status, done.report is not None) == (BatchStatus.CANCELED, True)
    summary = world.report(batch)[0]
    assert summary["statuses"] == {"succeeded": 4, "canceled": 46}


def test_a_cancel_ends_at_once_what_nobody_has_begun_and_nothing_of_others(world: World) -> None:
    other = world.begin(manifest(10), key="batches/other.jsonl")
    world.read_all()
    batch = world.begin(manifest(30))  # the first ten are the other's
    world.read_all()
    running = world.open_jobs(batch)[29]
    assert world.jobs.begin(running.id, run="elsewhere").claim is Claim.RUN
    assert world.batches.set_status(batch.id, BatchStatus.CANCELED, was=[BatchStatus.RUNNING])
    ran = world.work()
    assert set(ran) == {state.id for state in first_jobs(world, other)}, "the other's jobs are run"
    assert world.look(batch).report is None, "one still runs"
    assert {state.id for state in world.open_jobs(batch)} == {running.id}
    assert world.jobs.many([running.id])[running.id].status is JobStatus.RUNNING
    assert world.jobs.finish(running.id, ended(running.id, None), run="elsewhere", webhook=False, places=())
    assert world.look(batch).status is BatchStatus.CANCELED
    assert world.look(other).status is BatchStatus.COMPLETED
    summary = world.report(batch)[0]
    assert (summary["status"], summary["statuses"]) == ("canceled", {"succeeded": 11, "canceled": 19})


def first_jobs(world: World, batch: Batch) -> list[Any]:
    chunks = fates(world.s3, world.jobs, batch)
    return [fate.state for chunk in chunks for fate in chunk if fate.state is not None]


def test_a_resume_that_takes_longer_than_an_invocation_is_passed_on(world: World) -> None:
    batch = world.begin(manifest(220))
    world.read_all()
    world.batches.set_status(batch.id, BatchStatus.PAUSED, was=[BatchStatus.RUNNING])
    assert world.work() == []
    assert all(state.is_parked for state in world.open_jobs(batch))
    world.batches.set_status(batch.id, BatchStatus.RUNNING, was=[BatchStatus.PAUSED])
    orders = [{"batch": batch.id, "resume": True, "start": 0}]
    starts = []
    while orders:
        (order,) = orders
        starts.append(order["start"])
        world.ingest.resume(batch.id, start=order["start"], until=2.0, now=Clock())  # one chunk
        orders = world.messages("manifests")
    assert starts == sorted(set(starts))
    assert len(starts) == 3
    assert len(world.work()) == 220
    assert world.look(batch).report is not None


def test_a_cancel_that_takes_longer_than_an_invocation_goes_on_later(world: World) -> None:
    batch = world.begin(manifest(220))
    world.read_all()
    world.batches.set_status(batch.id, BatchStatus.CANCELED, was=[BatchStatus.RUNNING])
    looks = 0
    while (found := world.batches.get(batch.id)) is not None and found.report is None and looks < 10:
        world.ingest.look(batch.id, until=3.0, now=Clock())
        looks += 1
    assert looks > 2
    done = world.batches.get(batch.id)
    assert done is not None
    assert done.report is not None
    assert world.report(batch)[0]["statuses"] == {"canceled": 220}
    assert world.work() == []


def test_a_job_that_is_parked_just_after_its_batch_was_resumed_is_found(world: World) -> None:
    batch = world.begin(manifest(5))
    world.read_all()
    assert len(world.work(some=1)) == 1
    late = world.open_jobs(batch)[-1]
    world.requeue([{"job": state.id, "request": state.head["request"]} for state in world.open_jobs(batch)[:-1]])
    assert world.jobs.park(late.id, batch=batch.id)  # by a worker that had read `paused` before
    assert len(world.work()) == 3
    world.look(batch)
    (order,) = world.messages("manifests")
    world.ingest.resume(order["batch"], start=order["start"], until=float("inf"))
    assert world.work() == [late.id]
    assert world.look(batch).status is BatchStatus.COMPLETED


def test_what_two_batches_want_runs_if_one_of_them_goes_on(world: World) -> None:
    first = world.begin(manifest(6), key="batches/first.jsonl")
    second = world.begin(manifest(8), key="batches/second.jsonl")
    world.read_all()
    messages = world.messages("batches")
    assert world.batches.set_status(first.id, BatchStatus.CANCELED, was=[BatchStatus.RUNNING])
    assert world.look(first).report is None
    world.requeue(messages)
    assert len(world.work()) == 8
    for batch in (first, second):
        world.look(batch)
    assert world.report(second)[0]["statuses"] == {"succeeded": 8}
    assert world.report(first)[0]["statuses"] == {"succeeded": 6}, "what became of them, whoever wanted it"


def test_a_paused_batch_keeps_nothing_from_another(world: World) -> None:
    first = world.begin(manifest(6), key="batches/first.jsonl")
    world.read_all()
    world.batches.set_status(first.id, BatchStatus.PAUSED, was=[BatchStatus.RUNNING])
    assert world.work() == [], "all are parked"
    second = world.begin(manifest(6), key="batches/second.jsonl")
    world.read_all()
    assert len(world.work()) == 6
    assert world.look(second).status is BatchStatus.COMPLETED


def test_two_canceled_batches_end_what_both_wanted(world: World) -> None:
    batches = [world.begin(manifest(3), key=f"batches/{name}.jsonl") for name in ("first", "second")]
    world.read_all()
    for batch in batches:
        world.batches.set_status(batch.id, BatchStatus.CANCELED, was=[BatchStatus.RUNNING])
    for batch in batches:
        assert world.look(batch).report is not None
        assert world.report(batch)[0]["statuses"] == {"canceled": 3}


def test_a_range_that_is_being_read_is_left_to_its_reader(world: World) -> None:
    batch = world.begin(manifest(30))
    assert world.messages("manifests") != [], "somebody has taken the message"
    world.look(batch)
    assert world.messages("manifests") == []


def test_a_report_that_takes_longer_than_an_invocation_goes_on_where_it_was(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ingest_module, "RANGE_BYTES", 1000)
    batch = world.begin(manifest(120, bad=6) + b"\n" + manifest(12) + b"\n\n\n")
    world.read_all()
    assert len(world.work(failing=10)) == 120
    ranges = len(world.batches.ranges(batch.id))
    assert ranges > 10
    looks = 0
    while (found := world.batches.get(batch.id)) is not None and found.report is None:
        world.ingest.look(batch.id, until=6.0, now=Clock())
        looks += 1
        told = sum(part.is_told for part in world.batches.ranges(batch.id))
        assert told < ranges or world.report(batch)
    assert looks > 2
    summary, rows, failed = world.report(batch)
    assert (summary["lines"], summary["bad_lines"], summary["duplicates"]) == (138, 6, 12)
    assert summary["statuses"] == {"succeeded": 108, "failed": 12}
    first = {row["job_id"]: row["line"] for row in reversed(rows) if row["job_id"]}
    twice = [row for row in rows if row["duplicate_of"]]
    assert [int(row["line"]) for row in twice] == list(range(127, 139))
    assert all(row["duplicate_of"] == first[row["job_id"]] for row in twice)
    assert len(failed) == len({line["job_id"] for line in failed}) == 12


def test_half_of_a_character_is_a_bad_line_and_keeps_no_report_from_being_written(world: World) -> None:
    half = '{"workflow": {"1": {"class_type": "A", "inputs": {"text": "a fox \\ud83d"}}}}'
    whole = '{"workflow": {"1": {"class_type": "A", "inputs": {"text": "a fox \\ud83e\\udd8a"}}}}'
    label = '{"workflow": "a", "metadata": {"a": "\\udc00"}, "job_id": "mine"}'
    batch = world.begin("\n".join([half, whole, label]).encode() + b'\n{"workflow": "\xed\xa0\xbd"}')
    world.read_all()
    assert len(world.messages("batches")) == 1
    (state,) = world.open_jobs(batch)
    world.jobs.begin(state.id, run="run")
    assert world.jobs.finish(state.id, ended(state.id, None), run="run", webhook=False, places=())
    world.look(batch)
    summary, rows, _ = world.report(batch)
    assert (summary["bad_lines"], summary["statuses"]) == (3, {"succeeded": 1})
    assert all("character" in row["message"] for row in rows if row["status"] == "bad")


@pytest.mark.parametrize("length", [10, 55, 57, 58, 63, 64])
def test_a_failed_job_has_a_new_id_of_its_own_however_long_the_old_one_is(length: int) -> None:
    ids = [f"{'customer-with-a-very-long-name-and-a-number-'[: length - 2]:x<{length - 2}}{n}" for n in range(10, 30)]
    for _ in range(12):
        ids = [next_id(job_id) for job_id in ids]
        assert len(set(ids)) == 20
        assert all(len(job_id) <= 64 for job_id in ids)
    assert next_id("fox") == "fox-again2"
    assert next_id("fox-again2") == "fox-again3"
    assert next_id("fox-again") == "fox-again-again2"


def test_long_lines_are_few_at_a_time(world: World) -> None:
    line = json.dumps({"workflow": GRAPH, "metadata": {}, "set": {"1.a": "x" * 3_000_000}}) + "\n"
    batch = world.begin(line.encode() * 7)
    assert [len(chunk) for chunk in fates(world.s3, world.jobs, batch)] == [3, 3, 1]


def test_a_batch_whose_reports_would_come_back_is_refused(world: World) -> None:
    settings = Settings(output_bucket=DROPS, assets_bucket=ASSETS)
    ingest = dataclasses.replace(world.ingest, settings=settings)
    with pytest.raises(InvalidSetting, match="OUTPUT_BUCKET"):
        ingest.begin_batch(world.drop("batches/many.jsonl", manifest(1)))


def test_a_second_request_for_a_job_replaces_nothing_of_the_first(world: World) -> None:
    first = world.drop(
        "jobs/a.json", json.dumps({"workflow": GRAPH, "job_id": "same", "metadata": {"n": "1"}}).encode()
    )
    second = world.drop(
        "jobs/b.json", json.dumps({"workflow": GRAPH, "job_id": "same", "metadata": {"n": "2"}}).encode()
    )
    world.ingest.drop(first)
    world.ingest.drop(second)
    for message in world.messages("jobs"):
        job = QueuedJob(job_id="same", address=S3Address.parse(message["request"]))
        assert job.read(s3=world.s3, settings=world.ingest.settings).metadata["n"] == "1"


def test_a_report_holds_messages_as_they_were(world: World) -> None:
    batch = world.begin(manifest(2))
    world.read_all()
    message = 'a "quote", a comma,\na new line,\r\na \u2028 and \U0001f98a'
    for state in world.open_jobs(batch):
        world.jobs.begin(state.id, run="run")
        job = ended(state.id, JobError.of(NodeExecutionError(message)))
        assert world.jobs.finish(state.id, job, run="run", webhook=False, places=())
    world.look(batch)
    summary, rows, failed = world.report(batch)
    assert [row["message"] for row in rows] == [message] * 2
    assert [entry["message"] for entry in summary["first_failures"]] == [message] * 2
    assert len(failed) == 2


def test_an_empty_manifest_is_a_batch_that_is_over(world: World) -> None:
    for number, content in enumerate((b"", b"\n\n \r\n")):
        batch = world.begin(content, key=f"batches/empty{number}.jsonl")
        world.read_all()
        assert world.look(batch).status is BatchStatus.COMPLETED
        assert world.report(batch)[0]["lines"] == 0


def test_a_manifest_that_is_replaced_later_changes_nothing(world: World) -> None:
    batch = world.begin(manifest(5))
    world.s3.put_object(Bucket=DROPS, Key="batches/many.jsonl", Body=b"{}")
    world.read_all()
    assert len(world.work()) == 5
    assert world.look(batch).status is BatchStatus.COMPLETED


def test_a_manifest_that_is_gone_is_told(world: World) -> None:
    with pytest.raises(NotThere):
        world.ingest.begin_batch(DroppedObject(address=S3Address(DROPS, "batches/gone.jsonl"), version="1"))


def test_results_never_go_where_drops_come_from(world: World) -> None:
    line = json.dumps({"workflow": GRAPH, "output": {"bucket": DROPS}})
    batch = world.begin(line.encode())
    world.read_all()
    assert world.messages("batches") == []
    assert "input bucket" in next(world.batches.bad_lines(batch.id))[1]


def test_a_large_manifest_is_read_by_the_state_machine(world: World) -> None:
    machine = StepFunctions()
    ingest = with_machine(world, machine)
    batch = ingest.begin_batch(world.drop("batches/large.jsonl", manifest(10)))
    assert json.loads(machine.started[0]["input"]) == {"batch": batch.id, "starts": [0]}
    assert world.messages("manifests") == []


def test_what_the_state_machine_has_left_is_read_by_another_execution_and_not_before(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(store_module, "UNTOUCHED_S", -1)
    machine = StepFunctions()
    ingest = with_machine(world, machine)
    batch = ingest.begin_batch(world.drop("batches/large.jsonl", manifest(10)))
    ingest.look(batch.id, until=float("inf"))
    assert len(machine.started) == 1, "it still runs"
    machine.status = "FAILED"
    ingest.look(batch.id, until=float("inf"))
    assert len(machine.started) == 2


def with_machine(world: World, machine: StepFunctions) -> Ingest:
    settings = Settings(
        output_bucket=RESULTS, assets_bucket=ASSETS, batch_state_machine="arn:machine", batch_map_bytes=100
    )
    fields = {name: getattr(world.ingest, name) for name in ("jobs", "batches", "workers", "own_queue", "s3")}
    return Ingest(**fields, settings=settings, step_functions=machine)  # type: ignore[arg-type]


# One object, one job.


def test_a_dropped_request_is_a_job_once_and_keeps_its_id(world: World) -> None:
    dropped = world.drop("jobs/fox 1.json", json.dumps({"workflow": GRAPH, "metadata": {"a": "b"}}).encode())
    for _ in range(2):
        world.ingest.drop(dropped)
    messages = world.messages("jobs")
    assert {message["job"] for message in messages} == {dropped.default_id}
    state = world.jobs.read(dropped.default_id)
    assert state is not None
    assert (state.owner, state.head["labels"]["a"]) == ("drops", "b")
    job = QueuedJob(job_id=messages[0]["job"], address=S3Address.parse(messages[0]["request"]))
    request = job.read(s3=world.s3, settings=world.ingest.settings)
    assert (request.job_id, request.workflow) == (dropped.default_id, GRAPH)


def test_a_dropped_object_that_is_no_job_is_one_that_has_failed_with_a_result(world: World) -> None:
    dropped = world.drop("jobs/bad.json", b"{")
    for _ in range(2):
        world.ingest.drop(dropped)
    state = world.jobs.read(dropped.default_id)
    assert state is not None
    assert state.status is JobStatus.FAILED
    stored = json.loads(world.s3.get_object(Bucket=RESULTS, Key=f"{dropped.default_id}/result.json")["Body"].read())
    assert (stored["status"], stored["error"]["code"]) == ("failed", "invalid_request")
    assert world.messages("jobs") == []
