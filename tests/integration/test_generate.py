"""The worker as Lambda runs it: the real handler, under the real runtime, with an engine and an S3."""

from __future__ import annotations

import base64
import contextlib
import hashlib
import io
import json
import os
import signal
import sys
import time
import urllib.request
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from PIL import Image

from demo.seed import INPUT_BUCKET, OUTPUT_BUCKET
from local.aws.lambda_emulator import LambdaEmulator, LambdaFailed
from local.aws.server import LocalAws
from tests.patience import QuietClock, slack

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client

EVENTS = Path(__file__).parents[2] / "events"
WorkerFactory = Callable[..., LambdaEmulator]

PHOTO = f"s3://{INPUT_BUCKET}/photos/sunset.jpg"


def sample(name: str) -> dict[str, Any]:
    return dict(json.loads((EVENTS / f"{name}.json").read_text()))


def thumbnail(**fields: Any) -> dict[str, Any]:
    """A quick job with its own name."""
    return {
        "job_id": f"t-{uuid.uuid4().hex}",
        "workflow": "thumbnail",
        "inputs": {"Photo.image": PHOTO},
        "reply": "links",
        **fields,
    }


@pytest.fixture(scope="module")
def s3(local_s3: LocalAws) -> S3Client:
    return local_s3.client()


def result(s3: S3Client, job_id: str) -> dict[str, Any]:
    return dict(json.loads(s3.get_object(Bucket=OUTPUT_BUCKET, Key=f"{job_id}/result.json")["Body"].read()))


def keys(s3: S3Client, prefix: str) -> set[str]:
    return {item["Key"] for item in s3.list_objects_v2(Bucket=OUTPUT_BUCKET, Prefix=prefix).get("Contents", [])}


def json_lines(worker: LambdaEmulator) -> Iterator[dict[str, Any]]:
    for line in worker.log.lines():
        if line.startswith("{"):
            yield json.loads(line)


def metrics(worker: LambdaEmulator, name: str) -> list[float]:
    """Every value of a metric, in the order it was written."""
    return [value for line in json_lines(worker) if "_aws" in line for value in line.get(name, [])]


# Every sample event


def assert_delivered(s3: S3Client, job: dict[str, Any]) -> None:
    """Everything the job names is in S3, byte for byte what it says; images are images."""
    assert job["status"] == "succeeded", job["error"]
    assert job["outputs"]
    for output in job["outputs"]:
        bucket, _, key = output["s3_uri"].removeprefix("s3://").partition("/")
        content = s3.get_object(Bucket=bucket, Key=key)["Body"].read()
        assert len(content) == output["size_bytes"]
        assert hashlib.sha256(content).hexdigest() == output["sha256"]
        if output["type"] == "image":
            with Image.open(io.BytesIO(content)) as image:
                image.load()
                assert image.size == (output["width"], output["height"])


@pytest.mark.parametrize("name", ["direct", "direct_text_to_image", "direct_editor"])
def test_a_direct_payload(warm_worker: LambdaEmulator, s3: S3Client, name: str) -> None:
    job = warm_worker.invoke(sample(name))
    assert_delivered(s3, job)
    (output,) = job["outputs"]
    inline = base64.b64decode(output["data_base64"])
    assert hashlib.sha256(inline).hexdigest() == output["sha256"]
    with urllib.request.urlopen(output["url"]) as linked:
        assert linked.read() == inline
        assert linked.headers["Content-Type"] == "image/png"
    assert result(s3, job["id"])["outputs"][0]["sha256"] == output["sha256"]


def test_an_http_request(warm_worker: LambdaEmulator, s3: S3Client) -> None:
    reply = warm_worker.invoke(sample("http"))
    assert reply["statusCode"] == 200
    assert_delivered(s3, json.loads(reply["body"]))


@pytest.mark.parametrize("name", ["s3", "s3_image"])
def test_an_s3_event(warm_worker: LambdaEmulator, s3: S3Client, name: str) -> None:
    (summary,) = warm_worker.invoke(sample(name))["jobs"]
    assert_delivered(s3, result(s3, summary["id"]))


def test_the_test_event_of_s3_is_ignored(warm_worker: LambdaEmulator) -> None:
    assert warm_worker.invoke(sample("s3_test")) == {"jobs": []}


def test_an_sqs_batch_of_s3_events(warm_worker: LambdaEmulator, s3: S3Client) -> None:
    assert warm_worker.invoke(sample("sqs_s3")) == {"batchItemFailures": []}
    for prefix in ("sunset-", "lighthouse-"):
        (key,) = (key for key in keys(s3, prefix) if key.endswith("/result.json"))
        assert_delivered(s3, result(s3, key.removesuffix("/result.json")))


