"""Routes of jobs: what they answer, what they leave behind, and what they refuse."""

from __future__ import annotations

import json
import uuid
from collections import Counter
from collections.abc import Iterator
from typing import Any

import pytest
from botocore.exceptions import EndpointConnectionError

from comfy_serverless.aws.dynamodb import Update
from comfy_serverless.aws.s3 import S3Address
from comfy_serverless.jobs.document import Progress as Snapshot
from comfy_serverless.jobs.message import JobMessage
from comfy_serverless.jobs.request import JobRequest
from comfy_serverless.table.dispatch import Queues
from comfy_serverless.table.job_item import JOB, job_pk
from comfy_serverless.table.webhook_item import Webhook
from tests.unit.api_world import ASSETS, RESULTS, Answer, ApiWorld, api_world
from tests.unit.fakes import WORKFLOW
from tests.unit.table.test_job_store import ended, output


@pytest.fixture
def api(monkeypatch: pytest.MonkeyPatch) -> Iterator[ApiWorld]:
    with api_world(monkeypatch) as world:
        yield world


def submit(api: ApiWorld, **fields: Any) -> Answer:
    headers = {"Idempotency-Key": fields.pop("idempotency_key")} if "idempotency_key" in fields else {}
    owner, key = fields.pop("owner", "team"), fields.pop("key", None)
    return api.request(
        "POST", "/api/v2/jobs", body={"workflow": WORKFLOW, **fields}, headers=headers, owner=owner, key=key
    )


def run(api: ApiWorld, job_id: str, **result: Any) -> None:
    """What a worker does."""
    begun = api.services.jobs.begin(job_id, run="run")
    assert begun.state is not None
    outputs = result.get("outputs", ())
    api.services.jobs.put_outputs(begun.state, list(enumerate(outputs)), run="run")
    places = range(len(outputs))
    assert api.services.jobs.finish(job_id, ended(job_id, **result), run="run", webhook=False, places=places)


def test_a_job_is_submitted_queued_once_and_answered_as_the_contract_has_it(api: ApiWorld) -> None:
    answer = submit(api, metadata={"batch": "7"}, idempotency_key="once")
    assert answer.status == 201
    job = answer.json
    assert (job["status"], job["outputs"], job["error"], job["progress"]) == ("queued", [], None, None)
    assert job["urls"]["self"] == f"/api/v2/jobs/{job['id']}"
    assert job["metadata"] == {"batch": "7"}
    (message,) = api.messages()
    assert message["job"] == job["id"]
    assert "extra_data" not in message
    address = S3Address.parse(message["request"])
    request = json.loads(api.s3.get_object(Bucket=address.bucket, Key=address.key)["Body"].read())["request"]
    assert request["output"] == {"bucket": RESULTS, "prefix": "owners/team"}
    assert api.request("GET", f"/api/v2/jobs/{job['id']}").json == job
    workflow = api.request("GET", f"/api/v2/jobs/{job['id']}/workflow").json
    assert workflow == {"workflow": WORKFLOW, "format": "api"}


def test_reading_a_job_is_one_read_and_submitting_three_writes(api: ApiWorld) -> None:
    before = Counter(api.calls)
    job_id = submit(api, idempotency_key="once").json["id"]
    assert Counter(api.calls) - before == {"TransactWriteItems": 1, "UpdateItem": 1}
    before = Counter(api.calls)
    api.request("GET", f"/api/v2/jobs/{job_id}")
    assert Counter(api.calls) - before == {"Query": 1}


def test_outputs_have_fresh_links(api: ApiWorld) -> None:
    job_id = submit(api).json["id"]
    run(api, job_id, outputs=(output("a.png"),))
    job = api.request("GET", f"/api/v2/jobs/{job_id}").json
    assert (job["status"], job["outputs"][0]["name"]) == ("succeeded", "a.png")
    assert job["outputs"][0]["url"].startswith("https://")
    asset = api.request("GET", f"/api/v2/assets/{job['outputs'][0]['id']}").json
    assert (asset["job_id"], asset["file_path"], asset["hash"]) == (job_id, "a.png", None)
    assert api.request("DELETE", f"/api/v2/assets/{asset['id']}").code == "asset_in_use"


