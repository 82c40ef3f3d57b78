"""Whoever runs jobs of the API tells it which node classes there are: on Lambda and on SageMaker."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import pytest

from comfy_serverless.handlers import generate, sagemaker_server, wiring_worker
from comfy_serverless.jobs import node_list
from comfy_serverless.jobs.declarations import DeclarationsReader
from comfy_serverless.jobs.node_list import NodeListReader, NodeListWriter
from comfy_serverless.worker.journal import Standing
from tests.patience import PATIENCE_S
from tests.unit.fakes import IN

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client

MESSAGE = json.dumps({"job": "job-1", "request": f"s3://{IN}/requests/team/1.json"})


def on_lambda() -> None:
    context = SimpleNamespace(aws_request_id="1", get_remaining_time_in_millis=lambda: 900_000)
    event = {"Records": [{"messageId": "1", "eventSource": "aws:sqs", "body": MESSAGE}]}
    assert generate.handler(event, context) == {"batchItemFailures": []}


def on_sagemaker() -> None:
    server = sagemaker_server.SageMakerServer(in_flight=1)
    status, _ = server.invoke(MESSAGE.encode(), "job-1")
    assert status == 200


@pytest.fixture
def writer(s3: S3Client, monkeypatch: pytest.MonkeyPatch) -> NodeListWriter:
    journal = SimpleNamespace(run=lambda *_: Standing())
    made = NodeListWriter(s3, IN, "this-image", lambda: {"SaveImage": {}, "KSampler": {}}, list)
    for name, value in {
        "journal": journal,
        "worker": None,
        "replies": None,
        "meter": None,
        "connector": SimpleNamespace(),
        "node_list": made,
    }.items():
        monkeypatch.setattr(wiring_worker, name, lambda value=value: value)
    return made


@pytest.mark.parametrize("run", [on_lambda, on_sagemaker])
def test_a_worker_that_runs_jobs_of_the_api_lists_its_nodes(
    run: Callable[[], Any], writer: NodeListWriter, s3: S3Client
) -> None:
    run()
    writer.wait(PATIENCE_S)
    assert json.loads(s3.get_object(Bucket=IN, Key="engine/this-image.json")["Body"].read()) == [
        "KSampler",
        "SaveImage",
    ]
    reader = NodeListReader(s3, IN, lambda: "this-image")
    reader.check({"1": {"class_type": "KSampler"}})


def test_on_lambda_the_lists_are_written_before_the_answer_because_it_is_frozen_then(
    writer: NodeListWriter, s3: S3Client
) -> None:
    """It is read in a turn of the engine's: a thread that is frozen with it would keep the next job waiting."""
    asked = threading.Event()

    def slow() -> dict[str, Any]:
        asked.wait(0.3)
        return {"KSampler": {}}

    writer.object_info = slow
    on_lambda()
    assert s3.get_object(Bucket=IN, Key="engine/this-image/object_info.json")["Body"].read()
    assert DeclarationsReader(s3, IN, lambda: "this-image").fresh() == {"KSampler": {}}


def test_no_time_is_waited_that_the_invocation_does_not_have(
    writer: NodeListWriter, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked, waited, wait = threading.Event(), list[float](), NodeListWriter.wait

    def noted(own: NodeListWriter, seconds: float) -> None:
        waited.append(seconds)
        wait(own, seconds)

    monkeypatch.setattr(NodeListWriter, "wait", noted)
    writer.object_info = lambda: {"KSampler": {}} if asked.wait(PATIENCE_S) else {}
    context = SimpleNamespace(aws_request_id="1", get_remaining_time_in_millis=lambda: 1)
    event = {"Records": [{"messageId": "1", "eventSource": "aws:sqs", "body": MESSAGE}]}
    assert generate.handler(event, context) == {"batchItemFailures": []}
    assert [seconds > 0 for seconds in waited] == [False]
    asked.set()
    writer.wait(PATIENCE_S)


def test_lists_that_were_not_written_are_written_soon_after(
    writer: NodeListWriter, s3: S3Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = SimpleNamespace(now=1000.0)
    monkeypatch.setattr(node_list, "time", SimpleNamespace(monotonic=lambda: clock.now))
    declared, writer.object_info = writer.object_info, lambda: dict[str, Any]()["ComfyUI did not start"]
    writer.write_if_due()
    writer.wait(PATIENCE_S)
    writer.object_info = declared
    for passed_s in (1.0, node_list.WRITTEN_AGAIN_AFTER_S):
        clock.now += passed_s
        assert "Contents" not in s3.list_objects_v2(Bucket=IN, Prefix="engine/this-image.json")
        writer.write_if_due()
        writer.wait(PATIENCE_S)
    assert "Contents" in s3.list_objects_v2(Bucket=IN, Prefix="engine/this-image.json")
