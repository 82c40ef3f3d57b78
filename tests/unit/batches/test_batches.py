"""Batches from the dropped manifest to their jobs: every line has its outcome, whatever is cut off or comes twice."""

from __future__ import annotations

import dataclasses
import json
import random
from collections import Counter
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, cast

import pytest
from botocore.exceptions import EndpointConnectionError

from comfy_serverless.aws.s3 import S3Address
from comfy_serverless.batches import ranges as ranges_module
from comfy_serverless.batches import reading as reading_module
from comfy_serverless.batches import store as store_module
from comfy_serverless.batches.batch import Batch, BatchStatus
from comfy_serverless.batches.drops import Drops
from comfy_serverless.errors import InvalidSetting, MissingAsset
from comfy_serverless.jobs.document import JobStatus
from comfy_serverless.jobs.message import JobMessage
from comfy_serverless.jobs.sources import DroppedObject
from comfy_serverless.settings import Settings
from tests.unit.batch_world import ASSETS, DROPS, GRAPH, RESULTS, World, manifest
from tests.unit.jobs_table import aws

if TYPE_CHECKING:
    from mypy_boto3_stepfunctions import SFNClient


@pytest.fixture
def world(monkeypatch: pytest.MonkeyPatch) -> Iterator[World]:
    monkeypatch.setattr("comfy_serverless.aws.sqs.DEPTH_KNOWN_S", 0.0)
    with aws() as session:
        yield World(session)


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


def test_a_manifest_of_many_chunks_with_ten_bad_lines_is_that_many_jobs_and_reports(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reading_module, "CHUNK_LINES", 20)
    batch = world.begin(manifest(90, bad=10))
    world.read_all()
    assert world.look(batch).report is None, "its jobs have not ended"
    ran = world.work(failing=9)
    assert len(ran) == len(set(ran)) == 90
    done = world.look(batch)
    assert (done.status, done.report) == (BatchStatus.COMPLETED, f"s3://{RESULTS}/batches/{batch.id}.report.json")
    summary, rows, failed = world.report(batch)
    assert (summary["lines"], summary["bad_lines"]) == (100, 10)
    assert summary["statuses"] == {"succeeded": 80, "failed": 10}
    assert summary["codes"] == {"node_execution_error": 10}
    assert Counter(row["status"] for row in rows) == {"succeeded": 80, "failed": 10, "bad": 10}
    assert [int(row["line"]) for row in rows] == list(range(1, 101))
    assert all(row["message"] for row in rows if row["status"] == "bad")
    assert len(failed) == 10
    assert sum(1 for _ in world.batches.bad_lines(batch.id)) == 10
    assert [(part.lines, part.bad, part.is_read) for part in world.batches.ranges(batch.id)] == [(100, 10, True)]


def test_the_same_event_twice_and_the_same_lines_in_two_manifests_run_each_job_once(world: World) -> None:
    dropped = world.drop("batches/a.jsonl", manifest(30) + b"\n" + manifest(5))
    first = world.drops.begin_batch(dropped)
    assert world.drops.begin_batch(dropped).id == first.id
    second = world.begin(manifest(40), key="batches/b.jsonl")
    world.read_all()
    assert len(world.work()) == 40
    for batch in (first, second):
        assert world.look(batch).status is BatchStatus.COMPLETED
    assert world.report(first)[0]["duplicates"] == 5
    assert world.report(second)[0]["statuses"] == {"succeeded": 40}


def test_many_ranges_read_by_many_are_one_batch(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ranges_module, "RANGE_BYTES", 300)
    batch = world.begin(manifest(80, bad=3))
    assert len(world.batches.ranges(batch.id)) > 20
    world.read_all()
    assert len(world.work()) == 80
    assert world.look(batch).status is BatchStatus.COMPLETED
    summary = world.report(batch)[0]
    assert (summary["lines"], summary["bad_lines"], summary["statuses"]) == (83, 3, {"succeeded": 80})
    assert sum(part.lines for part in world.batches.ranges(batch.id)) == 83


@pytest.mark.parametrize("seed", range(4))
def test_whatever_is_cut_off_every_line_has_one_outcome(
    world: World, monkeypatch: pytest.MonkeyPatch, seed: int
) -> None:
    monkeypatch.setattr(reading_module, "CHUNK_LINES", 5)
    monkeypatch.setattr(reading_module, "THREADS", 2)
    monkeypatch.setattr(ranges_module, "RANGE_BYTES", 1000)
    monkeypatch.setattr(store_module, "ADVANCE_EVERY_S", -1)
    monkeypatch.setattr(ranges_module, "UNTOUCHED_S", -1)
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
    dropped = world.drop_surely("batches/a.jsonl", manifest(45, bad=5))
    ran: list[str] = []
    found: Batch | None = None
    for _ in range(300):
        is_ours[0] = True
        try:
            found = world.drops.begin_batch(dropped)
            for message in world.messages("manifests"):
                # What fails is lost here, message and all: `look` finds it.
                world.attempt(lambda message=message: world.keeper.read(message["batch"], message["start"], until=0.0))
            world.keeper.advance(found.id, until=float("inf"))
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
    assert (summary["lines"], summary["bad_lines"], sum(summary["statuses"].values())) == (50, 5, 45)
    assert len(rows) == 50


def test_a_range_that_is_being_read_is_left_to_its_reader(world: World) -> None:
    batch = world.begin(manifest(30))
    assert world.messages("manifests") != [], "somebody has taken the message"
    world.look(batch)
    assert world.messages("manifests") == []


def test_a_batch_whose_reports_would_come_back_is_refused(world: World) -> None:
    settings = Settings(output_bucket=DROPS, assets_bucket=ASSETS)
    drops = dataclasses.replace(world.drops, settings=settings)
    with pytest.raises(InvalidSetting, match="OUTPUT_BUCKET"):
        drops.begin_batch(world.drop("batches/many.jsonl", manifest(1)))


