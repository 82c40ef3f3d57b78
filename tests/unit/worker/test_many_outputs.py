"""A job of very many outputs: all are stored, the document lists the first ones, and a list has all of them."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest
from botocore.exceptions import ClientError

from comfy_serverless.aws.s3 import S3Address
from comfy_serverless.errors import DeliveryFailed, InvalidRequest, NodeExecutionError
from comfy_serverless.jobs.document import Job, JobStatus, Output
from comfy_serverless.jobs.keys import KeyAllotment
from comfy_serverless.jobs.result_file import ResultFile
from comfy_serverless.worker.delivery import MAX_NAME_CHARACTERS
from tests.unit.fakes import OUT, WORKFLOW, FakeEngine, World, made

Worlds = Callable[..., World]
COUNT, LISTED = 30, 10


def texts(count: int = COUNT) -> FakeEngine:
    return FakeEngine(outputs=tuple(made("text.txt", str(n).encode(), node_id=str(n)) for n in range(count)))


def run(here: World, job_id: str = "job-1") -> Job:
    return here.run({"job_id": job_id, "workflow": WORKFLOW}).job


def listed_all(here: World, key: str = "job-1/outputs.jsonl") -> list[Output]:
    return [Output.model_validate_json(line) for line in here.stored(key).splitlines()]


def test_all_are_stored_the_first_are_listed_and_a_file_has_all(world: Worlds) -> None:
    here = world(engine=texts(), max_listed_outputs=LISTED)
    job = run(here)
    assert job.status is JobStatus.SUCCEEDED
    assert [output.node_id for output in job.outputs] == [str(n) for n in range(LISTED)]
    assert (job.outputs_total, job.outputs_uri) == (COUNT, f"s3://{OUT}/job-1/outputs.jsonl")
    assert f"the first {LISTED} of {COUNT} outputs" in job.warnings[0]
    assert "outputs.jsonl beside result.json" in job.warnings[0]
    assert [output.node_id for output in listed_all(here)] == [str(n) for n in range(COUNT)]
    assert all(here.stored(f"job-1/{n}/text.txt") == str(n).encode() for n in range(COUNT))
    assert here.result("job-1") == job.to_json()


def test_a_job_that_is_within_the_limit_has_no_list_and_no_warning(world: Worlds) -> None:
    here = world(engine=texts(LISTED), max_listed_outputs=LISTED)
    job = run(here)
    assert (len(job.outputs), job.outputs_total, job.outputs_uri, job.warnings) == (LISTED, None, None, ())
    assert "job-1/outputs.jsonl" not in here.stored_keys()
    assert not {"outputs_total", "outputs_uri"} & set(here.result("job-1"))


def test_the_same_job_is_answered_from_its_result_and_stores_nothing_anew(world: Worlds) -> None:
    here = world(engine=texts(), max_listed_outputs=LISTED)
    first, keys = run(here), here.stored_keys()
    assert run(here).to_json() == first.to_json()
    assert here.stored_keys() == keys


def test_a_slower_worker_never_replaces_the_list_that_a_result_names(world: Worlds) -> None:
    here = world(engine=texts(), max_listed_outputs=LISTED)
    other = world(engine=texts(COUNT - 1), max_listed_outputs=LISTED)
    here.engine.then = lambda: run(other)
    job = run(here)
    assert job.outputs_total == COUNT - 1, "the other was first"
    assert len(listed_all(here, str(job.outputs_uri).removeprefix(f"s3://{OUT}/"))) == COUNT - 1


def test_a_job_that_failed_lists_what_it_had_made(world: Worlds) -> None:
    engine = texts()
    engine.error = NodeExecutionError("node 5 raised")
    job = run(world(engine=engine, max_listed_outputs=LISTED))
    assert (job.status, len(job.outputs), job.outputs_total) == (JobStatus.FAILED, LISTED, COUNT)


@pytest.mark.parametrize("error", [None, NodeExecutionError("node 5 raised")])
def test_a_list_that_cannot_be_stored_hides_no_failure(world: Worlds, error: NodeExecutionError | None) -> None:
    engine = texts()
    engine.error = error
    here = world(engine=engine, max_listed_outputs=LISTED)

    def refuse(params: dict[str, Any], **_: Any) -> None:
        if params["Key"].endswith("outputs.jsonl"):
            raise ClientError({"Error": {"Code": "AccessDenied", "Message": "no"}}, "PutObject")

    here.s3.meta.events.register("provide-client-params.s3.PutObject", refuse)
    outcome = here.run({"job_id": "job-1", "workflow": WORKFLOW})
    assert outcome.job.error is not None
    if error is None:
        assert isinstance(outcome.error, DeliveryFailed)
        assert not outcome.job.error.retryable, "S3 would refuse it again"
    else:
        assert outcome.job.error.code == "node_execution_error"
        assert any("list of the job's 30 outputs" in warning for warning in outcome.job.warnings)


def test_without_a_bucket_the_reply_has_all(world: Worlds) -> None:
    job = run(world(engine=texts(), max_listed_outputs=LISTED, output_bucket=None))
    assert (len(job.outputs), job.outputs_total) == (COUNT, None)


def test_a_forged_result_cannot_name_a_list_of_others(world: Worlds) -> None:
    here = world(engine=texts(), max_listed_outputs=LISTED)
    forged = {**run(here).to_json(), "outputs_uri": f"s3://{OUT}/owners/alice/job/outputs.jsonl"}
    here.s3.put_object(Bucket=OUT, Key="job-1/result.json", Body=json.dumps(forged))
    with pytest.raises(InvalidRequest, match="is not the result of this job"):
        ResultFile(here.s3, S3Address(OUT, "job-1/result.json")).read()


def test_names_of_megabytes_fit_into_the_table(world: Worlds) -> None:
    engine = FakeEngine(outputs=(made("a.png", node_id="9" * 1_000_000),))
    [output] = run(world(engine=engine)).outputs
    assert len(output.node_id) == MAX_NAME_CHARACTERS


def test_equal_names_get_their_numbers_without_counting_from_one_each_time() -> None:
    keys = KeyAllotment("", "job")
    looks = 0

    class Taken(set[str]):
        def __contains__(self, key: object) -> bool:
            nonlocal looks
            looks += 1
            return super().__contains__(key)

    keys._taken = Taken()
    made_keys = [keys.key(made("a.png", subfolder=str(n))) for n in range(1000)]
    assert len(set(made_keys)) == 1000
    assert made_keys[:3] == ["job/9/a.png", "job/9/a-2.png", "job/9/a-3.png"]
    assert looks < 4 * 1000