def test_nobody_sees_what_is_another_owners(api: ApiWorld) -> None:
    job_id = submit(api).json["id"]
    for method, path in [("GET", ""), ("GET", "/workflow"), ("GET", "/events"), ("POST", "/cancel")]:
        answer = api.request(method, f"/api/v2/jobs/{job_id}{path}", owner="other")
        assert (answer.status, answer.code) == (404, "not_found")
    assert api.request("GET", "/api/v2/jobs", owner="other").json == {"jobs": []}


def test_a_request_without_a_good_key_is_401(api: ApiWorld) -> None:
    for method, path in [("GET", "/api/v2/jobs"), ("POST", "/api/v2/assets/from-hash"), ("GET", "/api/v2/assets/x")]:
        answer = api.request(method, path, owner="", body={"hash": "blake3:" + "0" * 64} if method == "POST" else None)
        assert (answer.status, answer.code) == (401, "unauthorized")
        assert answer.headers["www-authenticate"] == "Bearer"


def test_health_documentation_and_openapi_need_no_key(api: ApiWorld) -> None:
    assert api.request("GET", "/api/v2/health", owner="").json["status"] == "ok"
    document = api.request("GET", "/openapi.json", owner="").json
    assert {"/api/v2/jobs", "/api/v2/assets", "/generate", "/api/v2/uploads"} <= set(document["paths"])
    assert "openapi.json" in api.request("GET", "/docs", owner="").text


def test_an_idempotency_key_is_refused_the_second_time_and_free_after_a_refusal(api: ApiWorld) -> None:
    assert submit(api, workflow={"1": {"inputs": {}}}, idempotency_key="once").status == 422
    assert submit(api, idempotency_key="once").status == 201
    answer = submit(api, idempotency_key="once")
    assert (answer.status, answer.code) == (422, "idempotency_key_reuse")
    assert len(api.messages()) == 1
    assert submit(api, idempotency_key="x" * 256).code == "invalid_request"


def test_a_job_that_cannot_be_queued_is_not_taken(api: ApiWorld, monkeypatch: pytest.MonkeyPatch) -> None:
    workers = api.services.workers
    assert isinstance(workers, Queues)
    with monkeypatch.context() as patch:
        patch.setattr(workers.jobs, "url", api.job_queue_url + "-gone")
        patch.setattr("comfy_serverless.aws.sqs.JobQueue.depth", lambda _self: 0)
        answer = submit(api, idempotency_key="once")
        assert (answer.status, answer.code) == (500, "upstream_error")
        assert "gone" not in answer.text
    assert api.request("GET", "/api/v2/jobs").json == {"jobs": []}
    assert submit(api, idempotency_key="once").status == 201


def test_a_message_that_was_sent_although_the_answer_was_lost_is_a_job(
    api: ApiWorld, monkeypatch: pytest.MonkeyPatch
) -> None:
    def send(_self: Any, message: JobMessage, **_: Any) -> None:
        api.services.jobs.begin(message.job_id, run="run")
        raise EndpointConnectionError(endpoint_url="https://sqs")

    monkeypatch.setattr("comfy_serverless.table.dispatch.Queues.send", send)
    answer = submit(api, idempotency_key="once")
    assert answer.status == 201
    assert api.request("GET", f"/api/v2/jobs/{answer.json['id']}").json["status"] == "running"


