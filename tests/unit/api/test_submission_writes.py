"""A submit writes the request and the job at the same time: what is left if one fails, and what the message has."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from typing import Any

import pytest
from botocore.exceptions import EndpointConnectionError

from comfy_serverless.api import submission as module
from comfy_serverless.jobs.document import JobStatus
from comfy_serverless.jobs.message import JobMessage
from comfy_serverless.worker.journal import Journal
from comfy_serverless.worker.worker import Call, Outcome, Worker
from tests.unit.api.test_api_jobs import submit
from tests.unit.api_world import ASSETS, ApiWorld, api_world
from tests.unit.fakes import WORKFLOW, FakeEngine, FakeInputs, files_in


@pytest.fixture
def api(monkeypatch: pytest.MonkeyPatch) -> Iterator[ApiWorld]:
    with api_world(monkeypatch) as world:
        yield world


def refuse(**_: object) -> None:
    raise EndpointConnectionError(endpoint_url="s3")


def test_a_job_whose_request_s3_does_not_take_is_taken_back_and_its_key_is_free_again(api: ApiWorld) -> None:
    api.s3.meta.events.register("before-call.s3.PutObject", refuse)
    answer = submit(
        api, idempotency_key="once", webhook_url="https://example.com/hook", webhook_secret="whsec_" + "A" * 32
    )
    assert (answer.status, answer.code) == (500, "upstream_error")
    assert "send it again" in answer.json["error"]["message"]
    assert api.request("GET", "/api/v2/jobs").json["jobs"] == []
    assert api.messages() == []
    api.s3.meta.events.unregister("before-call.s3.PutObject", refuse)
    assert submit(api, idempotency_key="once").status == 201


def test_a_job_whose_request_s3_takes_too_long_for_is_taken_back(
    api: ApiWorld, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "WRITTEN_WITHIN_S", 0.0)
    monkeypatch.setattr(api.services.beside, "submit", _never(api.services.beside.submit))
    assert submit(api).status == 500
    assert api.request("GET", "/api/v2/jobs").json["jobs"] == []
    assert api.messages() == []


def _never(submit_beside: Callable[..., Future[Any]]) -> Callable[..., Future[Any]]:
    """Checks are made, and nothing is ever written."""
    return lambda task, *rest: submit_beside(task, *rest) if task is module._check_room else Future()


def test_the_message_of_a_small_request_has_all_that_stands_in_s3_but_the_submitted_workflow(api: ApiWorld) -> None:
    job_id = submit(api, metadata={"batch": "ü"}).json["id"]
    (message,) = api.messages()
    stored = json.loads(
        api.s3.get_object(Bucket=ASSETS, Key=message["request"].removeprefix(f"s3://{ASSETS}/"))["Body"].read()
    )
    assert message["content"] == {name: stored[name] for name in stored if name != "workflow"}
    assert message["result"] == f"{_folder(message)}/{job_id}/result.json"
    assert stored["workflow"] == WORKFLOW


def _folder(message: dict[str, Any]) -> str:
    output = message["content"]["request"]["output"]
    return f"s3://{output['bucket']}/{output['prefix']}"


def test_a_job_that_the_api_has_left_without_its_request_fails_and_says_so(api: ApiWorld) -> None:
    """The API died in the milliseconds between the table and S3; its caller was told nothing."""
    job_id = submit(api).json["id"]
    api.messages()
    state = api.services.jobs.read(job_id)
    assert state is not None
    bucket, key = state.message.address
    api.s3.delete_object(Bucket=bucket, Key=key)
    worker = Worker(
        settings=api.services.settings,
        engine=FakeEngine(),
        s3=api.services.s3,
        inputs=FakeInputs(),
        named=files_in(None),
    )
    journal = Journal(api.services.jobs, api.services.workers, api.services.care.webhook_queue)
    sent_again = JobMessage.parse(state.message.to_text())
    assert sent_again is not None
    outcome = journal.run(worker, sent_again, Call(is_heard=False))
    worker.close()
    assert isinstance(outcome, Outcome)
    job = api.request("GET", f"/api/v2/jobs/{job_id}").json
    assert (job["status"], job["error"]["code"]) == (JobStatus.FAILED.value, "missing_asset")
    assert "the request" in job["error"]["message"]
