"""A bucket that refuses: found before any work where it can be, never run for again, and told in OUTPUT_BUCKET."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest
from botocore.exceptions import ClientError

from comfy_serverless.errors import InvalidRequest, NodeExecutionError
from comfy_serverless.worker.worker import Call, Outcome
from tests.unit.fakes import OUT, WORKFLOW, FakeEngine, World, made

Worlds = Callable[..., World]
OWN = "own-results"
UNHEARD = Call(is_heard=False)


def request(**fields: Any) -> dict[str, Any]:
    return {"job_id": "job-1", "workflow": WORKFLOW, "output": {"bucket": OWN, "prefix": "mine"}, **fields}


def with_bucket(world: Worlds, **options: Any) -> World:
    here = world(**options)
    here.s3.create_bucket(Bucket=OWN, CreateBucketConfiguration={"LocationConstraint": "eu-central-1"})
    return here


def refuse(
    here: World, *operations: str, code: str = "AccessDenied", status: int = 403, key: str = "", bucket: str = OWN
) -> list[str]:
    """Let S3 refuse these operations in a bucket; returns the operations that it has refused, as they come."""
    refused: list[str] = []

    def check(params: dict[str, Any], model: Any, **_: object) -> None:
        if model.name in operations and params["Bucket"] == bucket and params["Key"].endswith(key):
            refused.append(model.name)
            response: Any = {"Error": {"Code": code, "Message": "no"}, "ResponseMetadata": {"HTTPStatusCode": status}}
            raise ClientError(response, model.name)

    here.s3.meta.events.register("provide-client-params.s3", check)
    return refused


def assert_told_at_home(here: World, outcome: Outcome, code: str) -> dict[str, Any]:
    """The outcome is in OUTPUT_BUCKET, below its own prefix, and the answer says where."""
    stored = here.result("job-1")
    assert (stored["status"], stored["error"]["code"], stored["error"]["retryable"]) == ("failed", code, False)
    assert stored["result_uri"] == outcome.job.result_uri == f"s3://{OUT}/job-1/result.json"
    assert outcome.is_recorded
    return stored


def test_a_bucket_that_denies_everything_is_found_before_any_work(world: Worlds) -> None:
    here = with_bucket(world)
    refused = refuse(here, "GetObject", "PutObject", "CreateMultipartUpload")
    outcome = here.run(request(), UNHEARD)
    assert here.engine.runs == []
    assert refused == ["GetObject", "CreateMultipartUpload"]
    stored = assert_told_at_home(here, outcome, "invalid_request")
    assert "s3:PutObject" in stored["error"]["message"]


def test_a_bucket_that_only_denies_reading_is_written_to(world: Worlds) -> None:
    here = with_bucket(world)
    refuse(here, "GetObject")
    outcome = here.run(request(), UNHEARD)
    assert outcome.error is None
    assert outcome.job.result_uri == f"s3://{OWN}/mine/job-1/result.json"
    assert "Uploads" not in here.s3.list_multipart_uploads(Bucket=OWN)


def test_whether_one_may_write_is_not_known_while_s3_is_away(world: Worlds) -> None:
    here = with_bucket(world)
    refuse(here, "GetObject")
    refuse(here, "CreateMultipartUpload", code="InternalError", status=500)
    outcome = here.run(request(), UNHEARD)
    assert outcome.error is not None
    assert outcome.error.retryable
    assert not outcome.is_recorded
    assert here.engine.runs == []


@pytest.mark.parametrize(
    ("code", "status"),
    [("AccessDenied", 403), ("NoSuchBucket", 404), ("InvalidBucketName", 400), ("PermanentRedirect", 301)],
)
def test_outputs_that_are_refused_are_not_made_again(world: Worlds, code: str, status: int) -> None:
    here = with_bucket(world, engine=FakeEngine(outputs=(made("a.png"), made("b.png", index=1))))
    refuse(here, "PutObject", code=code, status=status)
    outcome = here.run(request(), UNHEARD)
    assert len(here.engine.runs) == 1
    assert outcome.error is not None
    assert not outcome.error.retryable
    stored = assert_told_at_home(here, outcome, "delivery_failed")
    assert "2 of 2 outputs could not be stored" in stored["error"]["message"]
    assert code in stored["error"]["message"]


@pytest.mark.parametrize("what", ["result.json", ""])
def test_a_refusal_is_no_end_as_long_as_the_outcome_is_written_nowhere(world: Worlds, what: str) -> None:
    here = with_bucket(world, engine=FakeEngine(outputs=(made("a.png"),)))
    refuse(here, "PutObject", key=what)
    refuse(here, "PutObject", key="result.json", bucket=OUT)
    outcome = here.run(request(), UNHEARD)
    assert outcome.error is not None
    assert (outcome.error.code, outcome.error.retryable) == ("delivery_failed", True), "its message comes again"
    assert not outcome.is_recorded
    assert outcome.job.result_uri is None


def test_a_result_that_is_refused_alone_is_told_with_what_was_delivered(world: Worlds) -> None:
    here = with_bucket(world)
    refuse(here, "PutObject", key="result.json")
    outcome = here.run(request(), UNHEARD)
    stored = assert_told_at_home(here, outcome, "delivery_failed")
    assert [output["s3_uri"] for output in stored["outputs"]] == [f"s3://{OWN}/mine/job-1/9/a.png"]


def test_another_failure_is_told_at_home_too(world: Worlds) -> None:
    here = with_bucket(world, engine=FakeEngine(error=NodeExecutionError("boom")))
    refuse(here, "PutObject")
    assert_told_at_home(here, here.run(request(), UNHEARD), "node_execution_error")


def test_a_bucket_that_is_away_is_tried_again_and_told_at_home_only_at_the_last_try(world: Worlds) -> None:
    here = with_bucket(world)
    refuse(here, "PutObject", code="ServiceUnavailable", status=503)
    first = here.run(request(), UNHEARD)
    assert first.error is not None
    assert first.error.retryable
    assert not first.is_recorded
    last = here.run(request(), Call(is_heard=False, is_last_try=True))
    assert last.is_recorded
    assert here.result("job-1")["error"]["retryable"] is True


def test_an_output_bucket_that_is_not_listed_is_refused_before_any_work(world: Worlds) -> None:
    here = with_bucket(world, allowed_output_buckets=(OUT,))
    refused = refuse(here, "GetObject", "PutObject", "CreateMultipartUpload")
    outcome = here.run(request(), UNHEARD)
    assert (here.engine.runs, refused) == ([], [])
    assert isinstance(outcome.error, InvalidRequest)
    assert "OutputBuckets" in assert_told_at_home(here, outcome, "invalid_request")["error"]["message"]


def test_a_refused_bucket_does_not_open_the_places_of_the_api(world: Worlds) -> None:
    """In OUTPUT_BUCKET, the prefix that was meant for another bucket could be an owner's."""
    here = with_bucket(world, assets_bucket="assets")
    refuse(here, "GetObject", "PutObject", "CreateMultipartUpload")
    here.run(request(output={"bucket": OWN, "prefix": "owners/ana"}), UNHEARD)
    assert here.stored_keys() == {"job-1/result.json"}