@pytest.mark.parametrize(
    ("body", "code"),
    [
        ("{", "invalid_request"),
        ("[]", "invalid_request"),
        ("", "invalid_request"),
        ({}, "invalid_request"),
        ({"workflow": "name"}, "invalid_request"),
        ({"workflow": WORKFLOW, "inputs": {}}, "invalid_request"),
        ({"workflow": WORKFLOW, "surprise": 1}, "invalid_request"),
        ({"workflow": WORKFLOW, "extra_data": {"other": "x"}}, "invalid_request"),
        ({"workflow": {}}, "invalid_workflow"),
        ({"workflow": {"nodes": [], "links": []}}, "workflow_format_ui"),
        ({"workflow": {"1": {"inputs": {}}}}, "invalid_workflow"),
        ({"workflow": {"1": {"class_type": "X", "inputs": {"a": ["9", 0]}}}}, "invalid_workflow"),
        ({"workflow": WORKFLOW, "metadata": {"a": [1]}}, "metadata_invalid"),
        ({"workflow": WORKFLOW, "metadata": {str(n): "" for n in range(51)}}, "metadata_invalid"),
        ({"workflow": WORKFLOW, "metadata": {"a": "x" * 1025}}, "metadata_invalid"),
        ({"workflow": WORKFLOW, "webhook_url": "http://example.com"}, "invalid_request"),
        ({"workflow": WORKFLOW, "webhook_url": "https://u:p@example.com"}, "invalid_request"),
        ({"workflow": WORKFLOW, "webhook_secret": "whsec_" + "A" * 40}, "invalid_request"),
        ({"workflow": WORKFLOW, "webhook_url": "https://example.com", "webhook_secret": "x"}, "invalid_request"),
    ],
)
def test_bad_input_is_told_with_the_contracts_code_and_leaves_nothing(api: ApiWorld, body: Any, code: str) -> None:
    answer = api.request("POST", "/api/v2/jobs", body=body)
    assert (answer.status, answer.code) == (422, code), answer.text
    assert len(answer.json["error"]["message"]) > 20
    assert api.messages() == []
    assert api.request("GET", "/api/v2/jobs").json == {"jobs": []}


@pytest.mark.parametrize(
    ("query", "code"),
    [
        ("limit=0", "invalid_request"),
        ("limit=101", "invalid_request"),
        ("limit=x", "invalid_request"),
        ("cursor=forged", "invalid_cursor"),
        ("cursor=" + "A" * 5000, "invalid_cursor"),
        ("cursor=", "invalid_cursor"),
        ("status=asleep", "invalid_request"),
        ("metadata[]=x", "invalid_metadata_filter"),
        ("metadata[a]=" + "x" * 1025, "invalid_metadata_filter"),
    ],
)
def test_a_list_that_cannot_be_is_refused(api: ApiWorld, query: str, code: str) -> None:
    answer = api.request("GET", f"/api/v2/jobs?{query}")
    assert (answer.status, answer.code) == (422, code), answer.text


def test_jobs_are_listed_in_pages_and_by_label(api: ApiWorld) -> None:
    ids = [submit(api, metadata={"even": str(number % 2)}).json["id"] for number in range(5)]
    page = api.request("GET", "/api/v2/jobs?limit=2").json
    seen = [job["id"] for job in page["jobs"]]
    while "next_cursor" in page:
        page = api.request("GET", f"/api/v2/jobs?limit=2&cursor={page['next_cursor']}").json
        seen += [job["id"] for job in page["jobs"]]
    assert sorted(seen) == sorted(ids)
    assert len(api.request("GET", "/api/v2/jobs?metadata[even]=1").json["jobs"]) == 2
    assert api.request("GET", "/api/v2/jobs?metadata%5Beven%5D=7").json == {"jobs": []}


def test_a_job_is_canceled_once_and_again(api: ApiWorld) -> None:
    job_id = submit(api).json["id"]
    for _ in range(2):
        answer = api.request("POST", f"/api/v2/jobs/{job_id}/cancel")
        assert (answer.status, answer.json["status"]) == (200, "canceled")
    running = submit(api).json["id"]
    api.services.jobs.begin(running, run="run")
    for _ in range(2):
        assert api.request("POST", f"/api/v2/jobs/{running}/cancel").json["status"] == "canceling"
    done = submit(api).json["id"]
    run(api, done)
    assert api.request("POST", f"/api/v2/jobs/{done}/cancel").json["status"] == "succeeded"


def test_what_does_not_exist_is_404(api: ApiWorld) -> None:
    for path in ("/api/v2/jobs/unheard-of", "/api/v2/jobs/%2e%2e", "/api/v2/nothing", f"/api/v2/jobs/{'x' * 300}"):
        answer = api.request("GET", path)
        assert (answer.status, answer.code) == (404, "not_found")


