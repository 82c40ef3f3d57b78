"""How far a batch is, in lines, while its jobs run."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any

import pytest

from comfy_serverless.batches import keeper as keeper_module
from comfy_serverless.batches import ranges as ranges_module
from comfy_serverless.batches import tally as tally_module
from comfy_serverless.batches.batch import Batch, BatchStatus
from comfy_serverless.batches.progress import BatchProgress
from comfy_serverless.batches.ranges import Range
from comfy_serverless.table.jobs import JobStore
from tests.unit.batch_world import World, ended, manifest
from tests.unit.jobs_table import aws


@pytest.fixture
def world(monkeypatch: pytest.MonkeyPatch) -> Iterator[World]:
    monkeypatch.setattr("comfy_serverless.aws.sqs.DEPTH_KNOWN_S", 0.0)
    with aws() as session:
        yield World(session)


def look(world: World, batch: Batch) -> BatchProgress:
    return world.batches.progress(world.look(batch))


def counts(progress: BatchProgress) -> dict[str, int]:
    names = ("bad", "duplicates", "queued", "running", "succeeded", "failed", "canceled")
    return {name: value for name in names if (value := getattr(progress, name))}


@pytest.mark.parametrize("range_bytes", [400, 10**6])
def test_the_counts_follow_the_jobs_in_whatever_order_they_end(
    world: World, monkeypatch: pytest.MonkeyPatch, range_bytes: int
) -> None:
    monkeypatch.setattr(ranges_module, "RANGE_BYTES", range_bytes)
    batch = world.begin(manifest(20, bad=3) + b"\n\n" + manifest(2))
    assert counts(look(world, batch)) == {}
    world.read_all()
    assert counts(look(world, batch)) == {"bad": 3, "duplicates": 2, "queued": 20}
    jobs = world.open_jobs(batch)
    for state in (jobs[0], jobs[9]):
        world.jobs.begin(state.id, run="run")
    assert counts(look(world, batch)) == {"bad": 3, "duplicates": 2, "queued": 18, "running": 2}
    assert world.jobs.finish(jobs[9].id, ended(jobs[9].id, None), run="run", webhook=False, places=())
    assert counts(look(world, batch)) == {"bad": 3, "duplicates": 2, "queued": 18, "running": 1, "succeeded": 1}
    assert world.jobs.finish(jobs[0].id, ended(jobs[0].id, None), run="run", webhook=False, places=())
    world.work(failing=3)
    last = look(world, batch)
    assert counts(last) == {"bad": 3, "duplicates": 2, "succeeded": 14, "failed": 6}
    assert (last.status, last.lines, last.lines_total, last.is_read, last.ended) == ("completed", 25, 25, True, 25)
    assert last.to_json()["succeeded"] == 14
    summary = world.report(batch)[0]
    assert {"succeeded": last.succeeded, "failed": last.failed} == summary["statuses"]
    assert (last.bad, last.duplicates, last.lines) == (summary["bad_lines"], summary["duplicates"], summary["lines"])


def test_lines_far_behind_those_that_wait_are_not_read_and_count_as_waiting(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("comfy_serverless.batches.fates.MAX_READS", 5)
    monkeypatch.setattr(tally_module, "WAITING_IN_A_ROW", 10)
    batch = world.begin(manifest(60))
    world.read_all()
    reads: list[int] = []
    many = world.jobs.many

    def counted(_jobs: JobStore, ids: Sequence[str]) -> object:
        reads.append(len(ids))
        return many(ids)

    monkeypatch.setattr(type(world.jobs), "many", counted)
    assert counts(look(world, batch)) == {"queued": 60}
    assert sum(reads) == 10
    del reads[:]
    first, *rest = world.open_jobs(batch)
    assert world.jobs.begin(first.id, run="run").claim.name == "RUN"  # one that takes long
    for state in rest[:20]:
        world.jobs.begin(state.id, run="run")
        assert world.jobs.finish(state.id, ended(state.id, None), run="run", webhook=False, places=())
    del reads[:]
    assert counts(look(world, batch)) == {"queued": 39, "running": 1, "succeeded": 20}
    assert sum(reads) <= 35


def test_of_many_ranges_that_wait_only_the_first_are_looked_at(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ranges_module, "RANGE_BYTES", 500)
    monkeypatch.setattr(keeper_module, "UNTOUCHED_IN_A_ROW", 3)
    monkeypatch.setattr(tally_module, "WAITING_IN_A_ROW", 2)
    batch = world.begin(manifest(60))
    world.read_all()
    assert counts(look(world, batch)) == {"queued": 60}
    seen = [part for part in world.batches.ranges(batch.id) if part.ahead is not None]
    assert (len(seen), seen[-1].end) == (3, 1500)
    world.work(some=30)
    assert counts(look(world, batch)) == {"queued": 30, "succeeded": 30}


def test_a_cancel_is_counted(world: World) -> None:
    batch = world.begin(manifest(12))
    world.read_all()
    world.work(some=4)
    running = world.open_jobs(batch)[0]
    world.jobs.begin(running.id, run="run")
    world.batches.set_status(batch.id, BatchStatus.CANCELED, was=[BatchStatus.RUNNING])
    assert counts(look(world, batch)) == {"running": 1, "succeeded": 4, "canceled": 7}


def test_a_rate_and_the_time_that_is_left(world: World) -> None:
    batch = world.begin(manifest(10))
    assert world.batches.progress(batch).per_second is None
    ranges = [Range(start=0, end=100, offset=100, lines=100, begun=100, ends={"succeeded": 40}, ended=40)]
    at = "2026-11-29T12:00:00.000Z"
    counted = replace(batch, counted_at="2026-11-29T12:00:20.000Z", counted_before={"ended": 20, "at": at})
    progress = counted.progress(ranges)
    assert (progress.per_second, progress.left_s) == (1.0, 60)
    still = replace(counted, counted_before={"ended": 40, "at": at})
    assert (still.progress(ranges).per_second, still.progress(ranges).left_s) == (0.0, None)


def test_all_lines_are_estimated_until_they_are_read(world: World) -> None:
    batch = world.begin(manifest(10))
    half = [Range(start=0, end=100, offset=50, lines=10), Range(start=100, end=200, offset=100)]
    progress = batch.progress(half)
    assert (progress.lines, progress.lines_total, progress.is_read, progress.queued) == (10, 40, False, 10)


def test_counting_writes_a_few_items_of_the_batch_and_none_of_its_jobs(world: World) -> None:
    batch = world.begin(manifest(30))
    world.read_all()
    world.work(some=10)
    written: list[Any] = []
    client = world.clients[0]
    for operation in ("UpdateItem", "PutItem", "BatchWriteItem", "TransactWriteItems"):
        client.meta.events.register(
            f"provide-client-params.dynamodb.{operation}", lambda params, **_: written.append(params)
        )
    world.look(batch)
    keys = [params["Key"]["pk"]["S"] for params in written]
    assert set(keys) == {f"batch#{batch.id}"}
    assert len(keys) <= 5, json.dumps(keys)
