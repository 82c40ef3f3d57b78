"""What SageMaker may do to a job: give it up, deliver it twice, take its container away, tell of it late or twice."""

from __future__ import annotations

import functools
import itertools
import json
import math
import random
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import pytest
import requests
from comfy_sdk import Comfy

from comfy_serverless.aws.dynamodb import Table
from comfy_serverless.handlers.shutdown import SHUTDOWN_S
from comfy_serverless.jobs.document import JobStatus
from comfy_serverless.table.job_state import JobState
from comfy_serverless.table.jobs import JobStore
from examples.sdk_tour import paint
from local.aws.template import TABLE
from local.dev import DevStack
from local.sagemaker.async_invocation import HEADER, FailureLayout, Invocation
from local.sagemaker.endpoint_backend import ENDPOINT
from tests.integration.test_dev_batches import read, report_of, run
from tests.integration.test_dev_sagemaker import eventually, fail
from tests.integration.test_dev_stack import bearer, small
from tests.patience import PATIENCE_S, QuietClock, slack

pytestmark = [pytest.mark.timeout(1800), pytest.mark.usefixtures("environment")]

#: Few and long steps, since each costs more than it waits. What happens meanwhile takes longer on a busy machine.
STEP_MS = 200
ENGINE = f"{sys.executable} -m comfy_lite --step-ms {STEP_MS}"
STEPS_A_SECOND = round(1000 / STEP_MS * slack())
GOOD, BAD_LINES = 27, ("{", "nonsense", '{"workflow": 1}')
BAD = len(BAD_LINES)
#: Those that may wait in the endpoint, and those that an instance takes.
MAX_WAITING, IN_FLIGHT = 4, 3


@pytest.fixture(scope="module")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[DevStack]:
    # What is killed thrice is given up: a slow machine takes so long for a job that each kill may meet it.
    settings = {"LEASE_S": "3", "MAX_RUNS": "20", "WAITING_PER_INSTANCE": str(MAX_WAITING)}
    folder = tmp_path_factory.mktemp("dev")
    with DevStack(log_folder=folder, backend="sagemaker", environment=settings, engine=ENGINE) as started:
        started.describe()
        yield started


@pytest.fixture(scope="module")
def environment(stack: DevStack) -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("COMFY_BASE_URL", stack.url)
        patch.setenv("COMFY_API_KEY", stack.api_key)
        for name in ("HTTP_PROXY", "HTTPS_PROXY", "http_proxy", "https_proxy", "ALL_PROXY", "all_proxy"):
            patch.delenv(name, raising=False)
        yield


@pytest.fixture
def told(stack: DevStack, monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, str]]:
    """A notice of SageMaker to our function: the job, and how its invocation ended."""
    messages: list[tuple[str, str]] = []
    notify = stack.endpoint._notify

    def listen(message: dict[str, Any]) -> None:
        notify(message)
        messages.append((message["inferenceId"], message["invocationStatus"]))

    monkeypatch.setattr(stack.endpoint, "_notify", listen)
    return messages


@contextmanager
def asking_for(stack: DevStack, **limits: int) -> Iterator[None]:
    """The limits that the sender of the next invocation asks for; it is sent before the end of the block."""
    take, is_taken = stack.endpoint.take, threading.Event()

    def take_as_asked(path: str, headers: dict[str, str], body: bytes) -> Invocation:
        is_taken.set()
        return take(path, {**headers, **{HEADER + name: str(value) for name, value in limits.items()}}, body)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(stack.endpoint, "take", take_as_asked)
        yield
        assert is_taken.wait(PATIENCE_S)


@dataclass(frozen=True, slots=True)
class Batch:
    """A batch whose jobs have all ended.

    Attributes:
        impatient_sent, impatient_begun: when somebody sent a job by himself, after the batch, and when it was begun.
    """

    name: str
    impatient_sent: datetime
    impatient_begun: datetime
    kills: int


@pytest.fixture(scope="module")
def batch(stack: DevStack, environment: None) -> Batch:
    """Dropped into the input bucket; containers and forwarder are killed at random until enough has died.

    Nothing is killed before the job of somebody else has been begun: else it would be begun again, later.
    """
    chance = random.Random(8)
    lines = [json.dumps({"workflow": paint(steps=4, seed=seed)}) for seed in range(GOOD)]
    for bad in BAD_LINES:
        lines.insert(chance.randrange(len(lines)), bad)
    bucket = stack.stack.environment["ALLOWED_INPUT_BUCKETS"].split(",")[0]
    stack.aws.client().put_object(Bucket=bucket, Key="batches/some.jsonl", Body="\n".join(lines).encode())
    eventually(lambda: stack.endpoint.backlog > 0 or fail())
    with Comfy() as client:
        job = client.submit(client.workflows.from_json(small(4)))
    begun = datetime.fromisoformat(str(eventually(lambda: state_of(stack, job.id).started_at or fail())))
    sent = datetime.fromisoformat(str(state_of(stack, job.id).created_at))
    kills = kill_at_random(stack, chance, while_it=lambda: results_of_batch(stack) < GOOD)
    have = results_of_batch(stack)
    while have < GOOD:
        have = eventually(functools.partial(more_results_than, have, stack), within_s=2 * PATIENCE_S)
    return Batch("some", sent, begun, kills)


