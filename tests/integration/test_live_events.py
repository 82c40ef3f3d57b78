"""Live events as on AWS: the function, in its own runtime, behind a REST API that streams; and the official SDK."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any, NamedTuple

import pytest
import requests
from comfy_sdk import Comfy
from comfy_sdk.events import OutputReady, Preview, Progress, StatusChange

from comfy_serverless.aws.dynamodb import Table
from comfy_serverless.cli.following import follow
from comfy_serverless.cli.remote_api import Api
from comfy_serverless.jobs.document import Job, JobStatus, JobUrls
from comfy_serverless.jobs.document import Progress as Told
from comfy_serverless.table.jobs import JobStore
from local.aws.live_events import FUNCTION
from local.aws.rest_gateway import RestGateway
from local.aws.runtime_api import StreamingFunction
from local.aws.template import TABLE, properties_of
from local.dev import DevStack
from tests import typescript
from tests.patience import PATIENCE_S, wait_until
from tests.unit.event_world import Frame, frames, output
from tests.unit.fakes import WORKFLOW

CONSOLE = "https://console.example"
WATCHERS = 2


class World(NamedTuple):
    """The API, which runs no jobs, and what streams its events."""

    stack: DevStack
    function: StreamingFunction
    gateway: RestGateway
    jobs: JobStore
    asked: list[dict[str, Any]]


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    environment: dict[str, str] = {}
    (handler,) = properties_of(FUNCTION)["ImageConfig"]["Command"]
    asked: list[dict[str, Any]] = []

    class Function(StreamingFunction):
        def invoke(self, event: Any) -> Any:
            asked.append(event)
            return super().invoke(event)

    function = Function(handler, environment, concurrency=WATCHERS)
    gateway = RestGateway(function, variables={"console": CONSOLE})
    folder = tmp_path_factory.mktemp("dev")
    with DevStack(log_folder=folder, workers=0, environment={"EVENTS_URL": gateway.url}) as stack:
        environment.update(stack.stack.environment_of(FUNCTION))
        stack.keys.register("another-key", name="others", owner="others")
        gateway.start()
        try:
            yield World(
                stack, function, gateway, JobStore(Table(stack.aws.dynamodb(), TABLE), lease_s=60, max_runs=3), asked
            )
            assert function.problems == [], "its runtime speaks as the Runtime API wants it"
            assert stack.aws.usage().denials == [], "template.yaml allows all that it does"
            assert "token=" not in function.log
        finally:
            gateway.stop()
            function.stop()


@pytest.fixture
def client(world: World, monkeypatch: pytest.MonkeyPatch) -> Iterator[Comfy]:
    for name in ("HTTP_PROXY", "HTTPS_PROXY", "http_proxy", "https_proxy", "ALL_PROXY", "all_proxy"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("COMFY_BASE_URL", world.stack.url)
    monkeypatch.setenv("COMFY_API_KEY", world.stack.api_key)
    with Comfy() as client:
        yield client


@pytest.fixture
def session() -> Iterator[requests.Session]:
    with requests.Session() as session:
        session.trust_env = False
        yield session


def submit(world: World, session: requests.Session, *, key: str = "") -> dict[str, Any]:
    headers = {"Authorization": f"Bearer {key or world.stack.api_key}"}
    answer = session.post(
        f"{world.stack.url}/api/v2/jobs", json={"workflow": WORKFLOW}, headers=headers, timeout=PATIENCE_S
    )
    job: dict[str, Any] = answer.json()
    return job


class Worker:
    """Runs a job in the table."""

    def __init__(self, jobs: JobStore, job_id: str) -> None:
        self.jobs, self.id = jobs, job_id
        state = jobs.begin(job_id, run="run").state
        assert state is not None
        self.state = state

    def half(self) -> None:
        self.jobs.report(self.id, run="run", progress=Told(value=0.5, nodes_done=1, nodes_total=2))
        self.jobs.put_preview(self.id, node_id="3", content_type="image/jpeg", data_base64="AAAA")

    def output(self, place: int) -> None:
        self.jobs.put_outputs(self.state, [(place, output(place, job_id=self.id))], run="run")

    def end(self, *places: int) -> None:
        moment = self.state.created_at
        document = {"id": self.id, "status": JobStatus.SUCCEEDED, "urls": JobUrls.of(self.id)}
        document |= dict.fromkeys(("created_at", "completed_at", "expires_at"), moment)
        job = Job.model_validate({**document, "outputs": [output(place, job_id=self.id) for place in places]})
        assert self.jobs.finish(self.id, job, run="run", webhook=False, places=places)


class Watcher:
    """A client that reads a stream frame by frame."""

    def __init__(self, session: requests.Session, url: str, **headers: str) -> None:
        self.answer = session.get(url, headers=headers, stream=True, timeout=PATIENCE_S)
        self._blocks = self._read()

    def _read(self) -> Iterator[str]:
        block = ""
        for line in self.answer.iter_lines(chunk_size=1, decode_unicode=True):
            block += line + "\n"
            if not line:
                yield block
                block = ""

    def next(self) -> Frame:
        while True:
            found = frames(next(self._blocks))
            if found:
                return found[0]

    def rest(self) -> list[Frame]:
        return [frame for block in self._blocks for frame in frames(block)]


def test_the_official_sdk_follows_a_job_by_its_link(world: World, client: Comfy, session: requests.Session) -> None:
    job = client.jobs.get(submit(world, session)["id"])
    seen: list[Any] = []
    worker: Worker | None = None
    for event in job.events():
        seen.append(event)
        match event:
            case StatusChange(status="queued"):
                worker = Worker(world.jobs, job.id)
                worker.half()
            case Preview():
                assert worker is not None
                worker.output(0)
            case OutputReady():
                assert worker is not None
                worker.end(0)
    assert [type(event) for event in seen] == [StatusChange, StatusChange, Progress, Preview, OutputReady, StatusChange]
    assert [event.status for event in seen if isinstance(event, StatusChange)] == ["queued", "running", "succeeded"]
    (asked,) = (event for event in world.asked if job.id in event["path"])
    assert "authorization" not in {name.lower() for name in asked["headers"]}, "the SDK keeps it for its own origin"
    assert asked["queryStringParameters"].keys() == {"token"}


#: Prints each event of a job at once, as one line of JSON.
FOLLOWS = """
import { Comfy } from "@comfyorg/sdk";
const client = new Comfy({ apiKey: process.env.COMFY_API_KEY });
const job = await client.jobs.get(process.env.JOB_ID);
for await (const event of job.events()) {
  const { kind, status, value } = event;
  console.log(JSON.stringify({ kind, status, value, output: event.output?.name }));
}
"""


def test_the_official_sdk_for_typescript_follows_a_job_by_its_link(
    world: World, client: Comfy, session: requests.Session, monkeypatch: pytest.MonkeyPatch
) -> None:
    job_id = submit(world, session)["id"]
    monkeypatch.setenv("JOB_ID", job_id)
    seen: list[dict[str, Any]] = []
    worker: Worker | None = None
    with typescript.started(FOLLOWS) as lines:
        for line in lines:  # what the job does next waits for what its watcher has heard: no snapshot has both
            seen.append(json.loads(line))
            match seen[-1]:
                case {"kind": "statusChange", "status": "queued"}:
                    worker = Worker(world.jobs, job_id)
                    worker.half()
                case {"kind": "preview"}:
                    assert worker is not None
                    worker.output(0)
                case {"kind": "outputReady"}:
                    assert worker is not None
                    worker.end(0)
    told = [event.get("status") or event.get("output") or event.get("value") or event["kind"] for event in seen]
    assert told == ["queued", "running", 0.5, "preview", "0.png", "succeeded"]
    (asked,) = (event for event in world.asked if job_id in event["path"])
    assert "authorization" not in {name.lower() for name in asked["headers"]}, "the SDK keeps it for its own origin"


@pytest.mark.usefixtures("client")
def test_the_command_line_follows_a_job_by_its_link(world: World, session: requests.Session) -> None:
    job_id = submit(world, session)["id"]
    shown: list[tuple[float, str]] = []
    workers: list[Worker] = []

    def show(value: float, words: str) -> None:
        shown.append((value, words))
        if len(shown) == 2:  # the job itself, and what the stream has begun with
            workers.append(Worker(world.jobs, job_id))
            workers[0].half()
        elif (value, words) == (0.5, "running"):
            workers[0].end()

    assert follow(Api.from_environment(), job_id, show)["status"] == "succeeded"
    assert [(value, words.partition(",")[0]) for value, words in shown] == [
        (0.0, "queued"),
        (0.0, "queued"),
        (0.0, "running"),
        (0.5, "running"),
        (0.5, "succeeded"),
    ]
    (asked,) = (event for event in world.asked if job_id in event["path"])
    assert "authorization" not in {name.lower() for name in asked["headers"]}, "a link carries its own right"


def test_a_stream_that_breaks_loses_and_repeats_nothing(world: World, session: requests.Session) -> None:
    job = submit(world, session)
    worker = Worker(world.jobs, job["id"])
    worker.output(0)
    watcher = Watcher(session, job["urls"]["events"])
    assert watcher.answer.headers["content-type"] == "text/event-stream"
    first = [watcher.next(), watcher.next()]
    watcher.answer.close()
    worker.output(1)
    worker.end(0, 1)
    rest = Watcher(session, job["urls"]["events"], **{"Last-Event-ID": first[-1].id or ""}).rest()
    assert [one.data.get("id") or one.data["status"] for one in (*first, *rest)] == [
        "running",
        "output-0",
        "output-1",
        "succeeded",
    ]
    again = session.get(job["urls"]["events"], headers={"Last-Event-ID": rest[-1].id or ""}, timeout=PATIENCE_S)
    assert (again.status_code, again.content) == (204, b"")


def test_a_client_that_has_left_gives_its_place_back(world: World, session: requests.Session) -> None:
    wait_until(lambda: world.function.busy == 0)
    jobs = [submit(world, session) for _ in range(WATCHERS)]
    watchers = [Watcher(session, job["urls"]["events"]) for job in jobs]
    assert [watcher.next().data["status"] for watcher in watchers] == ["queued"] * WATCHERS
    assert world.function.busy == WATCHERS
    refused = session.get(jobs[0]["urls"]["events"], timeout=PATIENCE_S)
    assert refused.status_code == 500, "there is no place for one more"
    for watcher in watchers:
        watcher.answer.close()
    wait_until(lambda: world.function.busy == 0)


def test_the_list_is_live_and_owners_see_nothing_of_each_other(world: World, session: requests.Session) -> None:
    theirs = submit(world, session, key="another-key")
    address = f"{world.gateway.url}/api/v2/events"
    watcher = Watcher(session, address, Authorization="Bearer another-key")
    assert watcher.next().data["id"] == theirs["id"]
    submit(world, session)
    Worker(world.jobs, theirs["id"]).end()
    ended = watcher.next()
    while ended.data["status"] != "succeeded":
        ended = watcher.next()
    assert ended.data["id"] == theirs["id"]
    watcher.answer.close()
    mine = submit(world, session)
    token = mine["urls"]["events"].partition("?")[2]
    for path in (f"/api/v2/jobs/{theirs['id']}/events?{token}", f"/api/v2/events?{token}"):
        refused = session.get(f"{world.gateway.url}{path}", timeout=PATIENCE_S)
        assert (refused.status_code, refused.json()["error"]["code"]) == (401, "unauthorized")
    key = {"Authorization": f"Bearer {world.stack.api_key}"}
    missing = session.get(f"{world.gateway.url}/api/v2/jobs/{theirs['id']}/events", headers=key, timeout=PATIENCE_S)
    assert missing.status_code == 404


def test_the_consoles_page_may_read_it_and_nothing_else_is_there(world: World, session: requests.Session) -> None:
    job = submit(world, session)
    Worker(world.jobs, job["id"]).end()
    answer = session.get(job["urls"]["events"], headers={"Origin": CONSOLE}, timeout=PATIENCE_S)
    assert answer.headers["access-control-allow-origin"] == CONSOLE
    asked = session.options(f"{world.gateway.url}/api/v2/events", headers={"Origin": CONSOLE}, timeout=PATIENCE_S)
    assert (asked.status_code, asked.headers["access-control-allow-origin"]) == (204, CONSOLE)
    assert session.get(f"{world.gateway.url}/api/v2/jobs", timeout=PATIENCE_S).status_code == 403
    assert session.post(f"{world.gateway.url}/api/v2/events", timeout=PATIENCE_S).status_code == 403


def test_make_dev_streams_by_the_same_code_at_the_apis_own_address(world: World, session: requests.Session) -> None:
    job = submit(world, session)
    key = {"Authorization": f"Bearer {world.stack.api_key}"}
    watcher = Watcher(session, f"{world.stack.url}/api/v2/jobs/{job['id']}/events", **key)
    first = watcher.next()
    assert first.data["status"] == "queued"
    worker = Worker(world.jobs, job["id"])
    assert watcher.next().data["status"] == "running"
    worker.end()
    assert [one.data["status"] for one in watcher.rest()] == ["succeeded"]
    newest = Watcher(session, f"{world.stack.url}/api/v2/events", **key)
    assert newest.next().data["id"] == job["id"]
    newest.answer.close()
    refused = session.get(f"{world.stack.url}/api/v2/events", timeout=PATIENCE_S)
    assert (refused.status_code, json.loads(refused.text)["error"]["code"]) == (401, "unauthorized")
