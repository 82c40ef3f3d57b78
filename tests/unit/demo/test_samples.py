"""The sample events and workflows: that they are what AWS and ComfyUI would send, and fit each other."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import unquote_plus

import pytest

from comfy_serverless.graph.workflow import check_format, check_links
from comfy_serverless.jobs.document import Job
from comfy_serverless.jobs.request import JobRequest
from demo.samples import SAMPLES, Sample, unexpected
from demo.seed import EVENTS, INPUT_BUCKET, OBJECTS

WORKFLOWS = sorted((EVENTS.parent / "workflows").glob("*.json"))


def load(name: str) -> Any:
    return json.loads((EVENTS / name).read_text(encoding="utf-8"))


def s3_records() -> Iterator[dict[str, Any]]:
    yield from load("s3.json")["Records"]
    yield from load("s3_image.json")["Records"]
    for message in load("sqs_s3.json")["Records"]:
        yield from json.loads(message["body"])["Records"]


def requests() -> Iterator[Any]:
    yield load("direct.json")
    yield load("direct_text_to_image.json")
    yield json.loads(load("http.json")["body"])
    yield from (json.loads(message["body"]) for message in load("sqs_requests.json")["Records"])
    yield from (load(f"objects/{path.name}") for path in (EVENTS / "objects").glob("*.json"))


def test_every_event_is_a_sample_of_the_demo() -> None:
    assert {path.stem for path in EVENTS.glob("*.json")} == {sample.event for sample in SAMPLES}


def test_s3_records_tell_what_seeding_uploads() -> None:
    for record in s3_records():
        described = record["s3"]["object"]
        content = (EVENTS / OBJECTS[unquote_plus(described["key"])]).read_bytes()
        assert record["s3"]["bucket"]["name"] == INPUT_BUCKET
        assert described["size"] == len(content)
        assert described["eTag"] == hashlib.md5(content).hexdigest()


def test_sqs_messages_have_their_checksum() -> None:
    for message in load("sqs_s3.json")["Records"] + load("sqs_requests.json")["Records"]:
        assert message["md5OfBody"] == hashlib.md5(message["body"].encode()).hexdigest()


def test_no_two_messages_or_drops_are_the_same() -> None:
    messages = load("sqs_s3.json")["Records"] + load("sqs_requests.json")["Records"]
    assert len({message["messageId"] for message in messages}) == len(messages)
    sequence = [record["s3"]["object"]["sequencer"] for record in s3_records()]
    assert len(set(sequence)) == len(sequence)


def test_the_http_event_gives_the_length_of_its_body() -> None:
    event = load("http.json")
    assert event["headers"]["content-length"] == str(len(event["body"].encode()))


def test_every_request_can_be_read_and_names_a_workflow_that_exists() -> None:
    names = {path.stem for path in WORKFLOWS}
    for payload in requests():
        request = JobRequest.parse(payload)
        assert isinstance(request.workflow, dict) or request.workflow in names


@pytest.mark.parametrize("path", WORKFLOWS, ids=lambda path: path.stem)
def test_workflows_are_in_api_format_and_hang_together(path: Path) -> None:
    graph = check_format(json.loads(path.read_text(encoding="utf-8")))
    check_links(graph)
    assert all(node["_meta"]["title"] for node in graph.values())


class TestUnexpected:
    """What the demo takes for a failure."""

    @staticmethod
    def job(job_id: str, code: str | None = None) -> Job:
        return Job.model_validate(
            {
                "id": job_id,
                "status": "failed" if code else "succeeded",
                "created_at": "2026-11-23T10:00:00Z",
                "expires_at": "2026-12-23T10:00:00Z",
                "urls": {"self": "", "events": "", "cancel": ""},
                "error": {"code": code, "message": "it went wrong"} if code else None,
            }
        )

    def test_nothing_when_all_is_as_it_should_be(self) -> None:
        sample = Sample("s", "", jobs=2, failures={"bad": "invalid_workflow"})
        assert unexpected(sample, (self.job("good"), self.job("bad", "invalid_workflow")), {"jobs": []}) == []

    def test_a_job_that_failed(self) -> None:
        problems = unexpected(Sample("s", "", jobs=1), (self.job("a", "engine_crashed"),), None)
        assert problems == ["a failed: engine_crashed: it went wrong"]

    def test_a_failure_that_did_not_happen_or_had_another_reason(self) -> None:
        sample = Sample("s", "", jobs=1, failures={"bad": "invalid_workflow"})
        assert "not: succeeded" in unexpected(sample, (self.job("bad"),), None)[0]
        assert "not: missing_asset" in unexpected(sample, (self.job("bad", "missing_asset"),), None)[0]
        assert "bad should have failed" in unexpected(sample, (self.job("good"),), None)[0]

    def test_a_result_that_is_missing_or_one_too_many(self) -> None:
        assert unexpected(Sample("s", "", jobs=1), (), None) == ["0 new results in S3 instead of 1"]
        assert unexpected(Sample("s", "", jobs=0), (self.job("a"),), None) == ["1 new results in S3 instead of 0"]

    def test_replies_that_are_errors(self) -> None:
        sample = Sample("s", "", jobs=0)
        assert (
            "missing_asset: gone" in unexpected(sample, (), {"error": {"code": "missing_asset", "message": "gone"}})[0]
        )
        assert "422" in unexpected(sample, (), {"statusCode": 422, "body": "{}"})[0]
        assert "1 records" in unexpected(sample, (), {"batchItemFailures": [{"itemIdentifier": "1"}]})[0]
