"""Drops and lines that name a bucket which is not listed: jobs that fail at the door, and run nowhere."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest
from botocore.exceptions import EndpointConnectionError

from comfy_serverless.batches import line_requests
from comfy_serverless.jobs.document import JobStatus
from comfy_serverless.jobs.lines import Line
from comfy_serverless.jobs.result_file import ResultFile
from comfy_serverless.jobs.stored_request import LineRequest, request_at
from tests.unit.batch_world import DROPS, GRAPH, RESULTS, World
from tests.unit.jobs_table import aws

LOADER = {"1": {"class_type": "LoadImage", "inputs": {"image": "fox.png"}}, "2": GRAPH["2"]}
THEIRS = {"output": {"bucket": "theirs"}}


@pytest.fixture
def world(monkeypatch: pytest.MonkeyPatch) -> Iterator[World]:
    monkeypatch.setattr("comfy_serverless.aws.sqs.DEPTH_KNOWN_S", 0.0)
    with aws() as session:
        yield World(session, allowed_input_buckets=(DROPS, RESULTS), allowed_output_buckets=(RESULTS, "mine"))


def result(world: World, job_id: str) -> dict[str, Any]:
    content = world.s3.get_object(Bucket=RESULTS, Key=f"{job_id}/result.json")["Body"].read()
    document: dict[str, Any] = json.loads(content)
    return document


def line(number: int, **fields: Any) -> str:
    return json.dumps({"job_id": f"line-{number}", "workflow": GRAPH, **fields})


def drop(world: World, **fields: Any) -> None:
    request = {"job_id": "fox-1", "workflow": LOADER, **fields}
    world.drops.drop(world.drop("jobs/fox.json", json.dumps(request).encode()))


@pytest.mark.parametrize(
    ("fields", "code", "said"),
    [
        (THEIRS, "invalid_request", "OutputBuckets"),
        ({"inputs": {"1.image": "s3://theirs/fox.png"}}, "missing_asset", "InputBuckets"),
        ({"set": {"LoadImage.image": "s3://theirs/fox.png"}}, "missing_asset", "InputBuckets"),
        ({"workflow": "s3://theirs/w.json"}, "missing_asset", "InputBuckets"),
    ],
)
def test_a_drop_fails_under_its_own_id_and_nothing_is_queued(
    world: World, fields: dict[str, Any], code: str, said: str
) -> None:
    for _ in range(2):  # events come twice
        drop(world, **fields)
        stored = result(world, "fox-1")
        assert (stored["status"], stored["error"]["code"], stored["error"]["retryable"]) == ("failed", code, False)
        assert said in stored["error"]["message"]
        state = world.jobs.read("fox-1")
        assert state is not None
        assert (state.status, state.runs) == (JobStatus.FAILED, 0)
        assert state.result == state.document().result_uri == f"s3://{RESULTS}/fox-1/result.json"
        assert state.labels["source"] == f"s3://{DROPS}/jobs/fox.json"
        assert world.messages("jobs") == []


@pytest.mark.parametrize(
    "fields",
    [
        {"output": {"bucket": "mine"}},
        {"output": {"bucket": RESULTS, "prefix": "x"}},
        {"inputs": {"1.image": f"s3://{DROPS}/fox.png"}},
        {"set": {"LoadImage.image": f"s3://{RESULTS}/a/9/fox.png"}},
    ],
)
def test_a_drop_that_names_listed_buckets_is_queued(world: World, fields: dict[str, Any]) -> None:
    drop(world, **fields)
    assert [message["job"] for message in world.messages("jobs")] == ["fox-1"]


def test_every_line_with_a_foreign_bucket_is_a_failed_job_and_the_others_run(world: World) -> None:
    lines = [line(number, **(THEIRS if number % 2 else {})) for number in range(12)]
    batch = world.begin("\n".join(lines).encode())
    world.read_all()
    assert sorted(world.work()) == sorted(f"line-{number}" for number in range(0, 12, 2))
    world.look(batch)
    summary, rows, failed = world.report(batch)
    assert (summary["lines"], summary["bad_lines"]) == (12, 0)
    assert summary["statuses"] == {"succeeded": 6, "failed": 6}
    assert summary["codes"] == {"invalid_request": 6}
    for row in rows[1::2]:
        assert row["result"] == f"s3://{RESULTS}/{row['job_id']}/result.json"
        assert "OutputBuckets" in row["message"]
        assert result(world, row["job_id"])["status"] == "failed"
    # Once the bucket is listed, they can be dropped again.
    assert [again["job_id"] for again in failed] == [f"line-{number}-again2" for number in range(1, 12, 2)]


def test_a_fault_of_ours_in_one_line_keeps_no_other_from_running(
    world: World, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    read = request_at

    def with_fault(one: Line, **given: Any) -> LineRequest:
        found = read(one, **given)
        if found.request.job_id == "line-5":
            raise TypeError("unhashable type: 'list'")
        return found

    monkeypatch.setattr(line_requests, "request_at", with_fault)
    batch = world.begin("\n".join(line(number) for number in range(12)).encode())
    world.read_all()
    assert len(world.work()) == 11
    world.look(batch)
    summary, rows, _ = world.report(batch)
    assert (summary["lines"], summary["bad_lines"]) == (12, 1)
    [bad] = [row for row in rows if row["status"] == "bad"]
    assert bad["line"] == "6"
    assert "a fault of ours (TypeError)" in bad["message"]
    assert "unhashable type" in caplog.text


def test_what_aws_does_not_answer_is_no_fault_of_a_line(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    def unanswered(*_: Any, **__: Any) -> LineRequest:
        raise EndpointConnectionError(endpoint_url="https://s3")

    monkeypatch.setattr(line_requests, "request_at", unanswered)
    batch = world.begin(line(1).encode())
    with pytest.raises(EndpointConnectionError):
        world.read_all()
    assert list(world.batches.bad_lines(batch.id)) == []


def test_a_line_that_is_read_once_more_is_refused_once(world: World) -> None:
    batch = world.begin(line(1, **THEIRS).encode())
    world.read_all()
    first = world.jobs.read("line-1")
    assert first is not None
    world.keeper.submit(batch, list(lines_of(world, batch)), draws=None)
    assert world.jobs.read("line-1") == first
    assert world.messages("batches") == []


def test_a_refused_line_ends_no_other_job_of_its_id(world: World) -> None:
    drop(world, job_id="line-1")
    world.begin(line(1, **THEIRS).encode())
    world.read_all()
    state = world.jobs.read("line-1")
    assert state is not None
    assert state.status is JobStatus.QUEUED
    assert "Contents" not in world.s3.list_objects_v2(Bucket=RESULTS)


def test_nor_does_a_refused_drop(world: World) -> None:
    drop(world)
    drop(world, **THEIRS)
    state = world.jobs.read("fox-1")
    assert state is not None
    assert state.status is JobStatus.QUEUED
    assert "Contents" not in world.s3.list_objects_v2(Bucket=RESULTS)


def test_a_refusal_that_was_cut_off_is_completed_with_the_next_event(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    dropped = world.drop("jobs/fox.json", json.dumps({"job_id": "fox-1", "workflow": LOADER, **THEIRS}).encode())
    with monkeypatch.context() as cut:
        cut.setattr(ResultFile, "write", lambda *_: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            world.drops.drop(dropped)
    world.drops.drop(dropped)
    assert result(world, "fox-1")["error"]["code"] == "invalid_request"
    state = world.jobs.read("fox-1")
    assert state is not None
    assert state.status is JobStatus.FAILED


def lines_of(world: World, batch: Any) -> Iterator[Any]:
    from comfy_serverless.batches.reading import read_lines

    return read_lines(world.s3, batch, start=0, end=batch.size_bytes)


def test_a_manifest_with_tags_is_taken(world: World) -> None:
    world.s3.put_object(Bucket=DROPS, Key="batches/many.jsonl", Body=line(1), Tagging="team=a")
    head = world.s3.head_object(Bucket=DROPS, Key="batches/many.jsonl")
    from comfy_serverless.aws.s3 import S3Address
    from comfy_serverless.jobs.sources import DroppedObject

    batch = world.drops.begin_batch(DroppedObject(address=S3Address(DROPS, "batches/many.jsonl"), version=head["ETag"]))
    copy = S3Address.parse(batch.manifest)
    assert world.s3.get_object_tagging(Bucket=copy.bucket, Key=copy.key)["TagSet"] == []
