"""Live events over the table: who may watch what, what is sent, how many reads it costs, and how a stream ends."""

from __future__ import annotations

import itertools
import json
from collections.abc import Iterator
from typing import Any

import pytest
from botocore.exceptions import ClientError

from comfy_serverless.api.live import (
    BURST,
    LIST_READS_A_MINUTE,
    QUIET_LIST_PAUSE_S,
    READS_A_MINUTE,
    READS_A_SECOND,
)
from comfy_serverless.api.watching import ENDS, KEEP_ALIVE, KEEP_ALIVE_S, PATIENCE_S
from comfy_serverless.jobs.document import Job, JobStatus, JobUrls, Progress
from tests.unit.api_world import ApiWorld, api_world
from tests.unit.event_world import CONSOLE, URL, EventWorld, body, frames, output, parts
from tests.unit.fakes import WORKFLOW

READS = ("GetItem", "BatchGetItem", "Query")


@pytest.fixture
def api(monkeypatch: pytest.MonkeyPatch) -> Iterator[ApiWorld]:
    with api_world(monkeypatch, events_url=URL) as world:
        yield world


@pytest.fixture
def events(api: ApiWorld) -> EventWorld:
    return EventWorld(api, cors_origins=("https://app.example",))


def submit(api: ApiWorld, owner: str = "team") -> Any:
    return api.request("POST", "/api/v2/jobs", body={"workflow": WORKFLOW}, owner=owner).json


class Worker:
    """Runs a job in the table."""

    def __init__(self, api: ApiWorld, job_id: str) -> None:
        self.jobs, self.job_id = api.services.jobs, job_id
        state = self.jobs.begin(job_id, run="run").state
        assert state is not None
        self.state = state

    def progress(self, value: float) -> None:
        told = Progress(value=value, nodes_done=1, nodes_total=2)
        self.jobs.report(self.job_id, run="run", progress=told)

    def preview(self, text: str) -> None:
        self.jobs.put_preview(self.job_id, node_id="3", content_type="image/jpeg", data_base64=text)

    def output(self, place: int) -> None:
        self.jobs.put_outputs(self.state, [(place, output(place))], run="run")

    def end(self, *places: int) -> None:
        moment = self.state.created_at
        job = Job.model_validate(
            {
                "id": self.job_id,
                "status": JobStatus.SUCCEEDED,
                "created_at": moment,
                "completed_at": moment,
                "expires_at": moment,
                "urls": JobUrls.of(self.job_id),
                "outputs": [output(place) for place in places],
            }
        )
        assert self.jobs.finish(self.job_id, job, run="run", webhook=False, places=places)


# A stream, from the first frame to the end.


def test_a_link_of_a_job_follows_it_to_its_end(api: ApiWorld, events: EventWorld) -> None:
    job = submit(api)
    link = job["urls"]["events"]
    assert link.startswith(f"{URL}/api/v2/jobs/{job['id']}/events?token=")
    worker: list[Worker] = []

    def happens(pause: int) -> None:
        match pause:
            case 3:
                worker.append(Worker(api, job["id"]))
            case 5:
                worker[0].progress(0.5)
                worker[0].preview("AAAA")
            case 7:
                worker[0].output(0)
            case 9:
                worker[0].output(1)
                worker[0].end(0, 1)

    events.clock.happens = happens
    answer = events.open(link)
    assert (answer.status, answer.headers["content-type"]) == (200, "text/event-stream")
    text = body(answer)
    assert [(one.event, one.data.get("status")) for one in frames(text)] == [
        ("status", "queued"),
        ("status", "running"),
        ("progress", None),
        ("preview", None),
        ("output", None),
        ("output", None),
        ("status", "succeeded"),
    ]
    assert text.startswith("retry: 1000\n\n")
    assert ENDS not in text
    assert frames(text)[4].data["url"].startswith("https://")


def test_a_key_is_as_good_as_a_link(api: ApiWorld, events: EventWorld) -> None:
    text = api.services.keys.create("ci", owner="team").text
    job_id = submit(api)["id"]
    Worker(api, job_id).end()
    answer = events.open(f"/api/v2/jobs/{job_id}/events", authorization=f"Bearer {text}")
    assert [one.data["status"] for one in frames(body(answer))] == ["succeeded"]