def results_of_batch(stack: DevStack) -> int:
    keys = objects_of(stack)
    return sum(key.endswith("/result.json") and not key.startswith("owners/") for key in keys)


def more_results_than(before: int, stack: DevStack) -> int:
    have = results_of_batch(stack)
    if have == before:
        items = stack.aws.dynamodb().scan(TableName=TABLE)["Items"]
        jobs = Counter(str({name: item[name] for name in ("status", "runs") if name in item}) for item in items)
        raise AssertionError(f"{have} results of {GOOD}; {stack.endpoint.backlog} wait in the endpoint; {jobs}")
    return have


@pytest.mark.usefixtures("batch")
def test_a_job_that_sagemaker_has_given_up_ends_once_as_its_worker_says(
    stack: DevStack, told: list[tuple[str, str]]
) -> None:
    with Comfy() as client:
        client.submit(client.workflows.from_json(small(1))).result()  # warm
        with asking_for(stack, InvocationTimeoutSeconds=math.ceil(slack())):
            job = client.submit(client.workflows.from_json(paint(steps=4 * STEPS_A_SECOND, seed=1)))
        eventually(lambda: (job.id, "Failed") in told or fail())
        given_up = state_of(stack, job.id)
        assert given_up.status is JobStatus.RUNNING, "the container goes on"
        (output,) = client.jobs.get(job.id).wait(timeout=5 * PATIENCE_S).outputs
        assert len(output.to_bytes()) > 1000
    ended = state_of(stack, job.id)
    assert (ended.status, ended.runs, ended.run) == (JobStatus.SUCCEEDED, 1, given_up.run)
    assert told.count((job.id, "Failed")) == 1
    assert (job.id, "Completed") not in told


def test_a_job_whose_own_time_is_over_fails_and_a_second_delivery_says_so_too(
    stack: DevStack, told: list[tuple[str, str]]
) -> None:
    body = {"workflow": paint(steps=10_000, seed=2), "deadline_s": 1, "wait_s": 25}
    answer = requests.post(f"{stack.url}/generate", json=body, headers=bearer(), timeout=PATIENCE_S).json()
    job = answer.get("job", answer)
    assert (job["status"], job["error"]["code"]) == ("failed", "deadline_exceeded")
    eventually(lambda: (job["id"], "Failed") in told or fail())
    first = failure_of(stack, job["id"])
    assert first["error"]["code"] == "deadline_exceeded"
    stack.endpoint.deliver_again(job["id"])
    eventually(lambda: told.count((job["id"], "Failed")) == 2 or fail())
    again = failure_of(stack, job["id"])
    assert (again["error"], again["job"]["completed_at"]) == (first["error"], first["job"]["completed_at"])
    ended = state_of(stack, job["id"])
    assert (ended.status, ended.runs) == (JobStatus.FAILED, 1)


def test_an_invocation_that_is_delivered_thrice_runs_once_and_its_answer_stands(
    stack: DevStack, told: list[tuple[str, str]]
) -> None:
    with Comfy() as client:
        job = client.submit(client.workflows.from_json(paint(steps=2 * STEPS_A_SECOND, seed=3)))
        eventually(lambda: client.jobs.get(job.id).status == "running" or fail())
        stack.endpoint.deliver_again(job.id)
        eventually(lambda: (job.id, "Completed") in told or fail())
        assert client.jobs.get(job.id).status == "running", "the second delivery does not wait, and runs nothing"
        assert len(client.jobs.get(job.id).wait(timeout=5 * PATIENCE_S).outputs) == 1
    eventually(lambda: told.count((job.id, "Completed")) == 2 or fail())
    objects, first = objects_of(stack, job.id), answer_of(stack, job.id)
    assert (first["id"], first["status"], len(first["outputs"])) == (job.id, "succeeded", 1)
    stack.endpoint.deliver_again(job.id)
    eventually(lambda: told.count((job.id, "Completed")) == 3 or fail())
    again = answer_of(stack, job.id)
    for field in ("id", "status", "completed_at", "outputs", "error", "seeds"):
        assert again[field] == first[field], field
    assert objects_of(stack, job.id) == objects, "nothing is written twice"
    assert len([key for key in objects if key.endswith(".png")]) == 1
    assert state_of(stack, job.id).runs == 1