def test_a_second_request_for_a_job_replaces_nothing_of_the_first(world: World) -> None:
    first = world.drop(
        "jobs/a.json", json.dumps({"workflow": GRAPH, "job_id": "same", "metadata": {"n": "1"}}).encode()
    )
    second = world.drop(
        "jobs/b.json", json.dumps({"workflow": GRAPH, "job_id": "same", "metadata": {"n": "2"}}).encode()
    )
    world.drops.drop(first)
    world.drops.drop(second)
    for message in world.messages("jobs"):
        job = JobMessage(job_id="same", address=S3Address.parse(message["request"]))
        assert job.read(s3=world.s3, settings=world.keeper.settings).metadata["n"] == "1"


def test_a_manifest_that_is_replaced_later_changes_nothing(world: World) -> None:
    batch = world.begin(manifest(5))
    world.s3.put_object(Bucket=DROPS, Key="batches/many.jsonl", Body=b"{}")
    world.read_all()
    assert len(world.work()) == 5
    assert world.look(batch).status is BatchStatus.COMPLETED


def test_a_manifest_that_is_gone_is_told(world: World) -> None:
    with pytest.raises(MissingAsset, match="does not exist"):
        world.drops.begin_batch(DroppedObject(address=S3Address(DROPS, "batches/gone.jsonl"), version="1"))


def test_results_never_go_where_drops_come_from(world: World) -> None:
    line = json.dumps({"workflow": GRAPH, "output": {"bucket": DROPS}})
    batch = world.begin(line.encode())
    world.read_all()
    assert world.messages("batches") == []
    assert "input bucket" in next(world.batches.bad_lines(batch.id)).message


def test_a_large_manifest_is_read_by_the_state_machine(world: World) -> None:
    machine = StepFunctions()
    drops = with_machine(world, machine)
    batch = drops.begin_batch(world.drop("batches/large.jsonl", manifest(10)))
    assert json.loads(machine.started[0]["input"]) == {"batch": batch.id, "starts": [0]}
    assert world.messages("manifests") == []


def test_what_the_state_machine_has_left_is_read_by_another_execution_and_not_before(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ranges_module, "UNTOUCHED_S", -1)
    machine = StepFunctions()
    drops = with_machine(world, machine)
    batch = drops.begin_batch(world.drop("batches/large.jsonl", manifest(10)))
    drops.keeper.advance(batch.id, until=float("inf"))
    assert len(machine.started) == 1, "it still runs"
    machine.status = "FAILED"
    drops.keeper.advance(batch.id, until=float("inf"))
    assert len(machine.started) == 2


def with_machine(world: World, machine: StepFunctions) -> Drops:
    settings = Settings(
        output_bucket=RESULTS, assets_bucket=ASSETS, batch_state_machine="arn:machine", batch_map_bytes=100
    )
    keeper = dataclasses.replace(world.keeper, settings=settings, step_functions=cast("SFNClient", machine))
    return dataclasses.replace(world.drops, settings=settings, keeper=keeper)


def test_a_dropped_request_is_a_job_once_and_keeps_its_id(world: World) -> None:
    dropped = world.drop("jobs/fox 1.json", json.dumps({"workflow": GRAPH, "metadata": {"a": "b"}}).encode())
    for _ in range(2):
        world.drops.drop(dropped)
    messages = world.messages("jobs")
    assert {message["job"] for message in messages} == {dropped.default_id}
    state = world.jobs.read(dropped.default_id)
    assert state is not None
    assert (state.owner, state.labels["a"]) == ("drops", "b")
    job = JobMessage(job_id=messages[0]["job"], address=S3Address.parse(messages[0]["request"]))
    request = job.read(s3=world.s3, settings=world.keeper.settings)
    assert (request.job_id, request.workflow) == (dropped.default_id, GRAPH)


def test_a_dropped_object_that_is_no_job_is_one_that_has_failed_with_a_result(world: World) -> None:
    dropped = world.drop("jobs/bad.json", b"{")
    for _ in range(2):
        world.drops.drop(dropped)
    state = world.jobs.read(dropped.default_id)
    assert state is not None
    assert state.status is JobStatus.FAILED
    stored = json.loads(world.s3.get_object(Bucket=RESULTS, Key=f"{dropped.default_id}/result.json")["Body"].read())
    assert (stored["status"], stored["error"]["code"]) == ("failed", "invalid_request")
    assert world.messages("jobs") == []


@pytest.mark.parametrize(
    "fields", [{"output": {"prefix": "owners/alice"}}, {"inputs": {"1.image": f"s3://{ASSETS}/blobs/alice/a.png"}}]
)
def test_a_line_or_a_drop_that_names_a_place_of_the_api_is_refused_and_reported(
    world: World, fields: dict[str, Any]
) -> None:
    request = json.dumps({"workflow": {"1": {"class_type": "A", "inputs": {"image": ""}}}, **fields}).encode()
    batch = world.begin(request + b"\n")
    world.read_all()
    assert not world.messages("batches")
    [bad] = [part.bad for part in world.batches.ranges(batch.id)]
    assert bad == 1
    world.drops.drop(world.drop("jobs/a.json", request))
    assert not world.messages("jobs")
    written = [item["Key"] for item in world.s3.list_objects_v2(Bucket=RESULTS).get("Contents", [])]
    assert not [key for key in written if key.startswith("owners/")]
    [key] = [key for key in written if key.endswith("result.json")]
    assert "the API's" in json.loads(world.s3.get_object(Bucket=RESULTS, Key=key)["Body"].read())["error"]["message"]