def test_a_key_may_send_so_many_requests_a_minute_here_too(api: ApiWorld, events: EventWorld) -> None:
    text = api.services.keys.create("ci", owner="team", requests_per_minute=1).text
    answers = [events.open("/api/v2/events", authorization=f"Bearer {text}").status for _ in range(3)]
    assert set(answers[1:]) <= {200, 429}
    assert 429 in answers


def test_whoever_comes_back_after_the_end_is_told_to_stay_away(api: ApiWorld, events: EventWorld) -> None:
    job = submit(api)
    Worker(api, job["id"]).end()
    (last,) = frames(body(events.open(job["urls"]["events"])))
    answer = events.open(job["urls"]["events"], last_event_id=last.id or "")
    assert (answer.status, body(answer)) == (204, ""), "what ends a browser's stream for good"


def test_a_stream_that_breaks_goes_on_where_it_was(api: ApiWorld, events: EventWorld) -> None:
    job = submit(api)
    worker = Worker(api, job["id"])
    worker.output(0)
    stream = parts(events.open(job["urls"]["events"]))
    first = frames(next(stream))
    worker.output(1)
    worker.progress(0.5)
    worker.output(2)
    worker.end(0, 1, 2)
    rest = frames(body(events.open(job["urls"]["events"], last_event_id=first[-1].id or "")))
    assert [one.event for one in first] == ["status", "output"]
    assert [one.data.get("id", one.data.get("status")) for one in rest if one.event != "progress"] == [
        "output-1",
        "output-2",
        "succeeded",
    ]


def test_a_stream_ends_by_itself_before_lambda_ends_it(api: ApiWorld, events: EventWorld) -> None:
    job = submit(api)
    Worker(api, job["id"])
    text = body(events.open(job["urls"]["events"], until_s=840.0))
    assert text.endswith(ENDS)
    assert 800 < events.clock.now < 840
    assert KEEP_ALIVE in text


def test_something_is_always_sent_within_the_idle_limits(api: ApiWorld, events: EventWorld) -> None:
    job = submit(api)
    sent = [0.0]
    for _ in events.open(job["urls"]["events"], until_s=300.0).body:
        sent.append(events.clock.now)
    gaps = [later - earlier for earlier, later in itertools.pairwise(sent)]
    assert max(gaps) < KEEP_ALIVE_S + 5 < 30, "edge-optimised APIs end a stream that is idle for 30 s"


# What it costs.


@pytest.mark.parametrize("what", ["job", "list"])
def test_a_watcher_that_has_left_costs_two_keep_alives_and_what_is_read_until_then(
    api: ApiWorld, events: EventWorld, what: str
) -> None:
    """The first of them may still be taken by the network, and the second is refused (`handlers.runtime_api`)."""
    job = submit(api)
    stream = parts(events.open(job["urls"]["events"] if what == "job" else list_link(api, "team"), until_s=840.0))
    next(stream)
    left = events.clock.now
    api.calls.clear()
    assert [next(stream), next(stream)] == [KEEP_ALIVE, KEEP_ALIVE]
    took = events.clock.now - left
    assert took < 2 * (KEEP_ALIVE_S + QUIET_LIST_PAUSE_S)
    assert 0 < sum(api.calls[name] for name in READS) <= BURST + took * READS_A_SECOND


@pytest.mark.parametrize("begun", [False, True])
def test_a_watcher_of_a_job_makes_no_more_reads_than_are_promised(
    api: ApiWorld, events: EventWorld, begun: bool
) -> None:
    """Previews are read with the job."""
    job = submit(api)
    worker = Worker(api, job["id"]) if begun else None

    def happens(number: int) -> None:
        if worker:
            worker.progress(number / 1000)
            worker.preview(f"AAA{number % 10}")

    events.clock.happens = happens
    api.calls.clear()
    body(events.open(job["urls"]["events"], until_s=60.0))
    reads = sum(api.calls[name] for name in READS)
    assert reads <= READS_A_MINUTE + 1, "one more for the key of the link"
    assert api.calls["Query"] == reads - api.calls["GetItem"]