def test_what_stands_at_home_already_is_not_replaced(world: Worlds) -> None:
    here = with_bucket(world)
    here.s3.put_object(Bucket=OUT, Key="job-1/result.json", Body=json.dumps({"somebody": "else"}))
    refuse(here, "PutObject")
    outcome = here.run(request(), UNHEARD)
    assert json.loads(here.stored("job-1/result.json")) == {"somebody": "else"}
    assert not outcome.is_recorded
    assert outcome.job.result_uri is None


# What stays on the worker


def on_disk(here: World, *jobs: str, size_bytes: int) -> None:
    here.engine.kept.update(dict.fromkeys(jobs, size_bytes))


def run_and_release(here: World, job_id: str) -> None:
    here.run(request(job_id=job_id), UNHEARD).release()


def test_what_is_kept_after_failed_deliveries_is_bounded_and_the_oldest_goes_first(
    world: Worlds, caplog: pytest.LogCaptureFixture
) -> None:
    here = with_bucket(world, kept_output_bytes=250)
    refuse(here, "PutObject")
    names = [f"job-{number}" for number in range(5)]
    on_disk(here, *names, size_bytes=100)
    for name in names:
        run_and_release(here, name)
    here.worker.close()
    assert list(here.engine.kept) == ["job-3", "job-4"]
    removed = [vars(record) for record in caplog.records if "are removed" in record.message]
    assert [(entry["job_id"], entry["size_bytes"]) for entry in removed] == [(name, 100) for name in names[:3]]


def test_the_files_of_a_job_in_hand_stay_however_large_they_are(world: Worlds) -> None:
    here = with_bucket(world, kept_output_bytes=50)
    refuse(here, "PutObject")
    on_disk(here, "job-0", "job-1", size_bytes=100)
    held = here.run(request(job_id="job-0"), UNHEARD)
    run_and_release(here, "job-1")
    here.worker.close()
    assert list(here.engine.kept) == ["job-0"]
    held.release()
    assert here.engine.kept == {}