def events(api: ApiWorld, job_id: str) -> list[tuple[str, Any]]:
    answer = api.request("GET", f"/api/v2/jobs/{job_id}/events")
    assert answer.headers["content-type"] == "text/event-stream"
    frames = [frame.split("\n") for frame in answer.text.strip().split("\n\n")]
    return [(frame[0].removeprefix("event: "), json.loads(frame[1].removeprefix("data: "))) for frame in frames]


def test_events_are_a_snapshot_with_outputs_before_the_end(api: ApiWorld) -> None:
    job_id = submit(api).json["id"]
    assert events(api, job_id) == [("status", {"status": "queued", "queue_position": None})]
    begun = api.services.jobs.begin(job_id, run="run")
    assert begun.state is not None
    api.services.jobs.report(job_id, run="run", progress=Snapshot(value=0.5, nodes_done=1, nodes_total=2))
    api.services.jobs.put_preview(job_id, node_id="3", content_type="image/jpeg", data_base64="AAAA")
    api.services.jobs.put_outputs(begun.state, [(0, output("a.png"))], run="run")
    seen = events(api, job_id)
    assert [kind for kind, _ in seen] == ["status", "progress", "preview", "output"]
    assert seen[2][1] == {"node_id": "3", "content_type": "image/jpeg", "data_base64": "AAAA"}
    api.services.jobs.finish(job_id, ended(job_id, outputs=(output("a.png"),)), run="run", webhook=False, places=[0])
    seen = events(api, job_id)
    assert [kind for kind, _ in seen] == ["output", "status"]
    assert seen[0][1]["url"].startswith("https://")
    assert seen[1][1]["status"] == "succeeded"


def test_a_full_queue_and_a_busy_key_are_429_with_a_time_to_wait(monkeypatch: pytest.MonkeyPatch) -> None:
    with api_world(monkeypatch, max_queued_jobs=2) as api:
        assert submit(api, key={"max_in_flight": "1"}).status == 201
        answer = submit(api, key={"max_in_flight": "1"})
        assert (answer.status, answer.code, answer.headers["retry-after"]) == (429, "queue_full", "10")
        assert submit(api).status == 201
        monkeypatch.setattr("comfy_serverless.aws.sqs.DEPTH_KNOWN_S", 0.0)
        assert submit(api).code == "queue_full"
        statuses = [api.request("GET", "/api/v2/jobs", key={"requests_per_minute": "3"}).status for _ in range(5)]
        assert sorted(statuses)[:3] == [200, 200, 200]
        assert 429 in statuses


def test_a_key_for_partner_nodes_goes_into_the_message_and_nowhere_else(api: ApiWorld) -> None:
    job_id = submit(api, extra_data={"api_key_comfy_org": "very-secret"}).json["id"]
    (message,) = api.messages()
    assert message["extra_data"] == {"api_key_comfy_org": "very-secret"}
    address = S3Address.parse(message["request"])
    assert b"very-secret" not in api.s3.get_object(Bucket=address.bucket, Key=address.key)["Body"].read()
    assert "very-secret" not in str(api.services.jobs.read(job_id))
    assert "very-secret" not in api.request("GET", f"/api/v2/jobs/{job_id}").text


def test_a_job_whose_worker_vanished_is_looked_after_by_whoever_reads_it(api: ApiWorld) -> None:
    job_id = submit(api).json["id"]
    api.messages()
    api.services.jobs.begin(job_id, run="run")
    item = api.services.table.get(f"job#{job_id}", "job")
    assert item is not None
    api.services.table.put({**item, "lease_until": 1})
    assert api.request("GET", f"/api/v2/jobs/{job_id}").json["status"] == "running"
    assert [message["job"] for message in api.messages()] == [job_id]
    api.services.table.put({**item, "lease_until": 1, "runs": 3})
    job = api.request("GET", f"/api/v2/jobs/{job_id}").json
    assert (job["status"], job["error"]["code"]) == ("failed", "engine_crashed")


