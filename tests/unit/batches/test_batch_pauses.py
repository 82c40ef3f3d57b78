"""Orders that nobody carries out come ever later: while ingest dies, a batch costs few of them."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.unit.batch_world import World, manifest
from tests.unit.jobs_table import aws
from tests.unit.table_clock import TableClock

#: The caretaker starts each minute; what is due after a minute is due at its next start.
MINUTE_S = 61


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> TableClock:
    return TableClock(monkeypatch)


@pytest.fixture
def world(monkeypatch: pytest.MonkeyPatch) -> Iterator[World]:
    monkeypatch.setattr("comfy_serverless.aws.sqs.DEPTH_KNOWN_S", 0.0)
    with aws() as session:
        yield World(session)


def test_a_batch_that_nobody_advances_is_woken_ever_later_and_at_once_when_somebody_does(
    world: World, clock: TableClock
) -> None:
    batch = world.begin(manifest(3))
    woken = []
    for minute in range(1, 32):
        clock.later(MINUTE_S)
        if world.batches.neglected(limit=10):
            woken.append(minute)
    assert woken == [1, 2, 4, 8, 16], "each minute before: 31 orders"
    world.look(batch)
    for _ in range(3):
        clock.later(MINUTE_S)
        assert world.batches.neglected(limit=10) == [batch.id]
        world.look(batch)


def test_a_range_that_nobody_reads_is_ordered_ever_later_and_soon_again_once_it_is_read(
    world: World, clock: TableClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("comfy_serverless.batches.reading.CHUNK_LINES", 2)
    batch = world.begin(manifest(6))
    assert len(world.messages("manifests")) == 1
    ordered = []
    for minute in range(1, 70):
        clock.later(MINUTE_S)
        world.look(batch)
        if world.messages("manifests"):
            ordered.append(minute)
    assert ordered == [2, 6, 14, 30, 62], "each minute before: 68 orders"
    assert not world.keeper.read(batch.id, 0, until=0.0)
    (part,) = world.batches.ranges(batch.id)
    assert (part.lines, part.orders) == (2, 0)
    clock.later(2 * MINUTE_S)
    world.look(batch)
    assert len(world.messages("manifests")) == 1
