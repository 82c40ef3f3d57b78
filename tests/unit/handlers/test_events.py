"""Each kind of event, to jobs and back."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from comfy_serverless.errors import (
    DeadlineExceeded,
    EngineCrashed,
    NodeExecutionError,
)
from comfy_serverless.handlers.events import DirectEvent, HttpEvent, NoticeEvent, SqsEvent, StrangeEvent, recognise
from comfy_serverless.jobs.document import JobError, JobStatus
from comfy_serverless.jobs.request import JOB_ID_PATTERN
from comfy_serverless.jobs.sources import MAX_PAYLOAD_BYTES, SentRequest
from comfy_serverless.settings import Settings
from comfy_serverless.worker.replies import Replies
from comfy_serverless.worker.worker import Outcome
from tests.unit.event_samples import answer, http_event, s3_event, sqs_event
from tests.unit.fakes import IN, WORKFLOW, FakeEngine, World
from tests.unit.jobs.test_request import job

Worlds = Callable[..., World]


def outcome(error: Any = None, *, has_run: bool = True, is_recorded: bool = True) -> Outcome:
    return Outcome(
        job=job(status=JobStatus.FAILED if error else JobStatus.SUCCEEDED, error=JobError.of(error) if error else None),
        error=error,
        has_run=has_run,
        is_recorded=is_recorded,
    )


# Recognising


@pytest.mark.parametrize(
    ("event", "kind"),
    [
        (http_event({}), HttpEvent),
        (s3_event("a.json"), NoticeEvent),
        ({"Service": "Amazon S3", "Event": "s3:TestEvent", "Bucket": IN}, NoticeEvent),
        (sqs_event({}), SqsEvent),
        ({"workflow": {}}, DirectEvent),
        ({"requestContext": {"http": "no"}}, DirectEvent),
        (WORKFLOW, DirectEvent),
        ({"Records": []}, DirectEvent),
        ({"Records": [{"eventSource": "aws:kinesis"}]}, StrangeEvent),
        ([], DirectEvent),
        (None, DirectEvent),
        ("text", DirectEvent),
    ],
)
def test_an_event_is_recognised(event: object, kind: type) -> None:
    assert isinstance(recognise(event), kind)


@pytest.mark.parametrize(
    "file", sorted((Path(__file__).parents[3] / "events").glob("*.json")), ids=lambda file: file.stem
)
def test_every_sample_event_is_what_its_name_says(file: Path) -> None:
    kinds = {"direct": DirectEvent, "http": HttpEvent, "s3": NoticeEvent, "sqs": SqsEvent}
    assert isinstance(recognise(json.loads(file.read_text())), kinds[file.stem.partition("_")[0]])


# Direct payloads


def test_a_direct_payload_is_answered_with_the_job(world: Worlds) -> None:
    document = answer(world(), {"job_id": "a", "workflow": WORKFLOW})
    assert (document["id"], document["status"]) == ("a", "succeeded")
    assert document["outputs"][0]["data_base64"]


def test_a_job_without_a_name_gets_one(world: Worlds) -> None:
    assert re.fullmatch(JOB_ID_PATTERN, answer(world(), {"workflow": WORKFLOW})["id"])


@pytest.mark.parametrize("payload", [None, [], "x", {}, {"Records": []}])
def test_nonsense_is_a_job_that_failed(world: Worlds, payload: object) -> None:
    document = answer(world(), payload)
    assert document["status"] == "failed"
    assert document["error"]["code"] == "invalid_request"


def test_a_payload_of_seven_megabytes_is_refused_with_advice(world: Worlds) -> None:
    document = answer(world(), {"workflow": WORKFLOW, "inputs": {"9.image": "A" * 7_000_000}})
    assert document["error"]["code"] == "invalid_request"
    assert "7,0" in document["error"]["message"]
    assert "s3://" in document["error"]["message"]


def test_a_payload_without_a_bottom_is_refused(world: Worlds) -> None:
    deep: dict[str, Any] = {}
    for _ in range(100_000):
        deep = {"a": deep}
    assert answer(world(), {"workflow": deep})["error"]["code"] == "invalid_request"


# HTTP


def test_a_post_is_answered_with_the_job(world: Worlds) -> None:
    reply = answer(world(), http_event({"workflow": WORKFLOW}))
    assert reply["statusCode"] == 200
    assert reply["headers"]["content-type"] == "application/json"
    assert json.loads(reply["body"])["status"] == "succeeded"


def test_a_base64_body_is_decoded(world: Worlds) -> None:
    assert answer(world(), http_event({"workflow": WORKFLOW}, encoded=True))["statusCode"] == 200


@pytest.mark.parametrize("body", ["{not json", "", " ", "\ufeff", "[" * 100_000, "1" * 5000])
def test_a_body_that_is_not_json_is_400(world: Worlds, body: str) -> None:
    reply = answer(world(), http_event(body))
    assert reply["statusCode"] == 400
    assert json.loads(reply["body"])["error"]["code"] == "invalid_request"


@pytest.mark.parametrize("body", ["a", "ü"])
def test_a_body_that_is_no_base64_is_400(world: Worlds, body: str) -> None:
    assert answer(world(), {**http_event("{}"), "isBase64Encoded": True, "body": body})["statusCode"] == 400


def test_json_that_is_no_request_is_422_and_says_why(world: Worlds) -> None:
    reply = answer(world(), http_event({"workflo": WORKFLOW}))
    error = json.loads(reply["body"])["error"]
    assert reply["statusCode"] == 422
    assert error["code"] == "invalid_request"
    assert "did you mean 'workflow'" in error["message"]
    assert error["details"]["errors"]


def test_the_editors_format_is_422(world: Worlds) -> None:
    reply = answer(world(), http_event({"workflow": {"nodes": [], "links": [], "version": 1}}))
    assert (reply["statusCode"], json.loads(reply["body"])["error"]["code"]) == (422, "workflow_format_ui")


def test_a_body_of_seven_megabytes_is_413(world: Worlds) -> None:
    assert answer(world(), http_event("x" * (MAX_PAYLOAD_BYTES + 1)))["statusCode"] == 413


def test_other_methods_are_405(world: Worlds) -> None:
    reply = answer(world(), http_event("", method="GET"))
    assert reply["statusCode"] == 405
    assert reply["headers"]["allow"] == "POST"


@pytest.mark.parametrize(
    ("error", "status"),
    [(NodeExecutionError("x"), 500), (DeadlineExceeded("x"), 504), (EngineCrashed("x"), 503)],
)
def test_a_job_that_ran_and_failed_is_answered_with_the_job_and_its_errors_status(
    world: Worlds, error: Exception, status: int
) -> None:
    reply = answer(world(engine=FakeEngine(error=error)), http_event({"job_id": "a", "workflow": WORKFLOW}))
    body = json.loads(reply["body"])
    assert (reply["statusCode"], body["id"], body["status"]) == (status, "a", "failed")
    assert ("retry-after" in reply["headers"]) == (status == 503)


def test_asking_again_for_a_failed_job_has_the_same_status(world: Worlds) -> None:
    here = world(engine=FakeEngine(error=DeadlineExceeded("late")))
    request = http_event({"job_id": "a", "workflow": WORKFLOW})
    assert [answer(here, request)["statusCode"] for _ in range(2)] == [504, 504]
    assert len(here.engine.runs) == 1


# S3


def test_a_drop_that_must_be_repeated_fails_the_invocation() -> None:
    with pytest.raises(EngineCrashed):
        recognise(s3_event("jobs/a.json")).answer([outcome(EngineCrashed("x"), is_recorded=False)], replies())


def replies() -> Replies:
    return Replies(None, Settings())  # type: ignore[arg-type]


# SQS


def test_job_requests_and_s3_events_can_be_in_one_batch(world: Worlds) -> None:
    here = world()
    here.s3.put_object(Bucket=IN, Key="jobs/w.json", Body=json.dumps(WORKFLOW))
    assert answer(here, sqs_event({"job_id": "a", "workflow": WORKFLOW}, s3_event("jobs/w.json"))) == {
        "batchItemFailures": []
    }
    assert len(here.engine.runs) == 2


def test_one_bad_record_never_costs_the_others(world: Worlds) -> None:
    here = world()
    broken = {"eventSource": "aws:s3", "eventName": "ObjectCreated:Put", "s3": None}
    event = sqs_event(
        {"job_id": "a", "workflow": WORKFLOW},
        "{not json",
        {"Records": [broken]},
        {"Event": "s3:TestEvent"},
        {"workflow": "none"},
        {"workflow": WORKFLOW, "set": {"\ud800.seed": 1}},
        s3_event("jobs/none.json"),
        [1, 2],
        {"job_id": "b", "workflow": WORKFLOW},
    )
    assert answer(here, event) == {"batchItemFailures": []}
    assert here.result("a")["status"] == here.result("b")["status"] == "succeeded"
    assert here.result("sqs-m1")["error"]["message"].startswith("the message is not JSON")
    failed = [key for key in here.stored_keys() if key.endswith("result.json") and b'"failed"' in here.stored(key)]
    assert len(failed) == 6


def test_messages_whose_jobs_may_succeed_later_come_back(world: Worlds) -> None:
    here = world(engine=FakeEngine(error=EngineCrashed("it died")))
    event = sqs_event({"workflow": WORKFLOW}, "{not json")
    assert answer(here, event) == {"batchItemFailures": [{"itemIdentifier": "m0"}]}


def test_a_message_with_several_objects_comes_back_if_one_of_them_must() -> None:
    event = recognise(sqs_event(s3_event("a.json", "b.json"), s3_event("c.json")))
    outcomes = [outcome(), outcome(EngineCrashed("x"), is_recorded=False), outcome()]
    assert event.answer(outcomes, replies()) == {"batchItemFailures": [{"itemIdentifier": "m0"}]}


def test_a_message_delivered_twice_is_one_job(world: Worlds) -> None:
    here = world()
    event = sqs_event({"workflow": WORKFLOW})
    answer(here, event)
    answer(here, event)
    assert len(here.engine.runs) == 1
    assert here.result("sqs-m0")["status"] == "succeeded"


def test_without_a_place_to_report_the_message_comes_back(world: Worlds) -> None:
    here = world(output_bucket=None)
    assert answer(here, sqs_event({"workflow": WORKFLOW})) == {"batchItemFailures": [{"itemIdentifier": "m0"}]}


def test_a_message_is_read_by_the_worker_not_here() -> None:
    (source,) = recognise(sqs_event("{not json")).sources()
    assert source == SentRequest(payload="{not json", default_id="sqs-m0", what="the message")
