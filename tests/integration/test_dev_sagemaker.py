"""The whole way over an asynchronous endpoint: API, parameter, endpoint, container, notifications, table."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any, NoReturn

import pytest
from comfy_sdk import Comfy

from examples import sdk_tour
from examples.sdk_tour import paint
from local.dev import DevStack
from tests.integration.test_dev_stack import colour_of, pixel_of, small, submit_surely
from tests.patience import PATIENCE_S

pytestmark = pytest.mark.timeout(1800)


@pytest.fixture(scope="module")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[DevStack]:
    folder = tmp_path_factory.mktemp("dev")
    with DevStack(log_folder=folder, backend="sagemaker", environment={"LEASE_S": "3"}) as started:
        yield started
        assert started.aws.usage().denials == [], "template.yaml allows all that functions do"


@pytest.fixture(autouse=True)
def environment(stack: DevStack, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COMFY_BASE_URL", stack.url)
    monkeypatch.setenv("COMFY_API_KEY", stack.api_key)
    for name in ("HTTP_PROXY", "HTTPS_PROXY", "http_proxy", "https_proxy", "ALL_PROXY", "all_proxy"):
        monkeypatch.delenv(name, raising=False)


def test_the_tour_of_the_official_sdk_runs_unchanged(stack: DevStack) -> None:
    assert stack.endpoint.instances == [], "from zero"
    with Comfy() as client:
        sdk_tour.tour(client)
    assert len(stack.endpoint.instances) == 1


def test_the_answer_of_an_invocation_lies_where_we_said_and_has_no_links(stack: DevStack) -> None:
    with Comfy() as client:
        job = client.submit(client.workflows.from_json(small(7)))
        job.result()
    bucket = stack.stack.environment["OUTPUT_BUCKET"]
    key = f"endpoint/output/{job.id}/answer.json"
    answer = eventually(lambda: stack.aws.client().get_object(Bucket=bucket, Key=key)["Body"].read())
    document = json.loads(answer)
    assert (document["id"], document["status"]) == (job.id, "succeeded")
    assert b"X-Amz-Signature" not in answer


def test_a_container_that_is_killed_costs_no_job(stack: DevStack) -> None:
    is_over = threading.Event()

    def kill() -> None:
        for _ in range(3):
            if is_over.wait(3):
                return
            stack.kill_workers()

    with Comfy() as client, ThreadPoolExecutor(1) as killer:
        ids = [submit_surely(client, small(number), {"run": "killed"}).id for number in range(20)]
        done = killer.submit(kill)
        jobs = [client.jobs.get(job_id).wait(timeout=2 * PATIENCE_S) for job_id in ids]
        is_over.set()
        done.result()
        assert [job.status for job in jobs] == ["succeeded"] * 20
        for number, job in enumerate(jobs):
            (output,) = job.outputs
            assert pixel_of(output.to_bytes()) == colour_of(number)


def test_a_job_that_is_canceled_while_its_container_is_taken_away_is_canceled(stack: DevStack) -> None:
    with Comfy() as client:
        client.submit(client.workflows.from_json(small(1))).result()
        job = client.submit(client.workflows.from_json(paint(steps=1200, seed=11)))
        eventually(lambda: client.jobs.get(job.id).status == "running" or fail())
        (instance,) = stack.endpoint.instances
        stack.endpoint.scale_in(instance)
        job.cancel()
        ended = client.jobs.get(job.id).wait(timeout=PATIENCE_S)
        assert ended.status == "canceled"
        again = client.submit(client.workflows.from_json(small(2))).result()
        assert len(again.outputs) == 1, "another container has taken its place"


def test_a_job_whose_invocation_expires_waits_on_and_runs_when_there_is_an_instance(
    stack: DevStack, monkeypatch: pytest.MonkeyPatch
) -> None:
    endpoint, take, expired = stack.endpoint, stack.endpoint.take, threading.Event()
    notify = endpoint._notify

    def take_for_a_moment(path: str, headers: dict[str, str], body: bytes) -> Any:
        return take(path, {**headers, "X-Amzn-SageMaker-RequestTTLSeconds": "1"}, body)

    def listen(message: dict[str, Any]) -> None:
        notify(message)
        if message["invocationStatus"] == "Expired":
            expired.set()

    monkeypatch.setattr(endpoint, "shortest_ttl_s", 1)
    monkeypatch.setattr(endpoint, "_notify", listen)
    with Comfy() as client:
        with monkeypatch.context() as patch:
            patch.setattr(endpoint, "start_delay_s", 3600.0)  # no capacity
            patch.setattr(endpoint, "take", take_for_a_moment)
            stack.kill_workers()
            eventually(lambda: endpoint.instances == [] or fail())
            job = submit_surely(client, small(3), {})
            assert expired.wait(PATIENCE_S)
            assert client.jobs.get(job.id).status == "queued"
        assert client.jobs.get(job.id).wait(timeout=2 * PATIENCE_S).status == "succeeded"


def eventually(ask: Any, *, within_s: float = PATIENCE_S) -> Any:
    end = time.monotonic() + within_s
    while True:
        try:
            return ask()
        except Exception:
            if time.monotonic() > end:
                raise
            time.sleep(0.1)


def fail() -> NoReturn:
    raise AssertionError
