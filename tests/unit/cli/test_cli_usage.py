"""`comfy-serverless usage`: of a key's owner over the API, of all owners from the table of a stack."""

from __future__ import annotations

import json
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any

import pytest

from comfy_serverless.aws.dynamodb import Table
from comfy_serverless.cli import remote, stack
from comfy_serverless.cli.main import main
from comfy_serverless.jobs.document import Job, JobStatus, JobUrls
from comfy_serverless.table.api_keys import ApiKeyStore
from comfy_serverless.table.job_state import NewJob
from comfy_serverless.table.jobs import JobStore
from comfy_serverless.table.usage_items import Account
from tests.unit.jobs_table import NAME, REGION, aws, create_table
from tests.unit.table_clock import TableClock

NOW = datetime(2026, 11, 29, 12, tzinfo=UTC)
DAYS = ("--from", "2026-11-01", "--to", "2026-11-30")
SUMS = {"jobs": 2, "failed": 1, "seconds": 12.5, "outputs": 3, "bytes": 2000, "cost_usd": 0.123456}


@pytest.fixture
def table(monkeypatch: pytest.MonkeyPatch) -> Iterator[Table]:
    for name in ("AWS_PROFILE", "AWS_ENDPOINT_URL"):
        monkeypatch.delenv(name, raising=False)
    for name, value in {"ACCESS_KEY_ID": "a", "SECRET_ACCESS_KEY": "b", "DEFAULT_REGION": REGION}.items():
        monkeypatch.setenv(f"AWS_{name}", value)
    monkeypatch.setattr(stack, "these_outputs", lambda _stack, name: {name: NAME})
    TableClock(monkeypatch, int(NOW.timestamp()))
    with aws() as session:
        yield create_table(session)[0]


def ended(jobs: JobStore, job_id: str, account: Account, **told: Any) -> None:
    jobs.submit(NewJob(job_id=job_id, owner=account.owner, request_uri="s3://a/b", result_uri="s3://a/c"))
    jobs.begin(job_id, run="run")
    told |= {"created_at": NOW, "completed_at": NOW, "expires_at": NOW}
    job = Job(id=job_id, status=JobStatus.SUCCEEDED, urls=JobUrls.of(job_id), **told)
    assert jobs.finish(job_id, job, run="run", webhook=False, places=(), account=account)


@pytest.fixture
def two_owners(table: Table) -> str:
    keys, jobs = ApiKeyStore(table), JobStore(table, lease_s=30, max_runs=3)
    key_id = keys.create("ci", owner="ana").key.id
    keys.create("gone", owner="bob")
    keys.revoke("gone")
    ended(jobs, "1", Account(owner="ana", key_id=key_id, workflow="poster"), cost_usd=0.5, timings_ms={"total": 3000})
    ended(jobs, "2", Account(owner="bob"), cost_usd=2.0)
    ended(jobs, "3", Account(owner="drops", workflow="poster"))
    return key_id


def test_a_stack_tells_of_all_owners(two_owners: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["usage", "--stack", "s", "--by", "owner", *DAYS]) == 0
    lines = [line.split() for line in capsys.readouterr().out.splitlines()]
    assert [line[0] for line in lines] == ["owner", "bob", "ana", "drops", "all"]
    assert (lines[1][-1], lines[3][-1], lines[4][-1]) == ("2.0000", "-", "2.5000")


def test_csv_has_numbers_as_they_are(two_owners: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["usage", "--stack", "s", "--by", "workflow,key", "--owner", "ana", "--csv", *DAYS]) == 0
    assert capsys.readouterr().out.splitlines() == [
        "workflow,key,key_name,jobs,failed,seconds,outputs,bytes,cost_usd",
        f"poster,{two_owners},ci,1,0,3.0,0,0,0.5",
    ]


def test_json_is_the_apis_answer(two_owners: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["usage", "--stack", "s", "--json", *DAYS]) == 0
    told = json.loads(capsys.readouterr().out)
    assert (told["from"], told["to"], told["by"]) == ("2026-11-01", "2026-11-30", "day")
    assert [(row["day"], row["jobs"]) for row in told["rows"]] == [("2026-11-29", 3)]
    assert told["total"]["jobs"] == 3


@pytest.mark.parametrize(
    ("costs", "shown"),
    [
        ((2.0, 0.5), ("2.0000", "0.5000", "2.5000")),
        ((0.5, 0.000001234), ("0.5000000", "0.0000012", "0.5000012")),
        ((0.000000002, 0.0), ("0.000000002", "0.000000000", "0.000000002")),
        ((0.00123, None), ("0.0012", "-", "0.0012")),
    ],
)
def test_tiny_costs_have_digits_enough_all_of_a_column_as_many(
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    costs: tuple[float | None, ...],
    shown: tuple[str, ...],
) -> None:
    rows = [{**SUMS, "workflow": f"w{number}", "cost_usd": cost} for number, cost in enumerate(costs)]
    total = {**SUMS, "cost_usd": sum(cost or 0.0 for cost in costs)}
    told = {"from": "2026-11-01", "to": "2026-11-30", "by": "workflow", "rows": rows, "total": total}
    monkeypatch.setenv("COMFY_BASE_URL", "http://127.0.0.1:9")
    monkeypatch.setattr(remote, "ask", lambda *_, **__: told)
    assert main(["usage", "--by", "workflow"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert tuple(line.split()[-1] for line in lines[1:]) == shown
    assert len({len(line) for line in lines}) == 1, "they stand below each other"
    main(["usage", "--by", "workflow", "--json"])
    assert json.loads(capsys.readouterr().out) == told
    main(["usage", "--by", "workflow", "--csv"])
    given = [line.rpartition(",")[2] for line in capsys.readouterr().out.splitlines()[1:]]
    assert [float(cost) if cost else None for cost in given] == list(costs)
    assert "e" not in "".join(given)


@pytest.mark.parametrize(
    "wrong", [("--by", "hour"), ("--from", "soon"), ("--from", "2026-12-01", "--to", "2026-11-01")]
)
def test_what_cannot_be_told_says_why(table: Table, wrong: tuple[str, ...], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["usage", "--stack", "s", *wrong]) == 1
    assert "invalid_request" in capsys.readouterr().err


def test_with_a_key_alone_the_api_is_asked(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    asked: list[Any] = []

    def answer(_api: object, method: str, path: str, _fields: object, *, params: object) -> dict[str, Any]:
        asked.append((method, path, params))
        return {"from": "2026-11-01", "to": "2026-11-30", "by": "day", "rows": [], "total": SUMS}

    monkeypatch.setenv("COMFY_BASE_URL", "http://127.0.0.1:9")
    monkeypatch.setattr(remote, "ask", answer)
    assert main(["usage", "--from", "2026-11-01"]) == 0
    assert asked == [("GET", "/api/v2/usage", {"by": "day", "from": "2026-11-01"})]
    assert "No job has ended" in capsys.readouterr().err