def test_a_job_that_has_waited_for_a_minute_is_read_twenty_times_in_the_next(api: ApiWorld, events: EventWorld) -> None:
    job = submit(api)
    events.clock.happens = lambda _: api.calls.clear() if events.clock.now < 60 else None
    body(events.open(job["urls"]["events"], until_s=120.0))
    assert 19 <= api.calls["Query"] <= 21


def test_a_watcher_of_a_hundred_jobs_makes_two_reads_a_look(api: ApiWorld, events: EventWorld) -> None:
    link = list_link(api, "team")
    for _ in range(12):
        submit(api)
    worker = Worker(api, submit(api)["id"])
    events.clock.happens = lambda number: worker.progress(number / 1000)
    api.calls.clear()
    text = body(events.open(link, until_s=60.0))
    assert sum(api.calls[name] for name in READS) <= LIST_READS_A_MINUTE + 1
    assert api.calls["BatchGetItem"] == api.calls["Query"] >= 29
    sent = frames(text)
    assert len(sent) == 13 + len(events.clock.pauses), "all of them once, and then the one that moves"
    assert {one.data["id"] for one in sent[13:]} == {worker.job_id}


def list_link(api: ApiWorld, owner: str) -> str:
    assert api.services.event_links is not None
    return api.services.event_links.of_list(owner)


def test_of_a_list_in_which_nothing_changes_nothing_is_sent_and_no_job_is_read(
    api: ApiWorld, events: EventWorld
) -> None:
    submit(api)
    stream = parts(events.open(list_link(api, "team"), until_s=9000.0))
    assert [one.event for one in frames(next(stream))] == ["job"]
    api.calls.clear()
    assert next(stream) == KEEP_ALIVE
    assert api.calls.keys() == {"Query"}


# Lists.


def test_a_list_tells_of_new_jobs_of_their_states_and_of_their_outputs(api: ApiWorld, events: EventWorld) -> None:
    stream = parts(events.open(list_link(api, "team"), until_s=9000.0))
    assert frames(next(stream)) == []
    job_id = submit(api)["id"]
    (queued,) = frames(next(stream))
    worker = Worker(api, job_id)
    worker.progress(0.5)
    (running,) = frames(next(stream))
    worker.output(0)
    worker.end(0)
    (ended,) = frames(next(stream))
    assert [one.data["status"] for one in (queued, running, ended)] == ["queued", "running", "succeeded"]
    assert running.data["progress"]["value"] == 0.5
    assert ended.data["outputs"][0]["url"].startswith("https://")
    assert ended.data == api.request("GET", "/api/v2/jobs?expand=outputs,progress,error").json["jobs"][0] | {
        "outputs": ended.data["outputs"]
    }


def test_a_list_that_breaks_goes_on_where_it_was(api: ApiWorld, events: EventWorld) -> None:
    ids = [submit(api)["id"] for _ in range(5)]
    link = list_link(api, "team")
    first = frames(next(parts(events.open(link))))
    assert {one.data["id"] for one in first} == set(ids)
    Worker(api, ids[2]).progress(0.1)
    again = frames(next(parts(events.open(link, last_event_id=first[-1].id or ""))))
    assert [one.data["id"] for one in again] == [ids[2]]
    stream = parts(events.open(link, last_event_id=again[-1].id or ""))
    assert next(stream) == "retry: 1000\n\n"


# Who may watch.


def test_owners_see_nothing_of_each_other(api: ApiWorld, events: EventWorld) -> None:
    mine, theirs = submit(api), submit(api, owner="others")
    key = api.services.keys.create("ci", owner="team").text
    assert events.open(f"/api/v2/jobs/{theirs['id']}/events", authorization=f"Bearer {key}").status == 404
    (seen,) = frames(next(parts(events.open("/api/v2/events", authorization=f"Bearer {key}"))))
    assert seen.data["id"] == mine["id"]
    missing = events.open("/api/v2/jobs/no-such-job/events", authorization=f"Bearer {key}")
    refused = events.open(f"/api/v2/jobs/{theirs['id']}/events", authorization=f"Bearer {key}")
    assert body(missing).replace("no-such-job", "X") == body(refused).replace(theirs["id"], "X")


