"""Bad input gets a clear error, and nothing is lost: through the real worker, for every door it comes in by."""

from __future__ import annotations

import base64
import io
import json
import struct
import uuid
import zlib
from typing import TYPE_CHECKING, Any
from urllib.parse import quote_plus

import pytest
from PIL import Image

from demo.seed import INPUT_BUCKET, OUTPUT_BUCKET
from local.aws.lambda_emulator import LambdaEmulator, LambdaFailed
from local.aws.server import LocalAws
from tests.integration.test_generate import PHOTO, WorkerFactory, assert_delivered, keys, result, sample, thumbnail
from tests.unit.editor_samples import with_unknown
from tests.unit.picture_files import png_chunk

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client


@pytest.fixture(scope="module")
def s3(local_s3: LocalAws) -> S3Client:
    return local_s3.client()


def png(width: int = 64, height: int = 64) -> bytes:
    buffer = io.BytesIO()
    Image.effect_noise((width, height), 90).convert("RGB").save(buffer, "PNG")
    return buffer.getvalue()


def bomb() -> bytes:
    """A PNG of a few kilobytes that would be 40,000 x 40,000 pixels."""
    header = struct.pack(">IIBBBBB", 40_000, 40_000, 8, 2, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n"
        + png_chunk(b"IHDR", header)
        + png_chunk(b"IDAT", zlib.compress(bytes(1_000_000)))
        + png_chunk(b"IEND", b"")
    )


def drop(s3: S3Client, key: str, body: bytes | str) -> dict[str, Any]:
    """Put an object into the input bucket; the event S3 sends for it."""
    etag = s3.put_object(Bucket=INPUT_BUCKET, Key=key, Body=body)["ETag"].strip('"')
    event = s3_event(key)
    event["Records"][0]["s3"]["object"]["eTag"] = etag
    return event


def s3_event(key: str, bucket: str = INPUT_BUCKET) -> dict[str, Any]:
    event = sample("s3")
    event["Records"][0]["s3"]["bucket"]["name"] = bucket
    event["Records"][0]["s3"]["object"] = {"key": quote_plus(key, safe="/"), "sequencer": uuid.uuid4().hex}
    return event


def http(body: str) -> dict[str, Any]:
    return {**sample("http"), "body": body}


UI_FORMAT = with_unknown()

BAD_REQUESTS: dict[str, tuple[dict[str, Any], str, str]] = {
    "the editor's format": ({"workflow": UI_FORMAT, "inputs": {}}, "workflow_format_ui", "NobodysNode"),
    "an unknown node": (
        {"workflow": {"1": {"class_type": "NoSuchNode", "inputs": {}}}, "inputs": {}},
        "invalid_workflow",
        "NoSuchNode",
    ),
    "a node that lacks an input": (
        {"workflow": {"1": {"class_type": "SaveImage", "inputs": {}}}, "inputs": {}},
        "invalid_workflow",
        "images",
    ),
    "an image that is not there": ({"inputs": {}}, "invalid_workflow", "photo.jpg"),
    "an S3 key that does not exist": (
        {"inputs": {"Photo.image": f"s3://{INPUT_BUCKET}/none.png"}},
        "missing_asset",
        "none.png",
    ),
    "a bucket that does not exist": (
        {"inputs": {"Photo.image": "s3://no-such-bucket/a.png"}},
        "missing_asset",
        "no-such",
    ),
    "a workflow that does not exist": ({"workflow": "thumbnial"}, "invalid_request", "did you mean 'thumbnail'"),
    "a workflow outside the folder": ({"workflow": "../events/direct"}, "invalid_request", "there is no workflow"),
    "an S3 workflow that does not exist": (
        {"workflow": f"s3://{INPUT_BUCKET}/none.json"},
        "missing_asset",
        "does not exist",
    ),
    "a private address": ({"inputs": {"Photo.image": "https://169.254.169.254/a.png"}}, "missing_asset", "169.254"),
    "a set that names no node": ({"set": {"ImageScael.width": 5}}, "invalid_workflow", "ImageScale.width"),
    "an input that names no node": ({"inputs": {"Foto.image": PHOTO}}, "invalid_workflow", "Foto"),
    "a deadline of 0": ({"deadline_s": 0}, "deadline_exceeded", "deadline_s is 0"),
    "a negative deadline": ({"deadline_s": -1}, "invalid_request", "deadline_s"),
    "an unknown field": ({"promt": "x"}, "invalid_request", "promt"),
    "an output bucket that does not exist": ({"output": {"bucket": "not-there"}}, "invalid_request", "not-there"),
}


