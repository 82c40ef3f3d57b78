"""What the last release has written is read, and so is what the next one writes beside it.

The fixtures are as the code of their release wrote them: a new format gets new ones, and these stay.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from comfy_serverless.aws.s3 import S3Address
from comfy_serverless.aws.sqs import WebhookQueue
from comfy_serverless.batches.orders import Order, machine_input
from comfy_serverless.errors import InvalidRequest, WorkerOutdated
from comfy_serverless.handlers.events import queued_jobs
from comfy_serverless.jobs.document import Job, JobStatus
from comfy_serverless.jobs.lines import LineAddress
from comfy_serverless.jobs.message import JobMessage
from comfy_serverless.jobs.request import JobRequest
from comfy_serverless.jobs.result_file import ResultFile
from comfy_serverless.jobs.sources import SentRequest
from comfy_serverless.jobs.stored_request import VERSION, StoredRequest, read_line
from comfy_serverless.settings import Settings
from comfy_serverless.table.target import EndpointTarget, QueueTarget, parse_target
from tests.unit.fakes import IN, OUT

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client

FIXTURES = Path(__file__).parents[2] / "fixtures" / "formats"
NEW = {"of_the_next_release": {"any": ["thing"]}}


def text(name: str) -> str:
    return (FIXTURES / name).read_text()


def document(name: str) -> dict[str, Any]:
    return dict(json.loads(text(name)))


def message(name: str) -> JobMessage:
    parsed = JobMessage.parse(text(name))
    assert parsed is not None
    return parsed


def put(s3: S3Client, content: object, bucket: str = IN, key: str = "requests/team/a.json") -> S3Address:
    s3.put_object(Bucket=bucket, Key=key, Body=json.dumps(content).encode())
    return S3Address(bucket, key)


@pytest.mark.parametrize("name", ["message.json", "message_with_extra_data.json", "message_of_a_drop.json"])
def test_a_message_is_read_and_written_as_it_was(name: str) -> None:
    assert message(name).to_text() == text(name)
    assert message(name).batch_id is None
    assert (message(name).extra_data is not None) == ("extra" in name)


def test_the_message_of_a_line_names_its_place_in_the_manifest() -> None:
    line = LineAddress.parse(message("message_of_a_line.json").address)
    assert line is not None
    assert (line.to_text(), line.batch_id) == (document("message_of_a_line.json")["request"], line.manifest.key[17:-6])


def test_what_a_newer_release_writes_into_a_message_is_passed_on() -> None:
    newer = json.dumps({**document("message.json"), **NEW, "version": 2})
    parsed = JobMessage.parse(newer)
    assert parsed is not None
    assert json.loads(parsed.to_text()) == json.loads(newer)


@pytest.mark.parametrize("other", ["", "{", "[]", "null", "1", '{"job": 1, "request": "s3://a/b"}', '{"job": "a"}'])
def test_other_texts_are_no_message(other: str) -> None:
    assert JobMessage.parse(other) is None


@pytest.mark.parametrize("name", ["request_of_the_api.json", "request_of_a_drop.json"])
@pytest.mark.parametrize("more", [{}, NEW])
def test_a_stored_request_is_read_with_fields_more_and_fewer(name: str, more: dict[str, Any]) -> None:
    stored = document(name)
    request = stored["request"]
    plain = StoredRequest.parse(stored)
    richer = {**request, **more, "output": {**request["output"], **more}}
    richer["models"] = [{**model, **more} for model in request["models"]]
    assert StoredRequest.parse({**stored, **more, "request": richer}) == plain
    fewer = {"job_id": request["job_id"], "workflow": request["workflow"]}
    assert StoredRequest.parse({"request": fewer}).request.job_id == plain.request.job_id


def test_what_is_stored_now_can_be_read_by_the_release_before() -> None:
    stored = StoredRequest.parse(document("request_of_the_api.json"))
    written = json.loads(stored.to_bytes())
    assert set(written) == {"request", "workflow"}
    JobRequest.parse(written["request"])  # strictly, as that release did


def test_what_the_editor_saved_is_for_workers_that_convert_it(monkeypatch: pytest.MonkeyPatch) -> None:
    kept = document("request_of_the_editor.json")
    stored = StoredRequest.parse(kept)
    written = json.loads(stored.to_bytes())
    assert (written["version"], written["files"], written["workflow"]) == (2, kept["files"], kept["workflow"])
    assert stored.request.files is not None
    assert set(stored.request.files.by_paths("team", ["fox.png", "cat.png"])) == {"fox.png"}
    monkeypatch.setattr("comfy_serverless.jobs.stored_request.VERSION", 1)
    with pytest.raises(WorkerOutdated):
        StoredRequest.parse(written)


@pytest.mark.parametrize("files", [None, 5, [], {}, {"ids": 5, "names": []}])
def test_files_of_any_form_are_read(files: object) -> None:
    stored = StoredRequest.parse({**document("request_of_the_editor.json"), "files": files})
    assert stored.request.files is not None
    assert stored.request.files.by_paths("team", ["fox.png"]) == {}


def test_fields_that_nobody_knows_are_refused_at_the_door() -> None:
    for richer in (NEW, {"output": NEW}, {"version": 2}):
        with pytest.raises(InvalidRequest, match="is not a field of a request"):
            SentRequest(payload={"workflow": {}, **richer}, default_id="a").read(s3=None, settings=Settings())  # type: ignore[arg-type]


def test_a_line_is_judged_when_its_job_is_made_and_read_tolerantly_then(s3: S3Client) -> None:
    line = json.dumps({"job_id": "mine", "workflow": "a", **NEW}).encode()
    address = LineAddress(IN, "many", 3, len(line))
    s3.put_object(Bucket=IN, Key=address.manifest.key, Body=b"{}\n" + line + b"\n")
    assert read_line(s3, address).job_id == "mine"


@pytest.mark.parametrize("version", [VERSION + 1, "2", 1.5, None])
def test_a_job_of_a_newer_version_is_for_a_newer_worker(s3: S3Client, version: object) -> None:
    stored = document("request_of_the_api.json")
    address = put(s3, {**stored, "version": version})
    by_document = JobMessage(job_id="job-of-the-api", address=address)
    by_message = JobMessage(job_id="job-of-the-api", address=put(s3, stored, key="old.json"), version=version)
    for newer in (by_document, by_message):
        with pytest.raises(WorkerOutdated, match="Deploy the worker's image"):
            newer.read(s3=s3, settings=Settings())


def test_a_message_is_recognised_by_the_worker_whatever_else_is_in_it() -> None:
    body = json.dumps({**document("message.json"), **NEW})
    event = {"Records": [{"messageId": "1", "eventSource": "aws:sqs", "body": body}]}
    assert queued_jobs(event)["1"].job_id == document("message.json")["job"]


@pytest.mark.parametrize(
    ("name", "status"),
    [("succeeded", JobStatus.SUCCEEDED), ("failed", JobStatus.FAILED), ("canceled", JobStatus.CANCELED)],
)
def test_a_result_is_read_with_fields_more_and_fewer(s3: S3Client, name: str, status: JobStatus) -> None:
    stored = document(f"result_{name}.json")
    result = ResultFile(s3, put(s3, stored, OUT, f"job-that-{name}/result.json"))
    plain = result.read()
    assert plain is not None
    assert (plain.job.status, len(plain.job.outputs)) == (status, 2)
    richer = {**stored, **NEW, "outputs": [{**output, **NEW, "type": "3d"} for output in stored["outputs"]]}
    richer["error"] = stored["error"] and {**stored["error"], **NEW}
    put(s3, richer, OUT, f"job-that-{name}/result.json")
    newer = result.read()
    assert newer is not None
    assert [output.type for output in newer.job.outputs] == ["3d", "3d"]
    for missing in ("warnings", "seeds", "engine", "timings_ms", "metrics", "progress"):
        richer.pop(missing)
    assert Job.model_validate(richer).status is status


def test_the_kinds_of_outputs_are_in_the_published_schema() -> None:
    kinds = Job.model_json_schema()["$defs"]["Output"]["properties"]["type"]
    assert sorted(kinds["enum"]) == ["audio", "file", "image", "latent", "text", "video"]


def test_orders_are_read_and_written_as_they_were() -> None:
    batch_id = document("order_look.json")["batch"]
    for name, order in {
        "look": Order(batch_id=batch_id),
        "read": Order(batch_id=batch_id, start=0),
        "resume": Order(batch_id=batch_id, start=42, is_resume=True),
    }.items():
        stored = document(f"order_{name}.json")
        assert Order.parse(stored) == Order.parse({**stored, **NEW}) == order
        assert json.loads(order.to_text()) == stored
    assert machine_input(batch_id, [0, 4 * 1024 * 1024]) == text("order_read_many.json")
    assert Order.parse({"Records": []}) is None


def test_a_webhooks_message_is_read_with_fields_more() -> None:
    assert WebhookQueue.job_of(text("message_to_webhooks.json")) == "job-of-the-api"
    assert WebhookQueue.job_of(json.dumps({**document("message_to_webhooks.json"), **NEW})) == "job-of-the-api"


@pytest.mark.parametrize(
    ("name", "kind"),
    [("sagemaker", EndpointTarget), ("sagemaker_with_job_queue", EndpointTarget), ("queue", QueueTarget)],
)
def test_where_jobs_are_run_is_read_and_written_as_it_was(name: str, kind: type[Any]) -> None:
    stored = text(f"dispatch_{name}.json")
    target = parse_target(stored)
    assert isinstance(target, kind)
    assert target.to_text() == stored
    assert parse_target(json.dumps({**json.loads(stored), **NEW})) == target


def test_a_manifest_of_the_last_release_is_read(s3: S3Client) -> None:
    address = LineAddress.parse(message("message_of_a_line.json").address)
    assert address is not None
    s3.create_bucket(Bucket=address.bucket, CreateBucketConfiguration={"LocationConstraint": "eu-central-1"})
    s3.put_object(Bucket=address.bucket, Key=address.manifest.key, Body=text("manifest.jsonl").encode())
    job = message("message_of_a_line.json")
    assert job.read(s3=s3, settings=Settings()).job_id == job.job_id