def test_an_sqs_batch_of_requests_with_a_bad_one(warm_worker: LambdaEmulator, s3: S3Client) -> None:
    assert warm_worker.invoke(sample("sqs_requests")) == {"batchItemFailures": []}
    assert_delivered(s3, result(s3, "sample-thumbnail"))
    assert_delivered(s3, result(s3, "sample-night-poster"))
    error = result(s3, "sample-typing-error")["error"]
    assert error["code"] == "invalid_workflow"
    assert "ImageScale.width" in error["message"]


# Warmth, once, time


def test_the_second_invocation_starts_nothing(worker: WorkerFactory) -> None:
    cold = worker()
    for _ in range(3):
        last = thumbnail()
        assert cold.invoke(last)["status"] == "succeeded"
    cold.log.wait_for(lambda line: len(metrics(cold, "Jobs")) == 3)
    assert metrics(cold, "ColdStart") == [1, 0, 0]
    assert metrics(cold, "EngineStarts") == [1, 0, 0]
    assert metrics(cold, "Outputs") == [1, 1, 1]
    assert all(value > 0 for value in metrics(cold, "OutputBytes"))
    assert len(metrics(cold, "ExecutionMs")) == len(metrics(cold, "OverheadMs")) == 3
    cold.invoke(last)
    cold.log.wait_for(lambda line: len(metrics(cold, "ColdStart")) == 4)
    assert len(metrics(cold, "Jobs")) == 3  # answered from its result: no new job


def test_the_same_event_twice_is_run_once(warm_worker: LambdaEmulator, s3: S3Client) -> None:
    event = sample("s3")
    event["Records"][0]["s3"]["object"]["sequencer"] = uuid.uuid4().hex
    first = warm_worker.invoke(event)
    (job_id,) = (job["id"] for job in first["jobs"])
    completed_at = result(s3, job_id)["completed_at"]
    files = keys(s3, job_id)
    assert warm_worker.invoke(event) == first
    assert result(s3, job_id)["completed_at"] == completed_at
    assert keys(s3, job_id) == files


def test_a_job_asked_for_again_is_answered_with_new_links(warm_worker: LambdaEmulator) -> None:
    request = thumbnail()
    first = warm_worker.invoke(request)
    time.sleep(1.1)  # signatures have a resolution of one second
    second = warm_worker.invoke(request)
    assert second["completed_at"] == first["completed_at"]
    assert second["outputs"][0]["sha256"] == first["outputs"][0]["sha256"]
    assert second["outputs"][0]["url"] != first["outputs"][0]["url"]


def test_the_job_id_is_on_every_line_of_a_job(warm_worker: LambdaEmulator) -> None:
    request = thumbnail()
    warm_worker.invoke(request)
    warm_worker.log.wait_for(lambda line: request["job_id"] in line and '"job finished"' in line)
    ours = [line for line in json_lines(warm_worker) if line.get("job_id") == request["job_id"]]
    assert {"input fetched", "job finished"} <= {line["message"] for line in ours}


def test_links_and_requests_are_not_logged(warm_worker: LambdaEmulator) -> None:
    secret = f"secret{uuid.uuid4().hex}"
    warm_worker.invoke(
        thumbnail(metadata={"who": secret}, inputs={"Photo.image": f"https://127.0.0.1/a.png?k={secret}"})
    )
    job = warm_worker.invoke(thumbnail(reply="auto"))
    assert "X-Amz-Signature" in job["outputs"][0]["url"]
    log = "\n".join(warm_worker.log.lines())
    assert secret not in log
    assert "X-Amz-Signature" not in log


def test_failures_are_counted_by_code(worker: WorkerFactory) -> None:
    counting = worker()
    counting.invoke(thumbnail(deadline_s=0))
    counting.invoke(thumbnail(set={"No.node": 1}))
    counting.log.wait_for(lambda line: len(metrics(counting, "Jobs")) == 2)
    failures = [line["code"] for line in json_lines(counting) if "Failures" in line]
    assert failures == ["deadline_exceeded", "invalid_workflow"]


def slow_worker(worker: WorkerFactory, *, timeout_s: int, margin_s: float) -> LambdaEmulator:
    """A worker whose sampler needs half a second a step."""
    engine = f"{sys.executable} -m comfy_lite --step-ms 500"
    return worker(environment={"API_COMMAND_LINE": engine, "DEADLINE_MARGIN_S": str(margin_s)}, timeout_s=timeout_s)