@pytest.mark.parametrize("name", BAD_REQUESTS)
def test_a_bad_request_is_refused_with_its_code_and_advice(
    warm_worker: LambdaEmulator, s3: S3Client, name: str
) -> None:
    fields, code, message = BAD_REQUESTS[name]
    request = thumbnail(**fields)
    job = warm_worker.invoke(request)
    assert job["status"] == "failed"
    assert (job["error"]["code"], job["error"]["retryable"]) == (code, False)
    assert message in job["error"]["message"]
    reply = warm_worker.invoke(http(json.dumps({**request, "job_id": f"h-{uuid.uuid4().hex}"})))
    assert reply["statusCode"] == (504 if code == "deadline_exceeded" else 422)
    assert json.loads(reply["body"])["error"]["code"] == code


BAD_IMAGES = {
    "a header alone": png()[:16],
    "a decompression bomb": bomb(),
    "text": b"this is no picture at all, whatever it is called",
    "empty": b"",
}


@pytest.mark.parametrize("name", BAD_IMAGES)
def test_a_bad_image_is_refused_and_named(warm_worker: LambdaEmulator, s3: S3Client, name: str) -> None:
    key = f"photos/{name}.png"
    s3.put_object(Bucket=INPUT_BUCKET, Key=key, Body=BAD_IMAGES[name])
    job = warm_worker.invoke(thumbnail(inputs={"Photo.image": f"s3://{INPUT_BUCKET}/{key}"}))
    assert job["error"]["code"] == "missing_asset"
    assert key in job["error"]["message"]


def test_a_picture_that_breaks_off_is_taken_as_comfyui_takes_it(warm_worker: LambdaEmulator, s3: S3Client) -> None:
    s3.put_object(Bucket=INPUT_BUCKET, Key="photos/cut.png", Body=png()[:-3000])
    job = warm_worker.invoke(thumbnail(inputs={"Photo.image": f"s3://{INPUT_BUCKET}/photos/cut.png"}))
    assert job["status"] == "succeeded", job["error"]


def test_invalid_json_over_http_is_400(warm_worker: LambdaEmulator) -> None:
    reply = warm_worker.invoke(http('{"workflow": '))
    assert reply["statusCode"] == 400
    error = json.loads(reply["body"])["error"]
    assert error["code"] == "invalid_request"
    assert "line 1" in error["message"]


def test_invalid_json_in_a_drop_is_reported(warm_worker: LambdaEmulator, s3: S3Client) -> None:
    (summary,) = warm_worker.invoke(drop(s3, "jobs/broken.json", "{"))["jobs"]
    assert summary["error"]["code"] == "invalid_request"
    report = result(s3, summary["id"])
    assert report["status"] == "failed"
    assert report["metadata"]["source"] == f"s3://{INPUT_BUCKET}/jobs/broken.json"


@pytest.mark.parametrize("key", ["jobs/a b.json", "jobs/1+1=2.json", "jobs/Größe/ü&ä.json", "jobs/100%.json"])
def test_keys_with_spaces_plus_signs_and_umlauts(warm_worker: LambdaEmulator, s3: S3Client, key: str) -> None:
    request = thumbnail()
    del request["job_id"]
    (summary,) = warm_worker.invoke(drop(s3, key, json.dumps(request)))["jobs"]
    assert summary["source"] == f"s3://{INPUT_BUCKET}/{key}"
    assert_delivered(s3, result(s3, summary["id"]))


