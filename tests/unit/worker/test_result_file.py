"""`result.json`: the one answer of a job, written once, believed only where it is the job's own."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from typing import Any

import pytest
from botocore.exceptions import ClientError

from comfy_serverless.errors import EngineCrashed, InvalidRequest
from comfy_serverless.worker.worker import Call
from tests.unit.fakes import IN, OUT, WORKFLOW, FakeEngine, World, made

Worlds = Callable[..., World]
UNHEARD = Call(is_heard=False)


def request(**fields: Any) -> dict[str, Any]:
    return {"job_id": "job-1", "workflow": WORKFLOW, **fields}


def test_the_result_is_written_last(world: Worlds) -> None:
    here = world(engine=FakeEngine(outputs=tuple(made(f"{n}.png", index=n) for n in range(9))))
    written: list[str] = []
    here.s3.meta.events.register(
        "provide-client-params.s3.PutObject", lambda params, **_: written.append(params["Key"])
    )
    here.run(request())
    assert written[-1] == "job-1/result.json"
    assert len([key for key in written if "/thumbs/" not in key]) == 10


def test_the_stored_result_is_the_job_without_links(world: Worlds) -> None:
    here = world()
    job = here.run(request(metadata={"who": "me"})).job
    stored = here.result("job-1")
    assert stored == job.to_json()
    assert stored["outputs"][0]["url"] is None
    assert "data_base64" not in stored["outputs"][0]
    assert stored["metadata"] == {"who": "me"}
    assert stored["result_uri"] == f"s3://{OUT}/job-1/result.json"


def test_the_same_job_id_is_answered_from_its_result(world: Worlds) -> None:
    here = world()
    first = here.run(request())
    second = here.run(request())
    assert second.job.to_json() == first.job.to_json()
    assert second.is_recorded
    assert len(here.engine.runs) == 1


def test_a_result_that_another_worker_wrote_first_stands(world: Worlds) -> None:
    here = world()
    other = world(engine=FakeEngine(outputs=(made("other.png"),)))
    here.engine.then = lambda: other.run(request())
    outcome = here.run(request())
    assert [output.name for output in outcome.job.outputs] == ["other.png"]
    assert here.result("job-1")["outputs"][0]["name"] == "other.png"
    assert outcome.is_recorded


@pytest.mark.parametrize("who_ends_first", ["the other", "this one"])
def test_a_slower_worker_never_replaces_a_file_that_a_result_names(world: Worlds, who_ends_first: str) -> None:
    """Both make `a.png`, with other pixels each."""
    here = world(engine=FakeEngine(outputs=(made("a.png", b"ours"),)))
    other = world(engine=FakeEngine(outputs=(made("a.png", b"theirs"),)))
    if who_ends_first == "the other":
        here.engine.then = lambda: other.run(request())
    else:
        other.engine.then = lambda: here.run(request())
        other.run(request())
    here.run(request())
    [output] = here.result("job-1")["outputs"]
    key = output["s3_uri"].removeprefix(f"s3://{OUT}/")
    content = here.s3.get_object(Bucket=OUT, Key=key)["Body"].read()
    assert hashlib.sha256(content).hexdigest() == output["sha256"]
    assert content == (b"theirs" if who_ends_first == "the other" else b"ours")


def test_a_result_written_at_the_same_moment_is_waited_for(world: Worlds) -> None:
    here = world()
    conflicts = iter([1, 2])
    on_result(here, lambda _: refuse("ConditionalRequestConflict", 409) if next(conflicts, None) else None)
    assert here.run(request()).is_recorded
    assert here.result("job-1")["status"] == "succeeded"


def test_a_result_whose_writing_was_repeated_is_our_own(world: Worlds) -> None:
    here = world()
    copies = iter([1])

    def store_twice(params: dict[str, Any]) -> None:
        if next(copies, None):
            here.s3.put_object(**params)

    on_result(here, store_twice)
    outcome = here.run(request())
    assert outcome.is_recorded
    assert outcome.made


def test_a_result_that_is_not_written_down_is_not_said_to_be(world: Worlds) -> None:
    here = world(engine=FakeEngine(error=EngineCrashed("it died")))
    assert here.run(request()).job.result_uri is None


def test_a_result_that_names_what_is_not_its_own_is_not_believed(world: Worlds) -> None:
    here = world()
    here.run(request())
    forged = here.result("job-1")
    forged["outputs"][0]["s3_uri"] = f"s3://{IN}/not-for-you.txt"
    here.s3.put_object(Bucket=OUT, Key="forged/result.json", Body=json.dumps(forged))
    outcome = here.run(request(job_id="forged"))
    assert isinstance(outcome.error, InvalidRequest)
    assert outcome.job.outputs == ()


@pytest.mark.parametrize(
    ("code", "status", "is_retryable"),
    [
        ("PermanentRedirect", 301, False),
        ("KeyTooLongError", 400, False),
        ("InternalError", 500, True),
        ("SlowDown", 503, True),
    ],
)
def test_whether_s3_fails_or_refuses_decides_whether_to_try_again(
    world: Worlds, code: str, status: int, is_retryable: bool
) -> None:
    here = world()
    here.s3.meta.events.register("provide-client-params.s3.GetObject", lambda **_: refuse(code, status))
    error = here.run(request()).error
    assert error is not None
    assert error.retryable == is_retryable
    assert code in error.message


def refuse(code: str, status: int) -> None:
    response: Any = {"Error": {"Code": code, "Message": "no"}, "ResponseMetadata": {"HTTPStatusCode": status}}
    raise ClientError(response, "Request")


def on_result(here: World, act: Callable[[dict[str, Any]], None]) -> None:
    """Call `act` before every attempt to write a result."""
    here.s3.meta.events.register(
        "provide-client-params.s3.PutObject",
        lambda params, **_: act(params) if params["Key"].endswith("result.json") else None,
    )


def test_something_else_in_the_results_place_is_never_overwritten(world: Worlds) -> None:
    here = world()
    here.s3.put_object(Bucket=OUT, Key="job-1/result.json", Body=b'{"mine": true}')
    outcome = here.run(request())
    assert isinstance(outcome.error, InvalidRequest)
    assert here.stored("job-1/result.json") == b'{"mine": true}'


def test_a_wrong_bucket_in_a_request_nobody_hears_of_is_reported_in_the_default_one(world: Worlds) -> None:
    here = world()
    outcome = here.run(request(output={"bucket": "not-there"}), UNHEARD)
    assert outcome.is_recorded
    assert "'not-there'" in here.result("job-1")["error"]["message"]


# Failures that another try may cure


def test_the_last_delivery_of_a_job_that_failed_writes_down_what_another_try_may_cure(world: Worlds) -> None:
    here = world(engine=FakeEngine(error=EngineCrashed("died")))
    assert not here.run(request(), Call(is_heard=False)).is_recorded
    assert here.run(request(), Call(is_heard=False, is_last_try=True)).is_recorded
    assert here.result("job-1")["error"]["retryable"] is True


def test_a_failure_that_another_try_may_cure_is_replaced_by_that_try(world: Worlds) -> None:
    here = world(engine=FakeEngine(error=EngineCrashed("died")))
    here.run(request(), Call(is_heard=False, is_last_try=True))
    here.engine.error = None
    outcome = here.run(request(), UNHEARD)
    assert outcome.error is None
    assert here.result("job-1")["status"] == "succeeded"
    assert len(here.engine.runs) == 2


def test_of_two_tries_that_replace_a_failure_the_first_stands(world: Worlds) -> None:
    here = world(engine=FakeEngine(error=EngineCrashed("died")))
    here.run(request(), Call(is_heard=False, is_last_try=True))
    here.engine.error = None
    other = world(engine=FakeEngine(outputs=(made("other.png"),)))
    here.engine.then = lambda: other.run(request())
    outcome = here.run(request())
    assert [output.name for output in outcome.job.outputs] == ["other.png"]
    assert [output["name"] for output in here.result("job-1")["outputs"]] == ["other.png"]


def test_a_success_takes_the_place_of_a_failure_that_was_written_down_meanwhile(world: Worlds) -> None:
    here = world()
    other = world(engine=FakeEngine(error=EngineCrashed("died")))
    here.engine.then = lambda: other.run(request(), Call(is_heard=False, is_last_try=True))
    outcome = here.run(request(), UNHEARD)
    assert outcome.job.error is None
    assert here.result("job-1")["status"] == "succeeded"