def test_a_job_that_cannot_finish_in_time_is_interrupted_and_reported(worker: WorkerFactory, s3: S3Client) -> None:
    timeout_s = round(12 * slack())
    slow = slow_worker(worker, timeout_s=timeout_s, margin_s=timeout_s / 2)
    job_id = f"slow-{uuid.uuid4().hex}"
    with QuietClock() as clock:
        begun = clock()
        job = slow.invoke({"job_id": job_id, "workflow": "text_to_image", "set": {"KSampler.steps": 1000}})
        assert clock() - begun < timeout_s
    assert (job["status"], job["error"]["code"]) == ("failed", "deadline_exceeded")
    assert result(s3, job_id)["error"]["code"] == "deadline_exceeded"
    # It was stopped, not left running: the engine is free for the next job, and still the same one.
    assert slow.invoke(thumbnail())["status"] == "succeeded"
    slow.log.wait_for(lambda line: len(metrics(slow, "Jobs")) == 2)
    assert metrics(slow, "EngineStarts") == [1, 0]


def test_the_deadline_of_the_request_counts_too(worker: WorkerFactory) -> None:
    slow = slow_worker(worker, timeout_s=60, margin_s=10)
    slow.invoke(thumbnail())
    with QuietClock() as clock:
        begun, wall = clock(), time.monotonic()
        job = slow.invoke({"workflow": "text_to_image", "set": {"KSampler.steps": 1000}, "deadline_s": 2})
        assert job["error"]["code"] == "deadline_exceeded"
        assert clock() - begun < 8
        assert time.monotonic() - wall > 1.5, "and not before"


def test_a_batch_that_runs_out_of_time_hands_back_the_rest(worker: WorkerFactory, s3: S3Client) -> None:
    steps = round(12 * slack())  # of half a second: one such job is done in time, and a second one is not
    slow = slow_worker(worker, timeout_s=round(16 * slack()), margin_s=6 * slack())
    first, second = f"a-{uuid.uuid4().hex}", f"b-{uuid.uuid4().hex}"
    event = sample("sqs_requests")
    event["Records"] = event["Records"][:2]
    for record, job_id in zip(event["Records"], (first, second), strict=True):
        record["body"] = json.dumps(
            {"job_id": job_id, "workflow": "text_to_image", "set": {"KSampler.steps": steps, "KSampler.seed": -1}}
        )
    assert slow.invoke(event) == {"batchItemFailures": [{"itemIdentifier": event["Records"][1]["messageId"]}]}
    assert_delivered(s3, result(s3, first))
    assert f"{second}/result.json" not in keys(s3, second)


def runtime_pid(worker: LambdaEmulator) -> int:
    """The process that runs the handler."""
    (pid,) = (
        pid
        for pid in worker.members()
        if pid != worker.pid and b"awslambdaric" in Path(f"/proc/{pid}/cmdline").read_bytes()
    )
    return pid


def test_after_the_function_was_killed_the_next_start_works(worker: WorkerFactory) -> None:
    """Lambda starts a function anew in the same machine, where the first engine may still be running."""
    killed = worker()
    killed.invoke(thumbnail())
    first = runtime_pid(killed)
    os.kill(first, signal.SIGKILL)
    with contextlib.suppress(LambdaFailed):  # the emulator may notice only now
        killed.invoke(thumbnail())
    assert killed.invoke(thumbnail())["status"] == "succeeded"
    assert runtime_pid(killed) != first


def test_an_engine_that_does_not_start_is_reported_and_nothing_is_written_down(
    worker: WorkerFactory, s3: S3Client
) -> None:
    broken = worker(environment={"API_COMMAND_LINE": f"{sys.executable} -c raise(SystemExit(7))"})
    request = thumbnail()
    job = broken.invoke(request)
    assert job["error"]["code"] == "engine_unavailable"
    assert job["error"]["retryable"]
    assert keys(s3, request["job_id"]) == set()


def test_a_wrong_setting_is_named_when_the_function_starts(worker: WorkerFactory) -> None:
    with pytest.raises(LambdaFailed, match="LINK_EXPIRY_S='soon'"):
        worker(environment={"LINK_EXPIRY_S": "soon"}).invoke(thumbnail())


def test_without_a_bucket_small_results_are_in_the_reply(worker: WorkerFactory) -> None:
    alone = worker(environment={"OUTPUT_BUCKET": ""})
    job = alone.invoke(thumbnail(reply="auto"))
    assert job["status"] == "succeeded"
    content = base64.b64decode(job["outputs"][0]["data_base64"])
    assert hashlib.sha256(content).hexdigest() == job["outputs"][0]["sha256"]
    refused = alone.invoke(thumbnail(reply="links"))
    assert refused["error"]["code"] == "invalid_request"
    assert "OUTPUT_BUCKET" in refused["error"]["message"]
