"""The function that streams, in the image `api`: its own runtime, in a real container, behind a REST API."""

from __future__ import annotations

import json
import os
import time
import uuid
from collections.abc import Callable, Iterator, Mapping
from typing import Any, NamedTuple

import pytest
import requests

from comfy_serverless.aws.dynamodb import Table
from comfy_serverless.table.jobs import JobStore
from demo.sam import host_address
from local.aws.live_events import FUNCTION
from local.aws.processes import LocalProcess, clean_environment
from local.aws.rest_gateway import RestGateway
from local.aws.runtime_api import FunctionFailed, RuntimeApi, StreamingFunction
from local.aws.stack import LocalStack
from local.aws.template import TABLE, properties_of
from tests.e2e.lambda_container import SANDBOX, LambdaContainer, docker, http_event
from tests.integration.test_live_events import Watcher, Worker
from tests.patience import PATIENCE_S, wait_until
from tests.unit.fakes import WORKFLOW

pytestmark = [pytest.mark.container, pytest.mark.timeout(1800)]


class StreamingContainers(StreamingFunction):
    """The same with containers in place of processes, each confined as Lambda confines one."""

    def __init__(self, image: str, handler: str, environment: Mapping[str, str]) -> None:
        super().__init__(handler, environment, host="0.0.0.0")
        self._image = image
        self.names: list[str] = []

    def process(self, handler: str, environment: Mapping[str, str], api: RuntimeApi) -> LocalProcess:
        self.names.append(f"comfy-serverless-stream-{uuid.uuid4().hex[:12]}")
        address = f"{host_address(api.port, image=self._image)}:{api.port}"
        variables = {**environment, "AWS_LAMBDA_RUNTIME_API": address}
        words = [word for name, value in variables.items() for word in ("--env", f"{name}={value}")]
        command = ["docker", "run", "--name", self.names[-1], *SANDBOX, *words, self._image, handler]
        engine = {name: value for name, value in os.environ.items() if name.startswith("DOCKER_")}
        return LocalProcess(command, {**clean_environment(), **engine}, name="a container that streams")

    def stop(self) -> None:
        for name in self.names:
            docker("rm", "--force", name)
        super().stop()


class World(NamedTuple):
    """The API, which runs no jobs, and what streams its events; both are containers."""

    api: LambdaContainer
    function: StreamingContainers
    jobs: JobStore
    table: Table

    def submit(self) -> dict[str, Any]:
        """A new job, as the API tells it."""
        answer = self.api.invoke(http_event("/api/v2/jobs", method="POST", body={"workflow": WORKFLOW}))
        assert answer["statusCode"] in (200, 201, 202), self.api.log()[-4000:]
        job: dict[str, Any] = json.loads(answer["body"])
        return job


@pytest.fixture(scope="module")
def world(api_image: str, stack_environment: dict[str, str], local_stack: LocalStack) -> Iterator[World]:
    (handler,) = properties_of(FUNCTION)["ImageConfig"]["Command"]
    function = StreamingContainers(api_image, handler, {**stack_environment, "POWERTOOLS_SERVICE_NAME": "events"})
    gateway = RestGateway(function)
    gateway.start()
    table = Table(local_stack.aws.dynamodb(), TABLE)
    try:
        with LambdaContainer(api_image, {**stack_environment, "EVENTS_URL": gateway.url}) as api:
            yield World(api, function, JobStore(table, lease_s=60, max_runs=3), table)
    finally:
        gateway.stop()
        function.stop()


@pytest.fixture
def session() -> Iterator[requests.Session]:
    with requests.Session() as session:
        session.trust_env = False
        yield session


def test_a_job_is_streamed_from_a_cold_start_to_its_end(
    world: World, session: requests.Session, record_property: Callable[[str, object], None]
) -> None:
    job = world.submit()
    begun = time.perf_counter()
    watcher = Watcher(session, job["urls"]["events"])
    first = watcher.next()
    record_property("cold_ms", cold_ms := round((time.perf_counter() - begun) * 1000))
    print(f"first event of a container that had to start: {cold_ms} ms")
    assert (watcher.answer.status_code, watcher.answer.headers["content-type"]) == (200, "text/event-stream")
    assert first.data["status"] == "queued"
    worker = Worker(world.jobs, job["id"])
    assert watcher.next().data["status"] == "running"
    worker.half()
    assert watcher.next().data["value"] == 0.5
    assert watcher.next().data["data_base64"] == "AAAA"
    worker.output(0)
    assert watcher.next().data["id"] == "output-0"
    worker.end(0)
    assert [one.data["status"] for one in watcher.rest()] == ["succeeded"]
    assert world.function.problems == [], "prelude and chunks are as the Runtime API wants them"


def test_the_same_container_serves_the_next_watcher(world: World, session: requests.Session) -> None:
    job = world.submit()
    begun = time.perf_counter()
    watcher = Watcher(session, job["urls"]["events"])
    assert watcher.next().data["status"] == "queued"
    print(f"first event of a container that was there: {round((time.perf_counter() - begun) * 1000)} ms")
    Worker(world.jobs, job["id"]).end()
    watcher.rest()
    assert wait_until(lambda: world.function.busy == 0)
    assert len(world.function.names) == 1


def test_a_stream_that_fails_in_the_middle_says_so_in_its_trailers(world: World) -> None:
    job = world.submit()
    path, _, query = job["urls"]["events"].partition("/live")[2].partition("?")
    asked = {"httpMethod": "GET", "path": path, "headers": {}, "queryStringParameters": dict([query.split("=", 1)])}
    running = world.function.invoke(asked)
    assert running.head(timeout_s=PATIENCE_S).status == 200
    assert b"queued" in (running.part(timeout_s=PATIENCE_S) or b"")
    Worker(world.jobs, job["id"])
    item = world.table.get(f"job#{job['id']}", "job")
    assert item is not None
    world.table.put({**item, "progress": "{"})  # what no release of ours writes
    with pytest.raises(FunctionFailed):
        list(iter(lambda: running.part(timeout_s=PATIENCE_S), None))
    assert world.function.problems == []


def test_an_event_that_is_none_of_a_rest_api_fails_alone(world: World, session: requests.Session) -> None:
    with pytest.raises(FunctionFailed):
        world.function.invoke({"Records": []}).head(timeout_s=PATIENCE_S)
    job = world.submit()
    Worker(world.jobs, job["id"]).end()
    assert Watcher(session, job["urls"]["events"]).rest()[-1].data["status"] == "succeeded"
    assert len(world.function.names) == 1, "one bad event does not end the process"


def test_nothing_even_tried_to_write_outside_tmp(world: World) -> None:
    assert "Read-only file system" not in world.function.log
    assert "token=" not in world.function.log
    assert docker("exec", world.function.names[0], "id", "-u") == "993"