def test_results_never_go_into_the_input_bucket(worker: WorkerFactory, s3: S3Client) -> None:
    before = {item["Key"] for item in s3.list_objects_v2(Bucket=INPUT_BUCKET)["Contents"]}
    event = drop(s3, "jobs/loop.json", json.dumps(thumbnail()))
    looping = worker(environment={"OUTPUT_BUCKET": INPUT_BUCKET})
    with pytest.raises(LambdaFailed, match=f"OUTPUT_BUCKET is '{INPUT_BUCKET}'"):
        looping.invoke(event)
    batch = sample("sqs_s3")
    batch["Records"] = batch["Records"][:1]
    batch["Records"][0]["body"] = json.dumps(event)
    assert looping.invoke(batch) == {"batchItemFailures": [{"itemIdentifier": batch["Records"][0]["messageId"]}]}
    assert {item["Key"] for item in s3.list_objects_v2(Bucket=INPUT_BUCKET)["Contents"]} == before | {"jobs/loop.json"}


def test_a_request_that_sends_results_back_is_reported(warm_worker: LambdaEmulator, s3: S3Client) -> None:
    request = thumbnail(output={"bucket": INPUT_BUCKET})
    (summary,) = warm_worker.invoke(drop(s3, "jobs/loop2.json", json.dumps(request)))["jobs"]
    assert summary["error"]["code"] == "invalid_request"
    assert "input bucket" in result(s3, summary["id"])["error"]["message"]


def test_seven_megabytes_can_be_dropped_although_they_cannot_be_sent(warm_worker: LambdaEmulator, s3: S3Client) -> None:
    large = png(1800, 1500)
    request = thumbnail(inputs={"Photo.image": "data:image/png;base64," + base64.b64encode(large).decode()})
    body = json.dumps(request)
    assert len(body) > 7_000_000
    with pytest.raises(LambdaFailed, match=r"Runtime\.UnmarshalError"):  # Lambda itself does not let it through
        warm_worker.invoke(request)
    (summary,) = warm_worker.invoke(drop(s3, "jobs/large.json", body))["jobs"]
    assert summary["id"] == request["job_id"]
    assert_delivered(s3, result(s3, request["job_id"]))


def test_in_a_batch_one_bad_record_never_costs_the_others(warm_worker: LambdaEmulator, s3: S3Client) -> None:
    good = [thumbnail(), thumbnail()]
    bodies = [
        json.dumps(good[0]),
        "{not json",
        json.dumps(thumbnail(workflow=UI_FORMAT)),
        json.dumps(s3_event("jobs/none.json")),
        json.dumps({"Event": "s3:TestEvent", "Bucket": INPUT_BUCKET}),
        json.dumps(s3_event("holiday.txt")),
        json.dumps(good[1]),
    ]
    template = sample("sqs_requests")["Records"][0]
    event = {
        "Records": [{**template, "messageId": f"{uuid.uuid4()}", "body": body} for body in bodies],
    }
    assert warm_worker.invoke(event) == {"batchItemFailures": []}
    for request in good:
        assert_delivered(s3, result(s3, request["job_id"]))
    assert result(s3, f"sqs-{event['Records'][1]['messageId']}")["error"]["code"] == "invalid_request"


def test_a_refused_request_leaves_no_result_and_can_be_corrected(warm_worker: LambdaEmulator, s3: S3Client) -> None:
    request = thumbnail()
    assert warm_worker.invoke({**request, "set": {"Nothing.here": 1}})["status"] == "failed"
    assert keys(s3, request["job_id"]) == set()
    assert warm_worker.invoke(request)["status"] == "succeeded"


def test_a_workflow_the_engine_refuses_was_not_run(warm_worker: LambdaEmulator, s3: S3Client) -> None:
    """The engine's own refusal costs no job id either: nothing was executed."""
    request = thumbnail(set={"Size.width": -5})
    job = warm_worker.invoke(request)
    assert job["error"]["code"] == "invalid_workflow"
    assert "width" in job["error"]["message"]
    assert keys(s3, request["job_id"]) == set()
    assert warm_worker.invoke({**request, "set": {}})["status"] == "succeeded"
    assert OUTPUT_BUCKET in warm_worker.invoke({**request, "set": {}})["result_uri"]
