"""Runs of named workflows over HTTP: checked before the queue, and then a job like any other."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import Any

import pytest

from comfy_serverless.jobs.declarations import DeclarationsWriter
from comfy_serverless.jobs.message import JobMessage
from comfy_serverless.settings import Settings
from comfy_serverless.worker.worker import Call, Worker
from comfy_serverless.workflows.version import Version
from tests.unit import editor_samples
from tests.unit.api_world import ASSETS, RESULTS, ApiWorld, api_world
from tests.unit.fakes import FakeEngine, FakeInputs, files_in
from tests.unit.named_world import GRAPH, problems, push, run

ALIAS = "/api/v2/workflows/poster/alias"


@pytest.fixture
def api(monkeypatch: pytest.MonkeyPatch) -> Iterator[ApiWorld]:
    with api_world(monkeypatch) as world:
        yield world


def ran(api: ApiWorld) -> dict[str, Any]:
    """The graph that ComfyUI gets for the job that was sent."""
    (message,) = api.messages()
    job = JobMessage.parse(json.dumps(message))
    assert job is not None
    engine = FakeEngine()
    settings = Settings(output_bucket=RESULTS, assets_bucket=ASSETS)
    worker = Worker(settings=settings, engine=engine, s3=api.s3, inputs=FakeInputs(), named=files_in(None))
    outcome = worker.run(job, Call())
    outcome.release()
    worker.close()
    assert outcome.error is None, outcome.error
    found: dict[str, Any] = engine.runs[-1]["workflow"]
    return found


def move(api: ApiWorld, **body: Any) -> None:
    assert api.request("POST", ALIAS, body={"alias": "live", **body}).status == 200


def test_a_run_is_a_job_like_any_other(api: ApiWorld) -> None:
    push(api)
    answer = run(api, {"color": 77})
    assert answer.status == 201, answer.text
    job = api.request("GET", f"/api/v2/jobs/{answer.json['id']}").json
    assert job["status"] == "queued"
    assert job["metadata"] == {"workflow": "poster", "version": "1"}
    assert ran(api)["1"]["inputs"]["color"] == 77
    page = api.request("GET", "/api/v2/jobs?metadata[workflow]=poster&metadata[version]=1").json
    assert [one["id"] for one in page["jobs"]] == [answer.json["id"]]
    assert api.request("GET", "/api/v2/jobs?metadata[workflow]=other").json["jobs"] == []
    assert api.request("POST", f"/api/v2/jobs/{answer.json['id']}/cancel").json["status"] == "canceled"


def test_texts_with_alternatives_are_rolled_for_each_run_unless_the_caller_sets_them(api: ApiWorld) -> None:
    loader = {
        "input": {"required": {"ckpt_name": [["m.safetensors"], {}]}},
        "input_order": {"required": ["ckpt_name"]},
        "output": ["MODEL", "CLIP", "VAE"],
        "name": "CheckpointLoaderSimple",
        "display_name": "Load Checkpoint",
    }
    DeclarationsWriter(api.s3, ASSETS, "nodes").write({**editor_samples.OBJECT_INFO, "CheckpointLoaderSimple": loader})
    pushed = api.request(
        "PUT", "/api/v2/workflows/poster", body={"workflow": editor_samples.rolling(), "inputs": {"prompt": "2.text"}}
    )
    assert pushed.status == 201, pushed.text
    texts = set()
    for _ in range(12):
        assert run(api).status == 201
        texts |= {node["inputs"]["text"] for node in ran(api).values() if "text" in node["inputs"]}
    assert len(texts) > 3
    assert all(re.fullmatch("a (red|green|blue|white|black) (fox|cat|owl|hen|eel)", each) for each in texts)
    assert run(api, {"prompt": "a {b|c}"}).status == 201
    assert "a {b|c}" in {node["inputs"].get("text") for node in ran(api).values()}


def test_what_is_not_given_stays_as_the_author_left_it(api: ApiWorld) -> None:
    push(api)
    assert run(api).status == 201
    assert ran(api)["1"]["inputs"] == GRAPH["1"]["inputs"]


@pytest.mark.parametrize("body", [{"color": None}, {"inputs": {"color": None}}], ids=["flat", "beside options"])
def test_null_leaves_an_input_as_the_version_has_it_as_at_every_door(api: ApiWorld, body: dict[str, object]) -> None:
    """Writers of JSON in C#, Java and Go put null where nothing is given, and so do agents."""
    push(api)
    answer = run(api, body)
    assert answer.status == 201, answer.text
    assert ran(api)["1"]["inputs"]["color"] == GRAPH["1"]["inputs"]["color"]


