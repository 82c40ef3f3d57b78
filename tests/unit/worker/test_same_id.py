"""A job id counts once: who sends something else under it gets the first outcome, and is told."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from comfy_serverless.errors import InvalidRequest
from comfy_serverless.jobs.document import Job, JobStatus
from comfy_serverless.jobs.request import JobRequest
from comfy_serverless.worker.outcomes import Call
from tests.unit.fakes import OUT, WORKFLOW, FakeEngine, World

Worlds = Callable[..., World]


def told(job: Job) -> bool:
    return any("has been used for another request" in warning for warning in job.warnings)


def request(**fields: Any) -> dict[str, Any]:
    return {"job_id": "job-1", "workflow": WORKFLOW, **fields}


@pytest.mark.parametrize(
    "second",
    [
        request(set={"9.filename_prefix": "other"}),
        request(workflow={**WORKFLOW, "77": {"class_type": "PreviewAny", "inputs": {"source": ["1", 0]}}}),
        request(inputs={"1.image": "s3://in/other.png"}),
    ],
    ids=["other values", "another workflow", "other inputs"],
)
def test_another_request_under_a_used_id_is_answered_by_the_first_and_told(
    world: Worlds, second: dict[str, Any]
) -> None:
    engine = FakeEngine()
    here = world(engine=engine)
    first = here.run(request()).job
    again = here.run(second).job
    assert again.outputs
    assert [output.s3_uri for output in again.outputs] == [output.s3_uri for output in first.outputs]
    assert told(again)
    assert not told(first)


def test_a_line_of_a_batch_is_not_fulfilled_by_the_result_of_another_request(world: Worlds) -> None:
    engine = FakeEngine()
    here = world(engine=engine)
    here.run(request())
    stood = here.stored("job-1/result.json")
    other = here.run(request(set={"9.filename_prefix": "other"}), Call(is_line=True, is_heard=False))
    assert isinstance(other.error, InvalidRequest)
    assert (other.job.status, other.job.outputs, other.job.result_uri) == (JobStatus.FAILED, (), None)
    assert "'job-1' has been used for another request" in str(other.job.error)
    assert not other.is_recorded
    assert here.stored("job-1/result.json") == stood, "which stays"
    same = here.run(request(), Call(is_line=True, is_heard=False)).job
    assert (same.status, same.warnings) == (JobStatus.SUCCEEDED, ())


def test_the_same_request_is_told_nothing_however_it_is_labelled(world: Worlds) -> None:
    here = world(engine=FakeEngine())
    here.run(request())
    again = here.run(request(metadata={"campaign": "spring"}, reply="links", deadline_s=60)).job
    assert again.warnings == ()


def test_a_result_of_an_older_release_says_nothing_of_its_request(world: Worlds) -> None:
    here = world(engine=FakeEngine())
    old = here.run(request()).job.model_copy(update={"request_sha256": None})
    here.s3.put_object(Bucket=OUT, Key="job-1/result.json", Body=old.to_stored_bytes())
    assert not told(here.run(request(set={"9.filename_prefix": "other"})).job)


def test_what_is_asked_for_is_all_that_counts() -> None:
    plain = JobRequest.parse(request())
    assert plain.digest() == JobRequest.parse(request(job_id="job-2", metadata={"a": "b"})).digest()
    assert plain.digest() != JobRequest.parse(request(set={"9.filename_prefix": "x"})).digest()


def test_every_release_makes_the_same_of_a_request() -> None:
    """It is kept with jobs: another digest of the same request would call a line that is sent again another one."""
    asked = {"workflow": {"1": {"class_type": "A", "inputs": {"a": 1}}}, "set": {"1.a": -1}, "inputs": {"1.b": "a.png"}}
    models = [{"folder": "loras", "url": "https://x.example/a.safetensors", "sha256": "0" * 64}]
    assert JobRequest.parse(asked).digest() == "66b7ba6ea2a9d3dd6b159afcfbf3b2ce68f7501a3b9f52f11709c6b0f4809c9c"
    assert JobRequest.parse({**asked, "models": models}).digest() == (
        "ff1fe6a50e65db91d94dfc1994b0fcc0dfd938f5bc949343d0f5d0aff2e27d5f"
    )
