"""Batches over the API: lines become the owner's jobs, and nobody else's; nothing is lost and nothing is told."""

from __future__ import annotations

import gzip
import json
from collections.abc import Iterator
from typing import Any
from unittest.mock import patch

import pytest
from botocore.exceptions import EndpointConnectionError

from comfy_serverless.table.dispatch import Queues
from comfy_serverless.table.job_item import job_pk
from tests.unit.owned_batches import ASSETS, GRAPH, LOADS, RESULTS, URL, Batches, batches_world, line

COUNTS = ("lines", "succeeded", "failed", "bad", "duplicates", "queued", "running", "canceled", "ended")


@pytest.fixture
def world(monkeypatch: pytest.MonkeyPatch) -> Iterator[Batches]:
    with batches_world(monkeypatch) as made:
        yield made


def counts(document: Any) -> dict[str, int]:
    return {name: document[name] for name in COUNTS if document[name]}


def down(*_: Any, **__: Any) -> Any:
    raise EndpointConnectionError(endpoint_url="https://aws")


def test_lines_become_jobs_of_their_owner_and_are_followed_to_their_report(world: Batches) -> None:
    answer = world.post({"name": "many", "lines": [line(1), line(2, metadata={"sku": "7"}), line(1)]})
    assert answer.status == 201, answer.text
    assert (answer.json["name"], answer.json["status"], answer.json["report_url"]) == ("many", "running", None)
    world.follow_orders()
    assert world.get("many")["queued"] == 3
    ran = world.work(failing=frozenset({1}))
    assert [(job.owner, request.output.prefix, request.output.bucket) for job, request in ran] == [
        ("team", "owners/team", RESULTS)
    ] * 2
    assert [request.metadata for _, request in ran] == [{"batch": "many"}, {"batch": "many", "sku": "7"}]
    listed = world.request("GET", "/api/v2/jobs?metadata[batch]=many").json["jobs"]
    assert sorted(job["id"] for job in listed) == sorted(job.job_id for job, _ in ran)
    world.look("many")
    done = world.get("many")
    assert counts(done) == {"lines": 3, "succeeded": 1, "failed": 1, "duplicates": 1, "ended": 3}
    assert (done["status"], done["is_read"], done["curable"], done["codes"]) == (
        "completed",
        True,
        1,
        {"engine_crashed": 1},
    )
    failure = {"line": 2, "job_id": ran[1][0].job_id, "code": "engine_crashed", "message": "it died"}
    assert done["first_failures"] == [failure]
    assert all(
        f"/owners/team/batches/{done['id']}.report" in done[name] for name in ("report_url", "csv_url", "rows_url")
    )


def test_the_same_text_of_two_owners_is_two_jobs_and_two_batches(world: Batches) -> None:
    body = {"name": "same", "lines": [line(1), line(2)]}
    ids = {world.post(body, owner=owner).json["id"] for owner in ("team", "rivals")}
    assert len(ids) == 2
    world.follow_orders()
    ran = world.work()
    assert sorted(job.owner for job, _ in ran) == ["rivals", "rivals", "team", "team"]
    assert len({job.job_id for job, _ in ran}) == 4
    for owner in ("team", "rivals"):
        world.look("same", owner=owner)
        outputs = world.request("GET", f"{URL}/same/outputs", owner=owner).json["outputs"]
        assert [output["line"] for output in outputs] == [1, 2]
        assert all(output["s3_uri"].startswith(f"s3://{RESULTS}/owners/{owner}/") for output in outputs)


ROUTES = [
    ("GET", ""),
    ("POST", "/pause"),
    ("POST", "/resume"),
    ("POST", "/cancel"),
    ("POST", "/retry"),
    ("GET", "/outputs"),
]


@pytest.mark.parametrize(("method", "route"), ROUTES)
def test_another_owners_batch_is_not_there(world: Batches, method: str, route: str) -> None:
    made = world.post({"name": "secret", "lines": [line(1)]}).json
    world.follow_orders()
    before = world.get("secret")
    for name in ("secret", made["id"]):
        theirs = world.request(method, f"{URL}/{name}{route}", owner="rivals")
        none = world.request(method, f"{URL}/{name[:-1]}x{route}", owner="rivals")
        assert (theirs.status, theirs.code) == (none.status, none.code) == (404, "not_found")
        assert theirs.text.replace(name, "NAME") == none.text.replace(f"{name[:-1]}x", "NAME")
    assert world.request("GET", URL, owner="rivals").json == {"batches": []}
    assert world.get("secret")["status"] == before["status"] == "running"