def test_a_job_whose_container_is_taken_away_succeeds_in_another(stack: DevStack) -> None:
    """It lasts longer than a container that ends lets it go on, so that it is given back, and begins anew."""
    with Comfy() as client, QuietClock() as clock:
        client.submit(client.workflows.from_json(small(2))).result()
        job = client.submit(client.workflows.from_json(paint(steps=14 * STEPS_A_SECOND, seed=4)))
        eventually(lambda: client.jobs.get(job.id).status == "running" or fail())
        (instance,) = stack.endpoint.instances
        first_run = state_of(stack, job.id).run
        begun = clock()
        stack.endpoint.scale_in(instance)
        (output,) = client.jobs.get(job.id).wait(timeout=5 * PATIENCE_S).outputs
        took_s = clock() - begun
        assert len(output.to_bytes()) > 1000
    ended = state_of(stack, job.id)
    assert (ended.status, ended.last_run) == (JobStatus.SUCCEEDED, first_run)
    assert ended.run != first_run
    assert not instance.is_alive
    assert instance not in stack.endpoint.instances
    assert took_s < SHUTDOWN_S + 35 * slack(), "its steps are slack's"
    assert len([key for key in objects_of(stack, job.id) if key.endswith(".png")]) == 1


def test_notifications_out_of_order_twice_and_for_nobodys_job_change_nothing(stack: DevStack) -> None:
    with Comfy() as client:
        done = client.submit(client.workflows.from_json(small(3))).result()
        running = client.submit(client.workflows.from_json(paint(steps=3 * STEPS_A_SECOND, seed=5)))
        eventually(lambda: client.jobs.get(running.id).status == "running" or fail())
        before = state_of(stack, done.id)
        statuses = ["Expired", "Completed", "Failed", "Failed", "Expired", "Completed"]
        records = [
            record_of(job_id, status, layout)
            for status, layout, job_id in itertools.product(statuses, FailureLayout, (done.id, running.id, "nobodys"))
        ]
        random.Random(5).shuffle(records)
        records.insert(1, {"EventSource": "aws:sns", "Sns": {"Message": "{}"}})
        heard = stack.functions.invoke("comfy_serverless.handlers.outcome.handler", {"Records": records})
        assert heard == {"settled": len(records) - 1}
        assert state_of(stack, done.id) == before
        assert len(client.jobs.get(running.id).wait(timeout=5 * PATIENCE_S).outputs) == 1
        assert state_of(stack, running.id).runs == 1


def test_a_batch_whose_containers_and_forwarder_are_killed_has_exact_counts(stack: DevStack, batch: Batch) -> None:
    summary, rows = report_of(stack, run(stack, "status", batch.name, "--watch", code=1)["report"])
    assert batch.kills >= 3, "containers, twice, and the forwarder"
    assert (summary["lines"], summary["bad_lines"]) == (GOOD + BAD, BAD)
    assert summary["statuses"] == {"succeeded": GOOD}
    assert Counter(row["status"] for row in rows) == {"succeeded": GOOD, "bad": BAD}
    results = [read(stack, row["result"]) for row in rows if row["status"] == "succeeded"]
    assert {(result["status"], len(result["outputs"])) for result in results} == {("succeeded", 1)}
    started = [datetime.fromisoformat(result["started_at"]) for result in results]
    between = [at for at in started if batch.impatient_sent <= at < batch.impatient_begun]
    assert len(between) <= 2 * (MAX_WAITING + IN_FLIGHT), "whoever waits for a job goes before the batch's rest"


def kill_at_random(stack: DevStack, chance: random.Random, *, while_it: Callable[[], bool]) -> int:
    """Containers and the function that sends batches on, in turn; returns how often."""
    kills = 0
    while kills < 6 and while_it():
        time.sleep(chance.uniform(0.5, 3))
        if kills % 2 == 0:
            stack.kill_workers()
        else:
            stack.endpoint_backend.kill_forward()
        kills += 1
    return kills


def state_of(stack: DevStack, job_id: str) -> JobState:
    state = JobStore(Table(stack.aws.dynamodb(), TABLE), lease_s=3, max_runs=3).read(job_id)
    assert state is not None
    return state


def record_of(job_id: str, status: str, layout: FailureLayout) -> dict[str, Any]:
    invocation = Invocation(inference_id=job_id, body=b"", location="", headers={}, key="")
    message = invocation.notification(ENDPOINT, status, layout=layout, failureReason="late")
    return {"EventSource": "aws:sns", "Sns": {"Message": json.dumps(message)}}


def answer_of(stack: DevStack, job_id: str) -> dict[str, Any]:
    return read(stack, f"s3://{stack.stack.environment['OUTPUT_BUCKET']}/endpoint/output/{job_id}/answer.json")


def failure_of(stack: DevStack, job_id: str) -> dict[str, Any]:
    return read(stack, f"s3://{stack.stack.environment['OUTPUT_BUCKET']}/endpoint/failure/{job_id}/answer.json")


def objects_of(stack: DevStack, job_id: str = "") -> dict[str, Any]:
    """Everything a job, or all, have in the bucket, and when it was written; without what SageMaker writes."""
    pages = (
        stack.aws.client().get_paginator("list_objects_v2").paginate(Bucket=stack.stack.environment["OUTPUT_BUCKET"])
    )
    return {
        entry["Key"]: (entry["ETag"], entry["LastModified"])
        for page in pages
        for entry in page.get("Contents", [])
        if f"/{job_id}" in f"/{entry['Key']}/" and not entry["Key"].startswith("endpoint/")
    }
