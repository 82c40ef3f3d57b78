"""What an owner's jobs have cost is told to him alone, and to admins; and a budget warns or refuses at every door."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from comfy_serverless.aws.dynamodb import Table
from comfy_serverless.jobs.document import Job, JobStatus, JobUrls
from tests.unit.api_world import ApiWorld, api_world
from tests.unit.fakes import WORKFLOW
from tests.unit.table_clock import TableClock

ADMIN = {"is_admin": "true"}
NOW = datetime.now(UTC)


@pytest.fixture
def api(monkeypatch: pytest.MonkeyPatch) -> Iterator[ApiWorld]:
    monkeypatch.setattr("comfy_serverless.api.jobs.ANSWER_RESERVE_S", 1e6)  # nobody waits
    TableClock(monkeypatch, int(NOW.timestamp()))  # no month ends between two requests
    with api_world(monkeypatch) as world:
        yield world


def submit(api: ApiWorld, **asked: Any) -> Any:
    return api.request("POST", "/api/v2/jobs", body={"workflow": WORKFLOW, **asked.pop("body", {})}, **asked)


def end(api: ApiWorld, job_id: str, *, cost_usd: float | None = 0.5, days_ago: int = 0, **told: Any) -> None:
    begun = api.services.jobs.begin(job_id, run="run").state
    assert begun is not None
    job = Job(
        id=job_id,
        status=told.pop("status", JobStatus.SUCCEEDED),
        created_at=NOW,
        completed_at=NOW - timedelta(days=days_ago),
        expires_at=NOW,
        urls=JobUrls.of(job_id),
        cost_usd=cost_usd,
        timings_ms={"total": 2500, "queued": 500},
        **told,
    )
    account = begun.account
    assert api.services.jobs.finish(job_id, job, run="run", webhook=False, places=(), account=account)


def spend(api: ApiWorld, owner: str = "team", key_id: str = "key-1", **told: Any) -> None:
    labels = {"workflow": told.pop("workflow")} if "workflow" in told else {}
    made = submit(api, owner=owner, key={"key_id": key_id}, body={"metadata": labels})
    assert made.status == 201, made.text
    end(api, made.json["id"], **told)


def test_jobs_count_by_day_workflow_and_key(api: ApiWorld) -> None:
    spend(api, workflow="poster")
    spend(api, workflow="poster", key_id="key-2", status=JobStatus.FAILED)
    spend(api, days_ago=2, cost_usd=None)
    first = (NOW - timedelta(days=5)).date().isoformat()
    told = api.request("GET", f"/api/v2/usage?by=workflow&from={first}").json
    rows = {row["workflow"]: row for row in told["rows"]}
    assert (rows["poster"]["jobs"], rows["poster"]["failed"], rows["poster"]["cost_usd"]) == (2, 1, 1.0)
    assert (rows[""]["jobs"], rows[""]["seconds"], rows[""]["cost_usd"]) == (1, 2.0, None)
    assert (told["total"]["jobs"], told["total"]["cost_usd"], told["total"]["seconds"]) == (3, 1.0, 6.0)
    days = api.request("GET", f"/api/v2/usage?from={first}").json["rows"]
    assert [row["day"] for row in days] == [(NOW - timedelta(days=2)).date().isoformat(), NOW.date().isoformat()]
    both = api.request("GET", f"/api/v2/usage?by=key,day&from={first}&to={NOW.date()}").json["rows"]
    assert {(row["key"], row["day"]): row["jobs"] for row in both} == {
        ("key-1", days[0]["day"]): 1,
        ("key-1", days[1]["day"]): 1,
        ("key-2", days[1]["day"]): 1,
    }


def test_what_never_ran_counts_as_a_job_without_seconds(api: ApiWorld) -> None:
    job_id = submit(api).json["id"]
    assert api.request("POST", f"/api/v2/jobs/{job_id}/cancel").json["status"] == "canceled"
    api.request("POST", f"/api/v2/jobs/{job_id}/cancel")
    (row,) = api.request("GET", "/api/v2/usage").json["rows"]
    assert (row["jobs"], row["failed"], row["seconds"], row["cost_usd"]) == (1, 0, 0, None)


def test_owners_see_their_own_and_admins_see_all(api: ApiWorld) -> None:
    key = api.services.keys.create("of-other", owner="other").key
    spend(api)
    spend(api, owner="other", key_id=key.id, cost_usd=2.0)
    for query in ("by=owner", "by=day,owner", "owner=other", "owner=team"):
        answer = api.request("GET", f"/api/v2/usage?{query}")
        assert (answer.status, answer.code) == (403, "forbidden")
    mine = api.request("GET", "/api/v2/usage?by=key").json
    assert [(row["key"], row["jobs"]) for row in mine["rows"]] == [("key-1", 1)]
    assert "other" not in str(mine)
    told = api.request("GET", "/api/v2/usage?by=owner", key=ADMIN).json
    assert [(row["owner"], row["cost_usd"]) for row in told["rows"]] == [("other", 2.0), ("team", 0.5)]
    theirs = api.request("GET", "/api/v2/usage?by=key&owner=other", key=ADMIN).json["rows"]
    assert [(row["key"], row["key_name"]) for row in theirs] == [(key.id, "of-other")]


@pytest.mark.parametrize(
    "query",
    [
        *("by=", "by=hour", "by=day,,key", "from=yesterday", "to=2026-13-01", "from=2026-11-30&to=2026-11-01"),
        *("from=2020-01-01", "from=0001-01-01&to=0001-01-02x", "until=2026-11-30"),
    ],
)
def test_what_cannot_be_told_is_refused(api: ApiWorld, query: str) -> None:
    assert api.request("GET", f"/api/v2/usage?{query}").status == 422


@pytest.mark.parametrize("label", ["a#b", "x" * 200, "a b", "../x", "é", "#", "day#"])
def test_a_hostile_label_is_no_workflow(api: ApiWorld, label: str) -> None:
    spend(api, workflow=label)
    (row,) = api.request("GET", "/api/v2/usage?by=workflow,key").json["rows"]
    assert (row["workflow"], row["key"], row["jobs"]) == ("", "key-1", 1)


DOORS: list[tuple[str, dict[str, Any]]] = [("/api/v2/jobs", {"workflow": WORKFLOW}), ("/generate", WORKFLOW)]


@pytest.mark.parametrize(("path", "body"), DOORS)
def test_a_budget_that_is_used_up_warns_or_refuses(
    api: ApiWorld, monkeypatch: pytest.MonkeyPatch, path: str, body: dict[str, Any]
) -> None:
    monkeypatch.setattr("comfy_serverless.table.usage.KNOWN_S", 0.0)
    warns, refuses = ({"budget_nanousd": "900000000", "budget_action": what} for what in ("warn", "refuse"))
    spend(api)
    api.messages()
    assert api.request("POST", path, body=body, key=refuses).status in (201, 202)
    assert "warnings" not in api.messages()[0]["content"]
    spend(api)
    spend(api, key_id="key-2")
    api.messages()
    assert api.request("POST", path, body=body, key=warns).status in (201, 202)
    (warning,) = api.messages()[0]["content"]["warnings"]
    assert "1.00 USD of 0.90 USD" in warning
    answer = api.request("POST", path, body=body, key=refuses)
    assert (answer.status, answer.code) == (403, "budget_exceeded")
    assert answer.json["error"]["details"]["spent_usd"] == 1.0
    assert api.messages() == []
    assert api.request("POST", path, body=body, key={**refuses, "key_id": "key-2"}).status in (201, 202)
    me = api.request("GET", "/api/v2/me", key=warns).json["budget"]
    assert (me["budget_usd"], me["spent_usd"], me["action"]) == (0.9, 1.0, "warn")


def test_a_budget_is_read_once_in_half_a_minute_and_its_failure_stops_nobody(
    api: ApiWorld, monkeypatch: pytest.MonkeyPatch
) -> None:
    refuses = {"budget_nanousd": "1", "budget_action": "refuse"}
    assert submit(api, key=refuses).status == 201
    before = api.calls["Query"]
    assert submit(api, key=refuses).status == 201
    assert api.calls["Query"] == before

    def fail(*_arguments: Any, **_named: Any) -> Any:
        raise TimeoutError

    monkeypatch.setattr(Table, "query_all", fail)
    assert submit(api, key={**refuses, "key_id": "key-3"}).status == 201
    assert api.request("GET", "/api/v2/me", key={**refuses, "key_id": "key-3"}).json["budget"]["spent_usd"] is None