def test_a_line_cannot_take_a_job_of_another_owner(world: Batches) -> None:
    world.post({"name": "mine", "lines": [line(1, job_id="poster")]})
    world.follow_orders()
    world.post({"name": "theirs", "lines": [line(9, job_id="poster"), line(2)]}, owner="rivals")
    world.follow_orders()
    assert {job.owner: job.job_id for job, _ in world.work() if job.job_id == "poster"} == {"team": "poster"}
    world.look("theirs", owner="rivals")
    done = world.get("theirs", owner="rivals")
    assert counts(done) == {"lines": 2, "succeeded": 1, "bad": 1, "ended": 2}
    assert done["first_failures"][0]["message"] == "the job_id 'poster' is taken: choose another."
    rows = world.s3.get_object(Bucket=RESULTS, Key=f"owners/rivals/batches/{done['id']}.report.jsonl")["Body"].read()
    assert b"owners/team" not in rows


@pytest.mark.parametrize("name", ["../x", "a/b", "a#b", "bär", "", "x" * 41, "a b", "a\n", None, 7])
def test_a_name_that_could_lead_elsewhere_is_refused(world: Batches, name: Any) -> None:
    answer = world.post({"name": name, "lines": [line(1)]})
    assert (answer.status, answer.code) == (422, "invalid_request")
    assert [key for item in world.all_items() for key in item["pk"].values() if key.startswith("batch")] == []


def test_lines_that_would_fail_are_all_told_and_nothing_is_written(world: Batches) -> None:
    lines = [
        line(1),
        {"workflow": 1},
        {**line(3), "output": {"prefix": "x"}},
        line(4, inputs={"1.image": f"s3://{ASSETS}/blobs/rivals/1"}),
        {"workflow": "no-such-name@3"},
        {"workflow": {"1": {"class_type": "X", "inputs": {"image": ["9", 0]}}}},
        line(7, extra_data={"api_key_comfy_org": "secret"}),
    ]
    before = len(world.all_items())
    answer = world.post({"name": "bad", "lines": lines})
    assert (answer.status, answer.code) == (422, "invalid_request")
    told = {problem["field"]: problem["problem"] for problem in answer.json["error"]["details"]["errors"]}
    assert sorted(told) == [f"lines.{number}" for number in range(2, 8)]
    message = answer.json["error"]["message"]
    assert ".;" not in message
    assert ".." not in message
    assert "rivals" not in told["lines.4"] or "cannot be used by its address" in told["lines.4"]
    assert len(world.all_items()) == before
    assert world.s3.list_objects_v2(Bucket=ASSETS).get("KeyCount", 0) == 0
    forced = world.post({"name": "bad", "lines": lines, "force": True})
    assert forced.status == 201
    world.look("bad")
    world.work()
    world.look("bad")
    assert counts(world.get("bad"))["succeeded"] == 1
    assert b"secret" not in b"".join(
        world.s3.get_object(Bucket=RESULTS, Key=item["Key"])["Body"].read()
        for item in world.s3.list_objects_v2(Bucket=RESULTS)["Contents"]
    )


def test_a_manifest_may_be_text_in_any_form(world: Batches) -> None:
    for name, text in {
        "lines": f"{json.dumps(line(1))}\n\n{json.dumps(line(2))}",
        "list": json.dumps([line(1), line(2)], indent=1),
    }.items():
        assert world.post({"name": name, "manifest": text}).status == 201
        world.follow_orders()
        assert world.get(name)["lines"] == 2


