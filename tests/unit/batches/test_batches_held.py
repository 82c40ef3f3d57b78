"""Batches that are paused, resumed, canceled, or have lines that others have too."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from typing import Any

import pytest

from comfy_serverless.aws.sqs import NotSent
from comfy_serverless.batches import fates as fates_module
from comfy_serverless.batches import ranges as ranges_module
from comfy_serverless.batches import reading as reading_module
from comfy_serverless.batches.batch import ADVANCE_EVERY_S, Batch, BatchStatus
from comfy_serverless.batches.fates import fates
from comfy_serverless.batches.keeper import Keeper
from comfy_serverless.batches.reading import BatchReader
from comfy_serverless.batches.store import BatchStore
from comfy_serverless.jobs.document import JobStatus
from comfy_serverless.jobs.reserved import Reserved
from comfy_serverless.settings import Settings
from comfy_serverless.table.care import is_too_old
from comfy_serverless.table.dispatch import Queues
from comfy_serverless.table.job_state import Claim
from tests.unit.batch_world import Clock, World, ended, manifest
from tests.unit.jobs_table import aws
from tests.unit.table_clock import TableClock


@pytest.fixture
def world(monkeypatch: pytest.MonkeyPatch) -> Iterator[World]:
    monkeypatch.setattr("comfy_serverless.aws.sqs.DEPTH_KNOWN_S", 0.0)
    with aws() as session:
        yield World(session)


def test_a_paused_batch_waits_without_messages_and_goes_on_where_it_was(world: World) -> None:
    batch = world.begin(manifest(30))
    world.read_all()
    assert len(world.work(some=10)) == 10
    assert world.batches.set_status(batch.id, BatchStatus.PAUSED, was=[BatchStatus.RUNNING])
    world.keeper.workers.send_many([state.message for state in world.open_jobs(batch)])
    assert world.work() == []
    assert world.look(batch).report is None
    assert all(state.keeper is None for state in world.open_jobs(batch)), "nobody sends them meanwhile"
    assert world.batches.set_status(batch.id, BatchStatus.RUNNING, was=[BatchStatus.PAUSED])
    world.keeper.resume(batch.id, until=float("inf"))
    assert len(world.work()) == 20
    assert world.look(batch).status is BatchStatus.COMPLETED


def test_a_batch_paused_while_it_is_read_is_read_on_afterwards(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ranges_module, "UNTOUCHED_S", -1)
    monkeypatch.setattr(reading_module, "CHUNK_LINES", 10)
    batch = world.begin(manifest(50))
    (message,) = world.messages("manifests")
    assert not world.keeper.read(batch.id, message["start"], until=0.0)
    world.batches.set_status(batch.id, BatchStatus.PAUSED, was=[BatchStatus.RUNNING])
    assert world.keeper.read(batch.id, message["start"], until=float("inf"))
    assert world.batches.ranges(batch.id)[0].lines == 10
    world.batches.set_status(batch.id, BatchStatus.RUNNING, was=[BatchStatus.PAUSED])
    world.keeper.resume(batch.id, until=float("inf"))
    world.read_all()
    assert world.batches.ranges(batch.id)[0].lines == 50


def test_a_canceled_batch_runs_nothing_more_and_reports_what_was_done(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reading_module, "CHUNK_LINES", 10)
    batch = world.begin(manifest(50))
    (message,) = world.messages("manifests")
    world.keeper.read(batch.id, message["start"], until=0.0)
    messages = world.messages("batches")
    world.requeue(messages[:4])
    assert len(world.work()) == 4
    world.batches.set_status(batch.id, BatchStatus.CANCELED, was=[BatchStatus.RUNNING, BatchStatus.PAUSED])
    world.requeue(messages[4:])
    assert world.work() == []
    done = world.look(batch)
    assert (done.status, done.report is not None) == (BatchStatus.CANCELED, True)
    summary = world.report(batch)[0]
    assert summary["statuses"] == {"succeeded": 4, "canceled": 46}


def test_a_cancel_ends_at_once_what_nobody_has_begun_and_nothing_of_others(world: World) -> None:
    other = world.begin(manifest(10), key="batches/other.jsonl")
    world.read_all()
    batch = world.begin(manifest(30))  # the first ten are the other's
    world.read_all()
    running = world.open_jobs(batch)[29]
    assert world.jobs.begin(running.id, run="elsewhere").claim is Claim.RUN
    assert world.batches.set_status(batch.id, BatchStatus.CANCELED, was=[BatchStatus.RUNNING])
    ran = world.work()
    assert set(ran) == {state.id for state in first_jobs(world, other)}, "the other's jobs are run"
    assert world.look(batch).report is None, "one still runs"
    assert {state.id for state in world.open_jobs(batch)} == {running.id}
    assert world.jobs.many([running.id])[running.id].status is JobStatus.RUNNING
    assert world.jobs.finish(running.id, ended(running.id, None), run="elsewhere", webhook=False, places=())
    assert world.look(batch).status is BatchStatus.CANCELED
    assert world.look(other).status is BatchStatus.COMPLETED
    summary = world.report(batch)[0]
    assert (summary["status"], summary["statuses"]) == ("canceled", {"succeeded": 11, "canceled": 19})


def first_jobs(world: World, batch: Batch) -> list[Any]:
    return [
        fate.state
        for part in world.batches.ranges(batch.id)
        for chunk in fates(world.s3, world.jobs, batch, part, reserved=Reserved.of(Settings()))
        for fate in chunk.lines
        if fate.state is not None
    ]


def test_a_resume_that_takes_longer_than_an_invocation_is_passed_on(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fates_module, "MAX_READS", 20)
    batch = world.begin(manifest(44))
    world.read_all()
    world.batches.set_status(batch.id, BatchStatus.PAUSED, was=[BatchStatus.RUNNING])
    assert world.work() == []
    assert all(state.is_parked for state in world.open_jobs(batch))
    world.batches.set_status(batch.id, BatchStatus.RUNNING, was=[BatchStatus.PAUSED])
    orders: list[dict[str, Any]] = [{"batch": batch.id, "resume": True, "start": 0}]
    starts: list[int] = []
    while orders:
        (order,) = orders
        starts.append(order["start"])
        world.keeper.resume(batch.id, start=order["start"], until=2.0, now=Clock())  # one chunk
        orders = world.messages("manifests")
    assert starts == sorted(set(starts))
    assert len(starts) == 3
    assert len(world.work()) == 44
    assert world.look(batch).report is not None


def test_a_cancel_that_takes_longer_than_an_invocation_goes_on_later(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fates_module, "MAX_READS", 20)
    batch = world.begin(manifest(44))
    world.read_all()
    world.batches.set_status(batch.id, BatchStatus.CANCELED, was=[BatchStatus.RUNNING])
    looks = 0
    while (found := world.batches.get(batch.id)) is not None and found.report is None and looks < 10:
        world.keeper.advance(batch.id, until=3.0, now=Clock())
        looks += 1
    assert looks > 2
    done = world.batches.get(batch.id)
    assert done is not None
    assert done.report is not None
    assert world.report(batch)[0]["statuses"] == {"canceled": 44}
    assert world.work() == []


def test_a_job_that_is_parked_just_after_its_batch_was_resumed_is_found(world: World) -> None:
    batch = world.begin(manifest(5))
    world.read_all()
    assert len(world.work(some=1)) == 1
    late = world.open_jobs(batch)[-1]
    world.requeue([{"job": state.id, "request": state.request} for state in world.open_jobs(batch)[:-1]])
    assert world.jobs.park(late.id, batches=frozenset({batch.id})) is None  # by a worker that had read `paused` before
    assert len(world.work()) == 3
    world.look(batch)
    (order,) = world.messages("manifests")
    world.keeper.resume(order["batch"], start=order["start"], until=float("inf"))
    assert world.work() == [late.id]
    assert world.look(batch).status is BatchStatus.COMPLETED


def test_what_two_batches_want_runs_if_one_of_them_goes_on(world: World) -> None:
    first = world.begin(manifest(6), key="batches/first.jsonl")
    second = world.begin(manifest(8), key="batches/second.jsonl")
    world.read_all()
    messages = world.messages("batches")
    assert world.batches.set_status(first.id, BatchStatus.CANCELED, was=[BatchStatus.RUNNING])
    assert world.look(first).report is None
    world.requeue(messages)
    assert len(world.work()) == 8
    for batch in (first, second):
        world.look(batch)
    assert world.report(second)[0]["statuses"] == {"succeeded": 8}
    assert world.report(first)[0]["statuses"] == {"succeeded": 6}, "what became of them, whoever wanted it"


def test_a_paused_batch_keeps_nothing_from_another(world: World) -> None:
    first = world.begin(manifest(6), key="batches/first.jsonl")
    world.read_all()
    world.batches.set_status(first.id, BatchStatus.PAUSED, was=[BatchStatus.RUNNING])
    assert world.work() == [], "all are parked"
    second = world.begin(manifest(6), key="batches/second.jsonl")
    world.read_all()
    assert len(world.work()) == 6
    assert world.look(second).status is BatchStatus.COMPLETED


@pytest.mark.parametrize(
    ("first_is", "second_is", "runs"),
    [
        (BatchStatus.PAUSED, BatchStatus.PAUSED, 0),
        (BatchStatus.CANCELED, BatchStatus.CANCELED, 0),
        (BatchStatus.PAUSED, BatchStatus.CANCELED, 0),
        (BatchStatus.CANCELED, BatchStatus.RUNNING, 5),
        (BatchStatus.PAUSED, BatchStatus.RUNNING, 5),
        (BatchStatus.RUNNING, BatchStatus.PAUSED, 5),
    ],
)
def test_what_two_batches_want_is_held_back_only_if_neither_goes_on(
    world: World, first_is: BatchStatus, second_is: BatchStatus, runs: int
) -> None:
    batches = [world.begin(manifest(5), key=f"batches/{name}.jsonl") for name in ("first", "second")]
    world.read_all()
    for batch, status in zip(batches, (first_is, second_is), strict=True):
        world.batches.set_status(batch.id, status, was=[BatchStatus.RUNNING])
    assert len(world.work()) == runs
    assert world.messages("batches") == []


def test_a_batch_canceled_while_a_chunk_of_it_is_written_is_reported_as_it_ended(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reading_module, "CHUNK_LINES", 3)
    batch = world.begin(manifest(6))
    submit = BatchReader.submit

    def canceled_meanwhile(reading: BatchReader, *arguments: Any, **fields: Any) -> Any:
        world.batches.set_status(batch.id, BatchStatus.CANCELED, was=[BatchStatus.RUNNING])
        return submit(reading, *arguments, **fields)

    settle = Keeper._settle

    def before_the_chunk_is_written(keeper: Keeper, *arguments: Any, **fields: Any) -> int:
        settled = settle(keeper, *arguments, **fields)
        with monkeypatch.context() as patch:
            patch.setattr(BatchReader, "submit", canceled_meanwhile)
            world.keeper.read_range(batch, world.batches.ranges(batch.id)[0], until=float("inf"))
        return settled

    world.messages("manifests")
    world.batches.set_status(batch.id, BatchStatus.CANCELED, was=[BatchStatus.RUNNING])
    with monkeypatch.context() as patch:
        patch.setattr(BatchStore, "get", running_for_readers(world.batches))
        patch.setattr(Keeper, "_settle", before_the_chunk_is_written)
        world.keeper.advance(batch.id, until=float("inf"))
    assert world.open_jobs(batch) != [], "which came after the look had passed"
    assert world.look(batch).report is not None
    summary, _, failed = world.report(batch)
    assert summary["statuses"] == {"canceled": 6}
    assert len(failed) == 6


def running_for_readers(batches: BatchStore) -> Any:
    """A reader that has asked just before the cancel; whoever looks knows of it."""
    answers = iter([BatchStatus.CANCELED, *[BatchStatus.RUNNING] * 9])
    get = batches.get

    def found(_store: BatchStore, batch_id: str) -> Batch | None:
        batch = get(batch_id)
        return None if batch is None else dataclasses.replace(batch, status=next(answers))

    return found


def test_a_job_that_was_forgotten_meanwhile_is_made_again(world: World) -> None:
    old = world.begin(manifest(4), key="batches/last-month.jsonl")
    world.read_all()
    assert len(world.work()) == 4
    batch = world.begin(manifest(6))
    world.read_all()
    assert len(world.work()) == 2
    first, second, *_ = first_jobs(world, old)
    world.table.delete(f"job#{first.id}", "job")  # by DynamoDB's TTL
    expired = {**second.to_item(), "expires": 1}  # which has not come to this one yet
    world.table.put(expired)
    assert world.look(batch).report is None
    assert len(world.work()) == 2
    assert world.look(batch).status is BatchStatus.COMPLETED
    assert world.report(batch)[0]["statuses"] == {"succeeded": 6}


def test_what_cannot_be_sent_stays_parked(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    batch = world.begin(manifest(3))
    world.read_all()
    world.batches.set_status(batch.id, BatchStatus.PAUSED, was=[BatchStatus.RUNNING])
    assert world.work() == []
    world.batches.set_status(batch.id, BatchStatus.RUNNING, was=[BatchStatus.PAUSED])

    def away(*_arguments: Any) -> None:
        raise NotSent("SQS is away")

    with monkeypatch.context() as patch:
        patch.setattr(Queues, "send_many", away)
        with pytest.raises(NotSent):
            world.keeper.resume(batch.id, until=float("inf"))
    assert all(state.is_parked for state in world.open_jobs(batch))
    world.keeper.resume(batch.id, until=float("inf"))
    assert len(world.work()) == 3


def test_a_job_that_was_given_back_and_parked_is_run_by_another_batch(world: World) -> None:
    first = world.begin(manifest(1), key="batches/first.jsonl")
    world.read_all()
    (message,) = world.messages("batches")
    world.jobs.begin(message["job"], run="lost")
    assert world.jobs.give_back(message["job"], run="lost")
    world.batches.set_status(first.id, BatchStatus.PAUSED, was=[BatchStatus.RUNNING])
    world.requeue([message])
    assert world.work() == []
    world.begin(manifest(1), key="batches/second.jsonl")
    world.read_all()
    assert world.work() == [message["job"]]


def test_a_batch_that_was_paused_for_weeks_is_not_too_old_when_it_goes_on(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    batch = world.begin(manifest(2))
    world.read_all()
    world.batches.set_status(batch.id, BatchStatus.PAUSED, was=[BatchStatus.RUNNING])
    assert world.work() == []
    for state in world.open_jobs(batch):
        world.table.put({**state.to_item(), "created_at": "2020-01-01T00:00:00.000Z"})
    assert all(is_too_old(state) for state in world.open_jobs(batch))
    world.batches.set_status(batch.id, BatchStatus.RUNNING, was=[BatchStatus.PAUSED])
    world.keeper.resume(batch.id, until=float("inf"))
    assert not any(is_too_old(state) for state in world.open_jobs(batch))


def test_one_looks_at_a_batch_at_a_time(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    clock = TableClock(monkeypatch)
    batch = world.begin(manifest(2))
    world.read_all()
    assert len(world.work()) == 2
    assert world.batches.begin_advance(batch.id)
    assert world.look(batch).report is None
    clock.later(ADVANCE_EVERY_S + 1)
    assert world.look(batch).report is not None, "whoever looked has died"


def test_two_canceled_batches_end_what_both_wanted(world: World) -> None:
    batches = [world.begin(manifest(3), key=f"batches/{name}.jsonl") for name in ("first", "second")]
    world.read_all()
    for batch in batches:
        world.batches.set_status(batch.id, BatchStatus.CANCELED, was=[BatchStatus.RUNNING])
    for batch in batches:
        assert world.look(batch).report is not None
        assert world.report(batch)[0]["statuses"] == {"canceled": 3}