def test_a_webhook_is_kept_and_never_told(api: ApiWorld) -> None:
    secret = "whsec_" + "A" * 40
    answer = submit(api, webhook_url="https://example.com/hook", webhook_secret=secret)
    assert answer.status == 201
    assert secret not in answer.text
    state = api.services.jobs.read(answer.json["id"])
    assert state is not None
    assert state.webhook == {}, "workers may read a job's item"
    assert api.services.jobs.webhook_of(state) == Webhook(url="https://example.com/hook", secret=secret)
    api.request("POST", f"/api/v2/jobs/{answer.json['id']}/cancel")
    assert api.messages(api.webhook_queue_url) == [{"job": answer.json["id"]}]


def generate(api: ApiWorld, owner: str = "team", **fields: Any) -> Answer:
    return api.request("POST", "/generate", body={"workflow": WORKFLOW, "wait_s": 0, **fields}, owner=owner)


def test_generate_answers_the_finished_job_or_the_one_to_poll(api: ApiWorld, monkeypatch: pytest.MonkeyPatch) -> None:
    answer = generate(api, job_id="poster", set={"3.steps": 5})
    assert (answer.status, answer.json["status"]) == (202, "queued")
    workflow = api.request("GET", "/api/v2/jobs/poster/workflow").json["workflow"]
    assert workflow["3"]["inputs"]["steps"] == 5
    monkeypatch.setattr("comfy_serverless.api.jobs.time.sleep", lambda _s: run(api, "poster"))
    answer = generate(api, job_id="poster", wait_s=5)
    assert (answer.status, answer.json["status"]) == (200, "succeeded")
    assert len(api.messages()) == 1, "the same job_id never runs twice"
    assert generate(api, owner="other", job_id="poster").code == "forbidden"


def test_generate_tells_whoever_sends_another_request_under_a_used_job_id(api: ApiWorld) -> None:
    generate(api, job_id="poster", set={"3.steps": 5})
    (message,) = api.messages()
    digest = JobRequest.stored(message["content"]["request"]).digest()
    begun = api.services.jobs.begin("poster", run="run")
    assert begun.state is not None
    outcome = ended("poster").model_copy(update={"request_sha256": digest})
    assert api.services.jobs.finish("poster", outcome, run="run", webhook=False, places=range(0))
    assert generate(api, job_id="poster", set={"3.steps": 5}, metadata={"of": "today"}).json["warnings"] == [
        "one thing"
    ]
    told, _ = generate(api, job_id="poster", set={"3.steps": 6}).json["warnings"]
    assert "has been used for another request" in told
    assert api.messages() == []


def test_generate_tells_it_at_once_while_the_job_waits_or_runs_and_once_it_has_ended(api: ApiWorld) -> None:
    generate(api, job_id="poster", set={"3.steps": 5})
    for status in (202, 202, 200):
        same = generate(api, job_id="poster", set={"3.steps": 5}, metadata={"of": "today"})
        other = generate(api, job_id="poster", set={"3.steps": 6})
        assert (same.status, other.status) == (status, status)
        assert not any("another request" in warning for warning in same.json["warnings"])
        (told,) = (warning for warning in other.json["warnings"] if "has been used for another request" in warning)
        assert ("the job of that one" in told) is (status == 202)
        if status == 200:
            break
        if other.json["status"] == "running":
            assert api.services.jobs.finish("poster", ended("poster"), run="run", webhook=False, places=range(0))
        else:
            assert api.services.jobs.begin("poster", run="run").state is not None
    assert len(api.messages()) == 1


def test_generate_tells_nothing_of_a_job_of_an_older_release_that_has_not_ended(api: ApiWorld) -> None:
    generate(api, job_id="poster", set={"3.steps": 5})
    change = Update(
        pk=job_pk("poster"), sk=JOB, assign={}, remove=["asked_sha256"], condition="attribute_exists(asked_sha256)"
    )
    assert api.services.table.try_update(change)
    assert generate(api, job_id="poster", set={"3.steps": 6}).json["warnings"] == []