def test_an_upload_of_any_size_is_taken_by_ingest(world: Batches, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("comfy_serverless.api.batch_submission.MAX_SENT_BYTES", 100)
    content = "\n".join(json.dumps(line(number)) for number in range(1, 6)).encode()
    upload_id = world.upload("many.jsonl.gz", gzip.compress(content))
    made = world.post({"name": "large", "upload_id": upload_id})
    assert (made.status, made.json["is_read"], made.json["lines"]) == (201, False, 0)
    paused = world.do("large", "pause")
    assert (paused.status, paused.json["status"]) == (200, "paused")
    world.follow_orders()
    assert world.get("large")["lines"] == 0, "nothing begins while it is paused"
    assert world.do("large", "resume").json["status"] == "running"
    world.request("DELETE", f"/api/v2/assets/{upload_id}")
    world.look("large")
    world.look("large")
    assert len(world.work()) == 5, "the copy is ours: the upload may go"
    world.look("large")
    assert counts(world.get("large")) == {"lines": 5, "succeeded": 5, "ended": 5}


def test_an_upload_that_is_no_manifest_ends_with_the_reason(world: Batches, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("comfy_serverless.api.batch_submission.MAX_SENT_BYTES", 100)
    upload_id = world.asset("x.jsonl", b"[" + b" " * 200)
    assert world.post({"name": "none", "upload_id": upload_id}).status == 201
    world.follow_orders()
    done = world.get("none")
    assert (done["status"], done["lines"], done["first_failures"][0]["line"]) == ("failed", 0, None)
    assert "JSON" in done["first_failures"][0]["message"]


def test_another_owners_upload_is_not_there(world: Batches) -> None:
    upload_id = world.asset("many.jsonl", json.dumps(line(1)).encode())
    theirs = world.post({"name": "x", "upload_id": upload_id}, owner="rivals")
    none = world.post({"name": "x", "upload_id": "0" + upload_id[1:]}, owner="rivals")
    assert (theirs.status, none.status) == (404, 404)
    assert world.post({"name": "x", "upload_id": upload_id}).status == 201


def test_the_same_lines_under_the_same_name_are_the_same_batch(world: Batches) -> None:
    body = {"name": "twice", "lines": [line(1), line(2)]}
    first = world.post(body, headers={"Idempotency-Key": "k"})
    again = [world.post(body, headers=headers) for headers in ({}, {"Idempotency-Key": "k"})]
    assert (first.status, [one.status for one in again]) == (201, [200, 200])
    assert {one.json["id"] for one in (first, *again)} == {first.json["id"]}
    other = world.post({"name": "twice", "lines": [line(3)]}, headers={"Idempotency-Key": "k"})
    assert (other.status, other.code) == (422, "idempotency_key_reuse")
    other = world.post({"name": "twice", "lines": [line(3)]})
    assert (other.status, other.json["id"] == first.json["id"]) == (201, False)
    assert world.get("twice")["id"] == other.json["id"], "a name means the newest"
    assert world.get(first.json["id"])["id"] == first.json["id"]
    world.follow_orders()
    assert len(world.work()) == 3


def test_a_batch_survives_whatever_is_cut_off(world: Batches) -> None:
    body = {"name": "safe", "lines": [line(1), line(2)]}
    with patch.object(world.services.s3, "put_object", down):
        assert world.post(body).status == 500
    with patch.object(world.services.table._client, "transact_write_items", down):
        assert world.post(body).status == 500
    assert world.request("GET", URL).json == {"batches": []}
    assert world.request("GET", f"{URL}/safe").status == 404
    assert world.services.orders is not None
    with patch.object(world.services.orders.sqs, "send_message", down):
        answer = world.post(body)
    assert answer.status == 201, "it stands, and the caretaker has it read"
    assert world.messages(world.urls["manifests"]) == []
    world.table.update(_touched_long_ago(world))
    world.look("safe")
    assert len(world.work()) == 2
    world.look("safe")
    assert counts(world.get("safe")) == {"lines": 2, "succeeded": 2, "ended": 2}


def _touched_long_ago(world: Batches) -> Any:
    from comfy_serverless.aws.dynamodb import Update
    from comfy_serverless.batches.ranges import batch_pk, range_sk

    return Update(pk=batch_pk(world.batch("safe").id), sk=range_sk(0), assign={"touched": 1})


def test_reading_that_is_cut_off_anywhere_runs_each_line_once(world: Batches) -> None:
    world.post({"name": "cut", "lines": [line(number) for number in range(5)]})
    messages = world.messages(world.urls["manifests"])
    for client, call in ((world.keeper.s3, "put_object"), (world.keeper.batches._table._client, "update_item")):
        with patch.object(client, call, down), pytest.raises(EndpointConnectionError):
            world.keeper.read(messages[0]["batch"], 0, until=float("inf"))
    world.keeper.read(messages[0]["batch"], 0, until=float("inf"))
    assert len(world.work()) == 5
    world.look("cut")
    assert counts(world.get("cut")) == {"lines": 5, "succeeded": 5, "ended": 5}


def test_files_that_were_uploaded_are_inputs_by_name_and_by_id(world: Batches) -> None:
    asset_id = world.asset("set/fox 1.png", b"fox")
    world.asset("set/fox 1.png", b"theirs", owner="rivals")
    reference = {"__type": "core/ASSET", "info": {"id": asset_id}}
    lines = [
        {"workflow": LOADS, "inputs": {"1.image": "set/fox 1.png"}},
        {"workflow": LOADS, "set": {"1.image": reference}},
        {"workflow": {**LOADS, "1": {"class_type": "LoadImage", "inputs": {"image": "set/fox 1.png"}}}},
    ]
    assert world.post({"name": "files", "lines": lines}).status == 201
    world.follow_orders()
    read = [request for _, request in world.work()]
    given = [request.inputs.get("1.image") or request.workflow["1"]["inputs"]["image"] for request in read]
    assert len(given) == 3
    assert all(address.startswith(f"s3://{ASSETS}/blobs/team/") for address in given)
    world.look("files")
    outputs = world.request("GET", f"{URL}/files/outputs").json["outputs"]
    assert outputs[0]["inputs"] == {"1.image": "set/fox 1.png"}
    workflow = world.request("GET", f"/api/v2/jobs/{outputs[0]['job_id']}/workflow").json["workflow"]
    assert workflow["1"]["inputs"] == LOADS["1"]["inputs"], "as it was sent, and no address of ours"


def test_an_asset_of_another_owner_is_refused_in_its_line_alone(world: Batches) -> None:
    theirs = world.asset("x.png", b"x", owner="rivals")
    reference = {"__type": "core/ASSET", "info": {"id": theirs}}
    lines = [{"workflow": LOADS, "set": {"1.image": reference}}, line(1)]
    assert world.post({"name": "mixed", "lines": lines}).status == 201
    world.follow_orders()
    assert len(world.work()) == 1
    world.look("mixed")
    done = world.get("mixed")
    assert counts(done) == {"lines": 2, "succeeded": 1, "failed": 1, "ended": 2}
    assert done["first_failures"][0]["code"] == "missing_asset"


def test_first_failures_have_their_lines_while_it_runs(world: Batches) -> None:
    text = "\n".join(["", json.dumps(line(1)), "", "nonsense", json.dumps(line(2)), json.dumps(line(3)), ""])
    world.post({"name": "runs", "manifest": text, "force": True})
    world.follow_orders()
    stays = world.messages(world.urls["batches"])
    workers = world.services.workers
    assert isinstance(workers, Queues)
    for message in stays[:2]:
        workers.batches.send(json.dumps(message), tenant="team")
    world.work(failing=frozenset({1}))
    world.look("runs")
    now = world.get("runs")
    assert now["report_url"] is None
    assert [(one["line"], one["code"]) for one in now["first_failures"]] == [
        (4, "invalid_request"),
        (5, "engine_crashed"),
    ]


def test_pause_resume_and_cancel_are_what_they_are_and_idempotent(world: Batches) -> None:
    world.post({"name": "held", "lines": [line(1), line(2)]})
    world.follow_orders()
    assert [world.do("held", "pause").json["status"] for _ in range(2)] == ["paused", "paused"]
    assert world.work() == []
    assert [world.do("held", "resume").json["status"] for _ in range(2)] == ["running", "running"]
    world.follow_orders()
    assert len(world.work()) == 2
    world.post({"name": "ended", "lines": [line(3)]})
    world.follow_orders()
    assert [world.do("ended", "cancel").status for _ in range(2)] == [200, 200]
    world.look("ended")
    assert counts(world.get("ended")) == {"lines": 1, "canceled": 1, "ended": 1}
    for action in ("pause", "resume", "cancel"):
        refused = world.do("ended", action)
        assert (refused.status, refused.code) == (409, "batch_state")


def test_a_retry_runs_what_can_be_cured_as_a_batch_of_its_own(world: Batches) -> None:
    world.post({"name": "first", "lines": [line(1), line(2), line(3)]})
    world.follow_orders()
    early = world.do("first", "retry")
    assert (early.status, early.code) == (409, "batch_state")
    world.work(failing=frozenset({0, 2}))
    world.look("first")
    again = world.do("first", "retry")
    assert (again.status, again.json["name"], again.json["left_out"]) == (201, "first-again", {})
    assert world.do("first", "retry").status == 200, "the same lines again are the same batch"
    world.follow_orders()
    ran = world.work()
    assert all(job.job_id.endswith("-again2") and job.owner == "team" for job, _ in ran)
    world.look("first-again")
    assert counts(world.get("first-again")) == {"lines": 2, "succeeded": 2, "ended": 2}
    nothing = world.do("first-again", "retry", body={"only": "curable"})
    assert (nothing.status, nothing.code) == (422, "invalid_request")
    assert world.do("first", "retry", body={"only": "no_such_code"}).status == 422


def test_a_retry_of_many_lines_is_made_by_ingest(world: Batches, monkeypatch: pytest.MonkeyPatch) -> None:
    world.post({"name": "first", "lines": [line(1), line(2)]})
    world.follow_orders()
    world.work(failing=frozenset({0}))
    world.look("first")
    monkeypatch.setattr("comfy_serverless.api.batch_submission._MAX_REPORT_LINES", 1)
    assert world.do("first", "retry", body={"only": "all"}).status == 201
    world.follow_orders()
    assert len(world.work()) == 1
    assert world.do("first", "retry", body={"only": "out_of_memory"}).status == 201
    world.follow_orders()
    done = world.get("first-again")
    assert (done["status"], done["first_failures"][0]["code"]) == ("failed", "invalid_request")


def test_lists_are_paged_newest_first_by_one_query_each(world: Batches) -> None:
    moments = (f"2026-11-30T10:00:0{number}.000Z" for number in range(5))
    with patch("comfy_serverless.batches.owned.now_text", lambda: next(moments)):
        for number in range(5):
            world.post({"name": f"b{number}", "lines": [line(number)]})
    world.post({"name": "theirs", "lines": [line(1)]}, owner="rivals")
    names, cursor = [], ""
    while True:
        page = world.request("GET", f"{URL}?limit=2{cursor}").json
        names += [batch["name"] for batch in page["batches"]]
        if "next_cursor" not in page:
            break
        cursor = f"&cursor={page['next_cursor']}"
    assert names == ["b4", "b3", "b2", "b1", "b0"]
    for wrong in ("x", "MjAyNg", "%00"):
        assert world.request("GET", f"{URL}?cursor={wrong}").code == "invalid_cursor"


def test_outputs_are_paged_by_line_while_it_runs(world: Batches) -> None:
    world.post({"name": "many", "lines": [line(number) for number in range(7)]})
    world.follow_orders()
    world.work(failing=frozenset({2}))
    lines, cursor, pages = [], "", 0
    while True:
        page = world.request("GET", f"{URL}/many/outputs?limit=2{cursor}").json
        lines += [output["line"] for output in page["outputs"]]
        assert all(output["url"].startswith("https://") for output in page["outputs"])
        pages += 1
        if "next_cursor" not in page:
            break
        cursor = f"&cursor={page['next_cursor']}"
    assert (lines, pages) == ([1, 2, 4, 5, 6, 7], 3)
    assert world.request("GET", f"{URL}/many/outputs?cursor=1.2").code == "invalid_cursor"


def test_a_page_of_outputs_reads_no_more_lines_than_it_may(world: Batches, monkeypatch: pytest.MonkeyPatch) -> None:
    world.post({"name": "idle", "lines": [line(number) for number in range(9)]})
    world.follow_orders()
    monkeypatch.setattr("comfy_serverless.api.batch_outputs._MAX_LINES", 4)
    first = world.request("GET", f"{URL}/idle/outputs").json
    assert (first["outputs"], "next_cursor" in first) == ([], True)
    second = world.request("GET", f"{URL}/idle/outputs?cursor={first['next_cursor']}").json
    third = world.request("GET", f"{URL}/idle/outputs?cursor={second['next_cursor']}").json
    assert (third["outputs"], "next_cursor" in third) == ([], False)


def test_lines_of_a_batch_are_none_of_the_jobs_that_a_key_may_have(world: Batches) -> None:
    key = {"max_in_flight": "1"}
    assert world.post({"name": "many", "lines": [line(1), line(2)]}, key=key).status == 201
    world.follow_orders()
    assert world.services.jobs.open_jobs("team") == 0
    assert world.request("POST", "/api/v2/jobs", body={"workflow": GRAPH}, key=key).status == 201


def test_one_request_is_counted_for_a_batch_however_many_lines_it_has(world: Batches) -> None:
    key = {"requests_per_minute": "1", "key_id": "limited"}
    assert world.post({"name": "a", "lines": [line(1), line(2), line(3)]}, key=key).status == 201
    assert world.post({"name": "b", "lines": [line(1)]}, key=key).code == "rate_limited"


def test_whoever_looks_has_it_counted(world: Batches) -> None:
    world.post({"name": "seen", "lines": [line(1)]})
    world.follow_orders()
    world.work()
    world.get("seen")
    world.follow_orders()
    assert counts(world.get("seen")) == {"lines": 1, "succeeded": 1, "ended": 1}
    world.get("seen")
    assert world.messages(world.urls["manifests"]) == [], "of one that has ended, nothing is left to count"


def test_a_job_that_a_batch_has_made_can_be_asked_for_alone(world: Batches) -> None:
    world.post({"name": "one", "lines": [line(1, job_id="named-by-me")]})
    world.follow_orders()
    world.work()
    assert world.request("GET", "/api/v2/jobs/named-by-me").json["metadata"]["batch"] == "one"
    assert world.request("GET", "/api/v2/jobs/named-by-me", owner="rivals").status == 404
    assert world.table.get(job_pk("named-by-me"), "job")["version"] == 4