def test_options_stand_beside_the_inputs(api: ApiWorld) -> None:
    push(api)
    body = {
        "inputs": {"color": 5},
        "metadata": {"campaign": "autumn", "number": 3},
        "webhook_url": "https://example.com/hook",
        "extra_data": {"api_key_comfy_org": "k"},
        "deadline_s": "60",
    }
    answer = run(api, body)
    assert answer.status == 201, answer.text
    labels = {"campaign": "autumn", "number": "3", "workflow": "poster", "version": "1"}
    assert api.request("GET", f"/api/v2/jobs/{answer.json['id']}").json["metadata"] == labels
    (message,) = api.messages()
    assert message["extra_data"] == {"api_key_comfy_org": "k"}
    assert message["content"]["request"]["deadline_s"] == 60


def test_a_caller_cannot_say_that_another_workflow_ran(api: ApiWorld) -> None:
    push(api)
    answer = run(api, {"inputs": {}, "metadata": {"workflow": "bank", "version": "9", "mine": "1"}})
    assert answer.status == 201
    job = api.request("GET", f"/api/v2/jobs/{answer.json['id']}").json
    assert job["metadata"] == {"workflow": "poster", "version": "1", "mine": "1"}


def test_a_version_or_an_alias_is_chosen_in_the_query(api: ApiWorld) -> None:
    push(api)
    push(api, description="second", alias="staging")
    for query, version in (
        ("", "1"),
        ("alias=staging", "2"),
        ("version=2", "2"),
        ("version=1", "1"),
        ("alias=live", "1"),
    ):
        job = run(api, query=query).json["id"]
        assert api.request("GET", f"/api/v2/jobs/{job}").json["metadata"]["version"] == version
    for query in ("alias=stagin", "version=9", "version=0"):
        assert run(api, query=query).status == 404
    hinted = run(api, name="poster@staging")
    assert (hinted.status, "?alias=staging" in hinted.json["error"]["message"]) == (404, True)


def test_the_same_key_is_the_same_job_wherever_its_alias_has_moved(api: ApiWorld) -> None:
    push(api)
    first = run(api, {"color": 5}, headers={"idempotency-key": "k1"})
    push(api, description="second", inputs={"other": "1.width"}, alias="live")
    again = run(api, {"color": 5}, headers={"idempotency-key": "k1"})
    assert (first.status, again.status) == (201, 200)
    assert again.json["id"] == first.json["id"]
    assert api.request("GET", f"/api/v2/jobs/{again.json['id']}").json["metadata"]["version"] == "1"
    assert len(api.messages()) == 1
    api.request("DELETE", "/api/v2/workflows/poster")
    assert run(api, {"color": 5}, headers={"idempotency-key": "k1"}).json["id"] == first.json["id"]


def test_a_key_is_of_one_request_and_of_one_owner(api: ApiWorld) -> None:
    push(api)
    push(api, owner="other")
    key = {"idempotency-key": "k1"}
    first = run(api, {"color": 5}, headers=key).json["id"]
    for body, query in (
        ({"color": 6}, ""),
        ({"inputs": {"color": 5}, "metadata": {"a": "b"}}, ""),
        ({"color": 5}, "version=1"),
    ):
        refused = run(api, body, query=query, headers=key)
        assert (refused.status, refused.code) == (422, "idempotency_key_reuse")
    theirs = run(api, {"color": 5}, headers=key, owner="other")
    assert (theirs.status, theirs.json["id"] != first) == (201, True)
    graph = api.request("POST", "/api/v2/jobs", body={"workflow": GRAPH}, headers=key)
    assert graph.code == "idempotency_key_reuse"
    assert run(api, headers={"idempotency-key": "x" * 300}).status == 422