@pytest.mark.parametrize(
    ("fields", "code"),
    [
        ({"wait_s": 26}, "invalid_request"),
        ({"wait_s": -1}, "invalid_request"),
        ({"output": {"bucket": "my-bucket"}}, "invalid_request"),
        ({"job_id": "../x"}, "invalid_request"),
        ({"set": {"99.x": 1}}, "invalid_workflow"),
        ({"inputs": {"3.seed": f"s3://{RESULTS}/owners/other/x/9/a.png"}}, "missing_asset"),
        ({"workflow": f"s3://{ASSETS}/requests/other/x.json"}, "missing_asset"),
        ({"workflow": "unheard-of"}, "invalid_request"),
    ],
)
def test_generate_refuses(api: ApiWorld, fields: dict[str, Any], code: str) -> None:
    answer = generate(api, **fields)
    assert answer.status in {422, 404}, answer.text
    assert answer.code == code, answer.text
    assert api.messages() == []


def test_an_unknown_node_class_is_refused_at_once_where_the_workers_have_told_theirs(api: ApiWorld) -> None:
    api.s3.put_object(Bucket=ASSETS, Key="engine/nodes.json", Body=json.dumps(["KSampler"]).encode())
    answer = submit(api)
    assert (answer.status, answer.code) == (422, "invalid_workflow")
    assert list(answer.json["error"]["details"]["node_errors"]) == ["9"]


def test_the_list_of_workers_that_jobs_no_longer_go_to_refuses_nothing(
    api: ApiWorld, monkeypatch: pytest.MonkeyPatch
) -> None:
    """GPUs come, with another image, and go."""
    reader, image = api.services.node_list, "nodes"
    monkeypatch.setattr(reader, "image", lambda: image)
    api.s3.put_object(Bucket=ASSETS, Key="engine/nodes.json", Body=json.dumps(["KSampler"]).encode())
    assert submit(api).status == 422
    image = ""  # a stack of an older release does not say it
    assert submit(api).status == 201
    image = "of-a-gpu-stack"
    assert submit(api).status == 201
    api.s3.put_object(Bucket=ASSETS, Key="engine/of-a-gpu-stack.json", Body=json.dumps(["OnlyThere"]).encode())
    image = "nodes"
    assert submit(api).status == 422
    image = "of-a-gpu-stack"
    assert submit(api).status == 422
    image = "nodes"
    assert submit(api).status == 422
    api.s3.put_object(Bucket=ASSETS, Key="engine/nodes.json", Body=json.dumps(["KSampler", "SaveImage"]).encode())
    assert submit(api).status == 422, "it is read again within a minute"
    monkeypatch.setattr(reader, "_read_at", float("-inf"))
    assert submit(api).status == 201


def test_a_body_of_another_type_is_415(api: ApiWorld) -> None:
    answer = api.request("POST", "/generate", body="{}", headers={"Content-Type": "text/plain"})
    assert (answer.status, answer.code) == (415, "unsupported_media_type")


def test_a_mistake_of_ours_is_told_without_its_details(api: ApiWorld, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(_job_id: str) -> None:
        raise KeyError("internal things")

    monkeypatch.setattr("comfy_serverless.table.jobs.JobStore.read", lambda _self, job_id: fail(job_id))
    answer = api.request("GET", f"/api/v2/jobs/{uuid.uuid4()}")
    assert (answer.status, answer.code) == (500, "internal_error")
    assert "internal things" not in answer.text


def test_web_pages_may_call_only_where_they_are_allowed(monkeypatch: pytest.MonkeyPatch) -> None:
    with api_world(monkeypatch, cors_origins=("https://app.example",)) as api:
        for origin, allowed in {"https://app.example": True, "https://evil.example": False}.items():
            answer = api.request("GET", "/api/v2/jobs", headers={"Origin": origin})
            assert (answer.headers.get("access-control-allow-origin") == origin) is allowed
    with api_world(monkeypatch) as api:
        answer = api.request("GET", "/api/v2/jobs", headers={"Origin": "https://app.example"})
        assert "access-control-allow-origin" not in answer.headers