def test_a_link_is_for_its_own_address(api: ApiWorld, events: EventWorld) -> None:
    mine, other, theirs = submit(api), submit(api), submit(api, owner="others")
    token = mine["urls"]["events"].partition("?")[2]
    for path in (
        f"/api/v2/jobs/{other['id']}/events",
        f"/api/v2/jobs/{theirs['id']}/events",
        "/api/v2/jobs/no-such-job/events",
        "/api/v2/events",
    ):
        answer = events.open(f"{path}?{token}")
        told = json.loads(body(answer))["error"]
        assert (answer.status, told["code"]) == (401, "unauthorized")
    listed = list_link(api, "team").partition("?")[2]
    assert events.open(f"/api/v2/jobs/{mine['id']}/events?{listed}").status == 401


def test_without_a_link_or_a_key_there_is_the_contracts_refusal(api: ApiWorld, events: EventWorld) -> None:
    job = submit(api)
    wrong: tuple[dict[str, Any], ...] = ({}, {"authorization": "Bearer nothing"}, {"authorization": "Basic x"})
    for headers in wrong:
        answer = events.open(f"/api/v2/jobs/{job['id']}/events", **headers)
        assert (answer.status, json.loads(body(answer))["error"]["code"]) == (401, "unauthorized")
        assert answer.headers["www-authenticate"] == "Bearer"


def test_only_events_are_there(events: EventWorld) -> None:
    for method, path in (("GET", "/api/v2/jobs"), ("POST", "/api/v2/events"), ("GET", "/api/v2/jobs/a/b/events")):
        assert events.open(path, method=method).status == 404


@pytest.mark.parametrize("is_signed", [True, False])
@pytest.mark.parametrize("path", ["/api/v2/events", "/api/v2/jobs/{id}/events"])
def test_a_parameter_that_streams_do_not_have_is_refused_as_by_every_route(
    api: ApiWorld, events: EventWorld, path: str, is_signed: bool
) -> None:
    job, key = submit(api), api.services.keys.create("ci", owner="team").text
    if is_signed:
        link = list_link(api, "team") if path == "/api/v2/events" else job["urls"]["events"]
        answer = events.open(f"{link}&limit=1")
    else:
        answer = events.open(f"{path.format(id=job['id'])}?limit=1", authorization=f"Bearer {key}")
    error = json.loads(body(answer))["error"]
    assert (answer.status, error["code"]) == (422, "invalid_request")
    assert error["message"].startswith("The request cannot be used: query.limit: is no parameter of this route (")


@pytest.mark.parametrize(
    ("origin", "allowed"),
    [(CONSOLE, True), ("https://app.example", True), ("https://evil.example", False), ("null", False)],
)
def test_pages_of_the_console_and_of_the_settings_may_read(
    api: ApiWorld, events: EventWorld, origin: str, allowed: bool
) -> None:
    job = submit(api)
    for answer in (
        events.open(job["urls"]["events"], origin=origin),
        events.open("/api/v2/events", method="OPTIONS", origin=origin),
        events.open("/api/v2/events", origin=origin),
    ):
        assert (answer.headers.get("access-control-allow-origin") == origin) is allowed
        assert answer.headers["vary"] == "Origin"
    asked = events.open("/api/v2/events", method="OPTIONS", origin=origin)
    assert (asked.status, "Last-Event-ID" in asked.headers.get("access-control-allow-headers", "")) == (204, allowed)


# Faults.


def throttled(*_: Any, **__: Any) -> Any:
    raise ClientError({"Error": {"Code": "ProvisionedThroughputExceededException"}}, "Query")


