"""The keys of the index of neglected items: many for the keepers of jobs, and those of other releases are found too."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from comfy_serverless.aws.dynamodb import Table, now_s
from comfy_serverless.table.columns import (
    ASSET,
    BATCH,
    OPEN,
    QUEUED,
    QUEUED_BATCH,
    SHARDS,
    keeper_of,
    lease_of,
    leases_of,
    neglected,
)
from comfy_serverless.table.job_state import NewJob
from comfy_serverless.table.jobs import JobStore
from local.aws.template import template
from tests.unit.jobs_table import aws, create_table

JOB_KEEPERS = (OPEN, QUEUED, QUEUED_BATCH)


@pytest.fixture
def table() -> Iterator[Table]:
    with aws() as session:
        yield create_table(session)[0]


def put(table: Table, job_id: str, *, lease: str, ago_s: int) -> None:
    new = NewJob(job_id=job_id, owner="team", request_uri="s3://a/requests/1.json", result_uri="s3://r/result.json")
    item = new.waiting(keeper=OPEN, keeper_due=now_s() - ago_s).to_item()
    table.put({**item, "lease": lease})


def lease_in(table: Table, job_id: str) -> Any:
    item = table.get(f"job#{job_id}", "job")
    assert item is not None
    return item["lease"]


@pytest.mark.parametrize("keeper", JOB_KEEPERS)
def test_jobs_of_a_keeper_are_spread_over_its_keys_evenly(keeper: str) -> None:
    leases = [lease_of(keeper, f"job-{number}") for number in range(1000)]
    assert set(leases) == set(leases_of(keeper)) - {keeper}
    assert all(leases.count(lease) < 2 * 1000 / SHARDS for lease in set(leases))
    assert {keeper_of(lease) for lease in leases} == {keeper}


def test_as_many_jobs_as_may_run_at_once_write_no_more_than_a_key_of_an_index_takes() -> None:
    """Each about once a second, which is two writes there; and no key has twice its share (above)."""
    limits = template()["Parameters"]
    at_once = sum(limits[name]["MaxValue"] for name in ("MaximumConcurrency", "MaximumBatchConcurrency"))
    assert 2 * (2 * at_once / SHARDS) <= 1000


@pytest.mark.parametrize("keeper", [BATCH, ASSET])
def test_what_is_written_once_a_minute_has_one_key(keeper: str) -> None:
    assert leases_of(keeper) == [lease_of(keeper, "x")] == [keeper]


@pytest.mark.parametrize("keeper", JOB_KEEPERS)
def test_neglected_items_of_all_keys_and_of_an_older_release_are_found_the_oldest_first(
    table: Table, keeper: str
) -> None:
    ages = {f"job-{number}": 100 * (1 + number * 7 % 25) for number in range(25)}
    for number, (job_id, ago_s) in enumerate(ages.items()):
        put(table, job_id, lease=keeper if number % 5 == 0 else lease_of(keeper, job_id), ago_s=ago_s)
    put(table, "in time", lease=lease_of(keeper, "in time"), ago_s=-60)
    oldest_first = sorted(ages, key=lambda job_id: -ages[job_id])
    assert [item["id"] for item in neglected(table, keeper, limit=100)] == oldest_first
    assert [item["id"] for item in neglected(table, keeper, limit=4)] == oldest_first[:4]


def test_a_job_of_an_older_release_goes_on_under_a_new_key_and_one_that_an_older_worker_has_begun_is_found(
    table: Table,
) -> None:
    jobs = JobStore(table, lease_s=30, max_runs=3)
    put(table, "old", lease="queued", ago_s=-60)
    state = jobs.read_alone("old")
    assert state is not None
    assert (state.keeper, state.waits_in_queue) == (QUEUED, True)
    jobs.begin("old", run="run-1")
    assert lease_in(table, "old") == lease_of(OPEN, "old")
    table.put({**(table.get("job#old", "job") or {}), "lease": "open", "lease_until": now_s() - 1})
    assert [found.id for found in jobs.neglected(limit=10)] == ["old"]


def test_a_job_that_moves_from_keeper_to_keeper_stays_in_its_shard(table: Table) -> None:
    jobs = JobStore(table, lease_s=30, max_runs=3)
    jobs.submit(NewJob(job_id="j", owner="team", request_uri="s3://a/1.json", result_uri="s3://r/result.json"))
    seen = [lease_in(table, "j")]
    jobs.dispatched("j")
    seen.append(lease_in(table, "j"))
    jobs.begin("j", run="run-1")
    jobs.report("j", run="run-1", progress=None)
    seen.append(lease_in(table, "j"))
    assert seen == [lease_of(keeper, "j") for keeper in (OPEN, QUEUED, OPEN)]
    assert len({lease.partition("#")[2] for lease in seen}) == 1


def test_workers_of_the_release_before_understand_the_keys() -> None:
    """They ask whether the lease begins with `queued`; their caretaker finds nothing under other keys than its own."""
    assert all(lease_of(keeper, "x").startswith(keeper) for keeper in JOB_KEEPERS)
    assert not lease_of(OPEN, "x").startswith("queued")


def test_nobody_asks_the_index_but_who_asks_all_keys() -> None:
    package = Path("lambda/comfy_serverless")
    asking = set()
    for path in package.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.keyword) and node.arg == "index" and isinstance(node.value, ast.Constant):
                asking |= {(path.name, node.value.value)} if node.value.value == "leases" else set()
    assert asking == {("columns.py", "leases")}
