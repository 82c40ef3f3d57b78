"""A job's request runs again as it was asked, whatever door it came through, and with nothing that was kept nowhere."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest

from comfy_serverless.aws.s3 import S3Address
from comfy_serverless.batches.refusals import refuse
from comfy_serverless.errors import InvalidRequest
from comfy_serverless.jobs.message import JobMessage
from comfy_serverless.table.job_state import NewJob
from tests.unit.api.test_usage_route import spend
from tests.unit.api_world import RESULTS
from tests.unit.handlers.test_named_everywhere import poster
from tests.unit.jobs_table import REGION
from tests.unit.named_world import push, run
from tests.unit.owned_batches import ASSETS, GRAPH, LOADS, Batches, batches_world, line

SEEDED: dict[str, Any] = {
    "3": {"class_type": "KSampler", "inputs": {"seed": 42, "steps": 20, "model": ["4", 0]}},
    "4": {"class_type": "EmptyImage", "inputs": {}},
    "5": {"class_type": "KSamplerAdvanced", "inputs": {"noise_seed": ["3", 0], "seed": "7"}},
    "9": {"class_type": "SaveImage", "inputs": {"images": ["3", 0]}},
}
EDITORS = {"nodes": [{"id": 9, "type": "PreviewAny", "inputs": [], "outputs": []}], "links": [], "version": 0.4}


@pytest.fixture
def world(monkeypatch: pytest.MonkeyPatch) -> Iterator[Batches]:
    monkeypatch.setattr("comfy_serverless.api.jobs.ANSWER_RESERVE_S", 1e6)  # nobody waits
    with batches_world(monkeypatch) as world:
        yield world


def generate(world: Batches, body: dict[str, Any], **more: Any) -> str:
    answer = world.request("POST", "/generate", body=body, **more)
    assert answer.status == 202, answer.text
    return str(answer.json["id"])


def again(world: Batches, job_id: str, body: object = None, **more: Any) -> Any:
    return world.request("POST", f"/api/v2/jobs/{job_id}/again", body=body, **more)


def sent(world: Batches, url: str | None = None) -> list[tuple[JobMessage, dict[str, Any]]]:
    """The jobs that were sent, and their requests as workers read them."""
    jobs = [JobMessage.parse(json.dumps(text)) for text in world.messages(url)]
    read = [(job, job.read(s3=world.s3, settings=world.services.settings)) for job in jobs if job is not None]
    return [(job, request.model_dump(mode="json", by_alias=True)) for job, request in read]


def last(world: Batches) -> dict[str, Any]:
    """The request of the job that was sent last, but for its id."""
    request = sent(world)[-1][1]
    del request["job_id"]
    return request


def test_what_was_asked_runs_again_with_all_that_was_set(world: Batches) -> None:
    asset = world.asset("standing.png", b"\x89PNG\r\n\x1a\n")
    asked = {
        "workflow": LOADS,
        "set": {"2.filename_prefix": "mine"},
        "inputs": {"1.image": "standing.png"},
        "metadata": {"campaign": "autumn"},
        "deadline_s": 77.0,
    }
    first = generate(world, asked)
    was = last(world)
    answer = again(world, first)
    assert answer.status == 201, answer.text
    assert answer.json["id"] != first
    assert (answer.json["status"], answer.json["metadata"]) == ("queued", {"campaign": "autumn"})
    assert last(world) == was
    assert was["deadline_s"] == 77.0
    assert asset
    third = again(world, answer.json["id"])
    assert third.status == 201, "and so does what ran again"
    assert last(world) == was
    shown = [world.request("GET", f"/api/v2/jobs/{one}/workflow").json for one in (first, third.json["id"])]
    assert shown[0] == shown[1]


def test_a_job_of_another_owner_is_none(world: Batches) -> None:
    first = generate(world, {"workflow": GRAPH})
    world.messages()
    theirs, none = again(world, first, owner="rivals"), again(world, "no-such-job", owner="rivals")
    assert (theirs.status, none.status) == (404, 404)
    assert theirs.text.replace(first, "ID") == none.text.replace("no-such-job", "ID")
    assert world.messages() == []


def test_nothing_that_may_be_a_key_runs_again_and_no_webhook_is_called(world: Batches) -> None:
    pnginfo: dict[str, Any] = {"workflow": {"nodes": []}}
    asked = {
        "workflow": GRAPH,
        "extra_data": {"api_key_comfy_org": "sk-secret", "extra_pnginfo": pnginfo},
        "webhook_url": "https://hooks.example/x",
        "webhook_secret": "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLjhAaJ4l6e2x",
    }
    first = generate(world, asked, headers={"Idempotency-Key": "once"})
    world.messages()
    answer = again(world, first)
    assert answer.status == 201, "the key of then was used up, and is none of this one's"
    (message,) = world.messages()
    assert "sk-secret" not in json.dumps(message)
    assert message["content"]["extra_data"] == {"extra_pnginfo": pnginfo}
    assert "runs without" in message["content"]["warnings"][0]
    state = world.services.jobs.read_alone(answer.json["id"])
    assert state is not None
    assert state.webhook is None


@pytest.mark.parametrize(
    ("body", "seed", "text"), [(None, 42, "7"), ({}, 42, "7"), ({"seed": "same"}, 42, "7"), ({"seed": "new"}, -1, -1)]
)
def test_seeds_are_as_they_were_asked_or_all_drawn(world: Batches, body: Any, seed: int, text: object) -> None:
    first = generate(world, {"workflow": SEEDED})
    assert again(world, first, body).status == 201
    graph = sent(world)[-1][1]["workflow"]
    assert graph["3"]["inputs"] == {"seed": seed, "steps": 20, "model": ["4", 0]}
    assert graph["5"]["inputs"] == {"noise_seed": ["3", 0], "seed": text}, "a link stays"


@pytest.mark.parametrize("body", [{"seed": "old"}, {"seed": 3}, {"seeds": "new"}, [], "{", {"workflow": {}}])
def test_what_cannot_be_meant_is_refused(world: Batches, body: object) -> None:
    first = generate(world, {"workflow": GRAPH})
    world.messages()
    assert again(world, first, body).status in (400, 422)
    assert world.messages() == []


def test_the_same_idempotency_key_is_the_same_job(world: Batches) -> None:
    first = generate(world, {"workflow": GRAPH})
    one, two = (again(world, first, headers={"Idempotency-Key": "k-1"}) for _ in range(2))
    assert (one.status, two.status) == (201, 200)
    assert one.json["id"] == two.json["id"]
    other = again(world, first, {"seed": "new"}, headers={"Idempotency-Key": "k-1"})
    assert (other.status, other.code) == (422, "idempotency_key_reuse")


def test_a_named_workflow_runs_in_the_version_that_it_ran_in(world: Batches) -> None:
    assert push(world).status == 201
    first = run(world, {"color": 7}).json["id"]
    was = last(world)
    changed = {**GRAPH, "2": {**GRAPH["2"], "inputs": {"images": ["1", 0], "filename_prefix": "newer"}}}
    assert push(world, workflow=changed).status == 201
    answer = again(world, first)
    assert (answer.json["metadata"]["workflow"], answer.json["metadata"]["version"]) == ("poster", "1")
    assert last(world) == was


def test_a_line_of_a_batch_runs_again_with_its_values_and_its_version(world: Batches) -> None:
    assert push(world).status == 201
    lines = [line(5, metadata={"sku": "a"}, job_id="mine"), {"workflow": "poster", "inputs": {"color": 9}}]
    assert world.post({"name": "many", "lines": lines}).status == 201
    world.follow_orders()
    jobs = sent(world, world.urls["batches"])
    assert push(world, workflow={**GRAPH, "7": GRAPH["1"]}).status == 201
    for message, request in jobs:
        answer = again(world, message.job_id)
        assert answer.status == 201, answer.text
        (made,) = sent(world)
        assert made[1] == {**request, "job_id": answer.json["id"]}
        state = world.services.jobs.read_alone(answer.json["id"])
        assert state is not None
        assert state.batches == frozenset()
    assert {request["metadata"].get("version") for _, request in jobs} == {None, "1"}


def test_a_line_that_was_refused_is_judged_again_and_reaches_nothing(world: Batches) -> None:
    secret = world.asset("secret.png", b"theirs", owner="rivals")
    reference = {"__type": "core/ASSET", "info": {"id": secret}}
    theirs = {"workflow": LOADS, "set": {"1.image": reference}}
    stolen = line(1, inputs={"LoadImage.image": f"s3://{ASSETS}/assets/rivals/secret.png"})
    assert world.post({"name": "bad", "lines": [{**theirs, "job_id": "bad-1"}, stolen], "force": True}).status == 201
    world.follow_orders()
    assert world.request("GET", "/api/v2/jobs/bad-1").json["status"] == "failed"
    answer = again(world, "bad-1")
    assert answer.status == 422, answer.text
    assert world.messages() == []


def test_a_request_that_is_gone_says_so(world: Batches) -> None:
    first = generate(world, {"workflow": GRAPH})
    state = world.services.jobs.read_alone(first)
    assert state is not None
    address = S3Address.parse(state.request)
    world.s3.delete_object(Bucket=address.bucket, Key=address.key)
    world.messages()
    answer = again(world, first)
    assert (answer.status, answer.code) == (404, "not_found")
    assert "cannot be run again" in answer.json["error"]["message"]
    assert world.messages() == []


def test_it_counts_as_any_job_of_its_key(world: Batches, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("comfy_serverless.table.usage.KNOWN_S", 0.0)
    first = generate(world, {"workflow": GRAPH})
    full = again(world, first, key={"max_in_flight": "1"})
    assert (full.status, full.code) == (429, "queue_full")
    spend(world)
    warns, refuses = ({"budget_nanousd": "1", "budget_action": what} for what in ("warn", "refuse"))
    answer = again(world, first, key=refuses)
    assert (answer.status, answer.code) == (403, "budget_exceeded")
    warned = again(world, first, key=warns).json["id"]
    world.messages()
    again(world, warned)
    assert "warnings" not in world.messages()[0]["content"], "what was said of the budget then is not said again"


def test_what_only_a_worker_converts_keeps_its_seeds(world: Batches) -> None:
    first = generate(world, {"workflow": EDITORS})
    was = last(world)
    assert again(world, first).status == 201
    assert last(world) == was
    refused = again(world, first, {"seed": "new"})
    assert (refused.status, refused.code) == (422, "invalid_request")
    assert "`set`" in refused.json["error"]["message"]


@pytest.mark.parametrize("is_disguised", [False, True], ids=["plain", "as a request that is stored"])
def test_a_drop_that_was_refused_shows_and_runs_nothing_of_others(world: Batches, is_disguised: bool) -> None:
    world.services.workflows.push(poster())  # the operator's, which he shares with nobody
    asked: dict[str, Any] = {"workflow": "shared/poster@1"}
    names = {"1": {"class_type": "LoadImage", "inputs": {"image": f"s3://{ASSETS}/assets/rivals/secret.png"}}}
    # Who drops a file chooses its bytes: they may look like a request that has been judged, and was stored by us.
    dropped = {"request": {"workflow": {**LOADS, **names}}, **asked} if is_disguised else asked
    world.s3.create_bucket(Bucket="drops", CreateBucketConfiguration={"LocationConstraint": REGION})
    world.s3.put_object(Bucket="drops", Key="jobs/a.json", Body=json.dumps(dropped).encode())
    jobs = world.services.jobs
    job = NewJob(job_id="drop", owner="team", request_uri="s3://drops/jobs/a.json", result_uri=f"s3://{RESULTS}/r.json")
    refuse(job, InvalidRequest("there is no such workflow"), submit=jobs.submit, jobs=jobs, s3=world.s3)
    assert world.request("GET", "/api/v2/jobs/drop").json["status"] == "failed"
    shown = world.request("GET", "/api/v2/jobs/drop/workflow")
    assert (shown.status, shown.code) == (404, "not_found"), shown.text
    answer = again(world, "drop")
    assert answer.status in {404, 422}, answer.text
    assert world.messages() == []