def test_a_table_that_is_throttled_for_a_while_is_asked_again(
    api: ApiWorld, events: EventWorld, monkeypatch: pytest.MonkeyPatch
) -> None:
    job = submit(api)
    worker = Worker(api, job["id"])
    client, moment = api.services.table._client, [0.0]

    def happens(number: int) -> None:
        if number == 5:
            moment[0] = events.clock.now
            monkeypatch.setattr(client, "query", throttled)
        if moment[0] and events.clock.now > moment[0] + 30:
            monkeypatch.undo()
            worker.jobs.read(job["id"])
            worker.end() if worker.state.run else None
            moment[0] = 0.0

    events.clock.happens = happens
    text = body(events.open(job["urls"]["events"]))
    assert frames(text)[-1].data["status"] == "succeeded"
    assert KEEP_ALIVE in text, "its client does not think that nobody is there"


def test_a_table_that_fails_for_a_minute_ends_the_stream_and_the_client_comes_again(
    api: ApiWorld, events: EventWorld, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    job = submit(api)
    Worker(api, job["id"])
    answer = events.open(job["urls"]["events"])
    monkeypatch.setattr(api.services.table._client, "query", throttled)
    text = body(answer)
    assert text.endswith(ENDS)
    assert PATIENCE_S < events.clock.now < PATIENCE_S + 30
    logged = caplog.text
    assert logged.count("does not answer a watcher") == 1
    assert job["urls"]["events"].partition("token=")[2] not in logged


def test_a_table_that_fails_at_once_is_the_envelope_of_a_failure(
    api: ApiWorld, events: EventWorld, monkeypatch: pytest.MonkeyPatch
) -> None:
    job = submit(api)
    monkeypatch.setattr(api.services.table._client, "query", throttled)
    answer = events.open(job["urls"]["events"])
    assert answer.status >= 500
    assert json.loads(body(answer))["error"]["code"] == "upstream_error"


def test_a_job_that_is_deleted_ends_its_stream(api: ApiWorld, events: EventWorld) -> None:
    job = submit(api)
    stream = parts(events.open(job["urls"]["events"]))
    next(stream)
    api.services.table.delete(f"job#{job['id']}", "job")
    assert list(stream) == []


# The same as snapshots, at the API's own address.


def test_snapshots_tell_what_is_new_to_who_says_what_he_has_seen(api: ApiWorld) -> None:
    job_id = submit(api)["id"]
    path = f"/api/v2/jobs/{job_id}/events"
    (queued,) = frames(api.request("GET", path).text)
    assert api.request("GET", path, headers={"Last-Event-ID": queued.id or ""}).text == ""
    worker = Worker(api, job_id)
    worker.end()
    (ended,) = frames(api.request("GET", path, headers={"Last-Event-ID": queued.id or ""}).text)
    assert ended.data["status"] == "succeeded"
    assert api.request("GET", path, headers={"Last-Event-ID": ended.id or ""}).text == ""


def test_the_list_is_there_as_snapshots_too(api: ApiWorld) -> None:
    ids = {submit(api)["id"], submit(api)["id"]}
    submit(api, owner="others")
    first = frames(api.request("GET", "/api/v2/events").text)
    assert {one.data["id"] for one in first} == ids
    headers = {"Last-Event-ID": first[-1].id or ""}
    assert api.request("GET", "/api/v2/events", headers=headers).text == ""
    api.services.jobs.begin(sorted(ids)[0], run="run")
    assert [one.data["status"] for one in frames(api.request("GET", "/api/v2/events", headers=headers).text)] == [
        "running"
    ]


def test_without_an_address_for_events_jobs_have_the_apis_own(monkeypatch: pytest.MonkeyPatch) -> None:
    with api_world(monkeypatch) as api:
        job = submit(api)
        assert job["urls"]["events"] == f"/api/v2/jobs/{job['id']}/events"


def test_whoever_asks_whose_key_it_is_gets_a_link_to_his_list(api: ApiWorld, events: EventWorld) -> None:
    job, _ = submit(api), submit(api, owner="others")
    link = api.request("GET", "/api/v2/me").json["events_url"]
    assert [one.data["id"] for one in frames(next(parts(events.open(link))))] == [job["id"]]
