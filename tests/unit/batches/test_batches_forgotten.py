"""A batch is forgotten after 30 days, not when DynamoDB deletes it: the same lines are a new one from then on."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator

import pytest

from comfy_serverless.aws.dynamodb import Table, from_item
from comfy_serverless.jobs.document import RETENTION
from tests.unit.batch_world import GRAPH, World
from tests.unit.jobs_table import aws
from tests.unit.owned_batches import Batches, batches_world, line
from tests.unit.table_clock import TableClock

DAYS_S = int(RETENTION.total_seconds())


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> TableClock:
    """The table's is a month behind: jobs count from the real moment at which they are made."""
    return TableClock(monkeypatch, int(time.time()) - DAYS_S)


@pytest.fixture
def owned(monkeypatch: pytest.MonkeyPatch, clock: TableClock) -> Iterator[Batches]:
    with batches_world(monkeypatch) as made:
        yield made


@pytest.fixture
def world(monkeypatch: pytest.MonkeyPatch, clock: TableClock) -> Iterator[World]:
    monkeypatch.setattr("comfy_serverless.aws.sqs.DEPTH_KNOWN_S", 0.0)
    with aws() as session:
        yield World(session)


def names_of(owned: Batches) -> list[str]:
    return [one["name"] for one in owned.request("GET", "/api/v2/batches", owner="team").json["batches"]]


def forget_jobs(table: Table, clock: TableClock) -> None:
    """What the month has done to the jobs."""
    for page in table._client.get_paginator("scan").paginate(TableName=table.name):
        for item in map(from_item, page["Items"]):
            if item["pk"].startswith("job#"):
                table.put({**item, "expires": clock.now_s})


def test_the_same_lines_under_the_same_name_are_a_new_batch(owned: Batches, clock: TableClock) -> None:
    body = {"name": "many", "lines": [line(1), {"workflow": 1}, line(2)], "force": True}
    assert owned.post(body).status == 201
    owned.follow_orders()
    clock.later(3600)
    assert len(owned.work()) == 2
    owned.look("many")
    assert (owned.get("many")["status"], owned.get("many")["bad"]) == ("completed", 1)
    clock.later(DAYS_S - 3600 - 1)
    assert owned.post(body).status == 200, "it is the same one"
    assert owned.messages(owned.urls["manifests"]) == []

    clock.later(1)
    forget_jobs(owned.table, clock)
    assert owned.request("GET", "/api/v2/batches/many", owner="team").status == 404
    assert names_of(owned) == []
    assert owned.post(body).status == 201
    assert names_of(owned) == ["many"]
    new = owned.get("many")
    assert (new["status"], new["bad"], new["lines_total"]) == ("running", 0, 3)
    assert list(owned.services.batches.bad_lines(owned.batch("many").id)) == [], "nothing of the old one is of it"
    owned.follow_orders()
    assert len(owned.work()) == 2
    owned.look("many")
    assert (owned.get("many")["status"], owned.get("many")["bad"]) == ("completed", 1)


def test_what_is_written_late_of_a_batch_is_forgotten_with_it(owned: Batches, clock: TableClock) -> None:
    """A manifest that is copied later, and lines that are read later: a new batch of these lines finds none of it."""
    manifest = "\n".join(map(json.dumps, [line(1), {"workflow": 1}])).encode()
    asset = owned.asset("many.jsonl", manifest)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("comfy_serverless.api.batch_submission.MAX_SENT_BYTES", 1)
        assert owned.post({"name": "many", "upload_id": asset, "force": True}).status == 201
    clock.later(3600)
    owned.look("many")
    batch = owned.batch("many")
    assert len(owned.services.batches.ranges(batch.id)) == 1
    assert len(list(owned.services.batches.bad_lines(batch.id))) == 1
    clock.later(DAYS_S - 3600)
    assert owned.services.batches.ranges(batch.id) == []
    assert list(owned.services.batches.bad_lines(batch.id)) == []
    assert owned.table.get(f"batch#{batch.id}", "range#000000000000000") is None


def test_a_manifest_that_is_dropped_again_is_a_new_batch(world: World, clock: TableClock) -> None:
    lines = json.dumps({"workflow": GRAPH}).encode()
    old = world.begin(lines)
    world.read_all()
    assert len(world.work()) == 1
    world.look(old)
    clock.later(DAYS_S)
    forget_jobs(world.table, clock)
    new = world.begin(lines)
    assert (new.id, new.report) == (old.id, None)
    found = world.batches.newest(old.source)
    assert (found and found.report) is None
    world.read_all()
    assert len(world.work()) == 1
    assert world.look(new).report is not None
