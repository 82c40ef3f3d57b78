"""Lines of a batch are counted for the key that it came with, whose budget is held against the whole batch."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from comfy_serverless.jobs.message import JobMessage
from tests.unit.api.test_usage_route import spend
from tests.unit.owned_batches import ASSETS, Batches, batches_world, line
from tests.unit.table_clock import TableClock

WARNS, REFUSES = ({"budget_nanousd": "400000000", "budget_action": what} for what in ("warn", "refuse"))


@pytest.fixture
def world(monkeypatch: pytest.MonkeyPatch) -> Iterator[Batches]:
    monkeypatch.setattr("comfy_serverless.table.usage.KNOWN_S", 0.0)
    TableClock(monkeypatch)  # no month ends between two requests
    with batches_world(monkeypatch) as world:
        yield world


def test_jobs_of_lines_are_of_the_key_that_the_batch_came_with(world: Batches) -> None:
    assert world.post({"name": "many", "lines": [line(1), line(2)]}, key={"key_id": "key-7"}).status == 201
    world.look("many")
    assert keys_of(world, world.work(failing=frozenset({0}))) == ["key-7", "key-7"]
    world.look("many")
    assert world.do("many", "retry").status == 201
    world.look("many-again")
    assert keys_of(world, world.work()) == ["key-1"], "that of the retry counts"


def keys_of(world: Batches, worked: list[tuple[JobMessage, Any]]) -> list[str | None]:
    states = [world.services.jobs.read(message.job_id) for message, _ in worked]
    return [state.key_id for state in states if state is not None]


def test_a_budget_that_is_used_up_refuses_a_batch_before_anything_is_written(world: Batches) -> None:
    body = {"name": "many", "lines": [line(1)]}
    assert world.post(body, key=REFUSES).json["warnings"] == []
    spend(world)
    before, kept = world.all_items(), world.s3.list_objects_v2(Bucket=ASSETS)["KeyCount"]
    answer = world.post({**body, "name": "more"}, key=REFUSES)
    assert (answer.status, answer.code) == (403, "budget_exceeded")
    upload = world.post({"name": "more", "upload_id": "none"}, key=REFUSES)
    assert (upload.status, upload.code) == (403, "budget_exceeded")
    assert (world.all_items(), world.s3.list_objects_v2(Bucket=ASSETS)["KeyCount"]) == (before, kept)
    taken = world.post({**body, "name": "more"}, key=WARNS)
    assert taken.status == 201
    (warning,) = taken.json["warnings"]
    assert "0.50 USD of 0.40 USD" in warning
    assert "warnings" not in world.get("more")


def test_a_retry_is_held_against_the_budget_too(world: Batches) -> None:
    world.post({"name": "many", "lines": [line(1)]})
    world.look("many")
    world.work(failing=frozenset({0}))
    world.look("many")
    spend(world)
    answer = world.request("POST", "/api/v2/batches/many/retry", key=REFUSES)
    assert (answer.status, answer.code) == (403, "budget_exceeded")
    assert world.request("POST", "/api/v2/batches/many/retry", key=REFUSES, owner="rivals").status == 404
    assert world.services.batches.named("team", "many-again") is None
    assert len(world.request("POST", "/api/v2/batches/many/retry", key=WARNS).json["warnings"]) == 1