def test_a_key_answers_no_request_that_cannot_be(api: ApiWorld) -> None:
    push(api)
    key = {"idempotency-key": "k1"}
    assert run(api, {"inputs": {"color": 5}}, headers=key).status == 201
    assert problems(run(api, {"inputs": {"color": 5}, "metadata": 7}, headers=key)).keys() == {"metadata"}


def test_a_key_of_a_refused_run_can_be_used_again(api: ApiWorld) -> None:
    push(api)
    key = {"idempotency-key": "k1"}
    assert run(api, {"colour": 5}, headers=key).status == 422
    assert run(api, {"color": 5}, headers=key).status == 201


def test_two_versions_share_the_runs_and_a_sticky_key_stays(api: ApiWorld) -> None:
    push(api)
    push(api, description="second")
    move(api, weights={"1": 50, "2": 50})

    def version(**options: Any) -> str:
        job = run(api, **options).json["id"]
        return str(api.request("GET", f"/api/v2/jobs/{job}").json["metadata"]["version"])

    assert {version() for _ in range(20)} == {"1", "2"}
    for customer in ("ann", "bob", "cid"):
        assert len({version(query=f"sticky={customer}") for _ in range(4)}) == 1
    assert {version(query=f"sticky=customer-{number}") for number in range(20)} == {"1", "2"}


def test_wait_s_waits_for_the_end_as_generate_does(api: ApiWorld) -> None:
    push(api)
    waiting = run(api, query="wait_s=0.05")
    assert (waiting.status, waiting.json["status"]) == (202, "queued")
    assert run(api, query="wait_s=0").status == 201


def test_the_limits_of_a_key_hold(api: ApiWorld) -> None:
    push(api)
    key = {"max_in_flight": "1"}
    assert run(api, key=key).status == 201
    full = run(api, key=key)
    assert (full.status, full.code) == (429, "queue_full")
    assert full.headers["retry-after"]
    limited = {"key_id": "slow", "requests_per_minute": "1"}
    assert {run(api, key=limited).status for _ in range(4)} >= {429}


def test_a_webhook_and_its_secret_are_checked_as_for_any_job(api: ApiWorld) -> None:
    push(api)
    assert run(api, {"inputs": {}, "webhook_url": "http://127.0.0.1/"}).status == 422
    assert run(api, {"inputs": {}, "webhook_secret": "whsec_x"}).status == 422


def test_a_file_of_anothers_is_no_input(api: ApiWorld) -> None:
    graph = {**GRAPH, "3": {"class_type": "LoadImage", "inputs": {"image": "fox.png"}}}
    push(api, workflow=graph, inputs={"photo": "3.image"})
    theirs = f"s3://{RESULTS}/owners/other/1/9/a.png"
    assert run(api, {"photo": theirs}).code == "missing_asset"
    assert run(api, {"photo": "https://example.com/a.png"}).status == 201
    (message,) = api.messages()
    assert message["content"]["request"]["inputs"] == {"3.image": "https://example.com/a.png"}


def test_the_operators_workflow_runs_as_the_callers(api: ApiWorld) -> None:
    api.services.workflows.push(Version(name="poster", number=0, owner="", graph=GRAPH))
    api.services.workflows.share("poster")
    job = run(api).json["id"]
    (message,) = api.messages()
    assert message["owner"] == "team"
    assert message["content"]["request"]["output"]["prefix"] == "owners/team"
    assert api.request("GET", f"/api/v2/jobs/{job}", owner="other").status == 404


def test_the_workflow_behind_a_run_can_be_seen(api: ApiWorld) -> None:
    push(api)
    job = run(api, {"color": 5}).json["id"]
    shown = api.request("GET", f"/api/v2/jobs/{job}/workflow").json
    assert shown["format"] == "api"
    assert shown["workflow"]["1"]["inputs"]["color"] == 5
