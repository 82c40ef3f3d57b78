"""Jobs whose messages are gone: what they cost while every worker dies, and how soon they run once workers live."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import pytest

from comfy_serverless.aws.sqs import WebhookQueue
from comfy_serverless.jobs.message import JobMessage
from comfy_serverless.table.care import Care
from comfy_serverless.table.job_state import JobState, NewJob
from comfy_serverless.table.jobs import JobStore
from comfy_serverless.table.turns import FIRST_WIDTH, MAX_WIDTH, Turn, again_after_s
from comfy_serverless.table.workers import Workers
from tests.unit.jobs_table import aws, create_table
from tests.unit.table_clock import TableClock

#: The caretaker starts each minute; what is due after a minute is due at its next start.
MINUTE_S = 61


class Fleet(Workers):
    """Lambda: takes each message at once. Workers begin its job, or die before they can."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.is_dead = True
        self.invocations = 0

    def send(self, message: JobMessage, *, delay_s: int = 0, is_batch: bool = False) -> None:
        self.invocations += 1
        self.world.taken.append(message.job_id)

    def send_many(self, messages: Sequence[JobMessage]) -> None:
        for message in messages:
            self.send(message, is_batch=True)

    def depth(self, *, is_batch: bool = False) -> int:
        return 0

    def work(self) -> None:
        """What becomes of the messages that have been taken."""
        for job_id in self.world.taken:
            if not self.is_dead:
                self.world.jobs.begin(job_id, run=f"run-{job_id}")
                self.world.begun.append((self.world.clock.now_s, job_id))
        self.world.taken.clear()


class World:
    """A table, its caretaker, and a clock of its own."""

    def __init__(self, session: Any, monkeypatch: pytest.MonkeyPatch) -> None:
        self.table, self.calls = create_table(session)
        self.jobs = JobStore(self.table, lease_s=10**9, max_runs=3)
        self.clock = TableClock(monkeypatch)
        self.taken: list[str] = []
        self.begun: list[tuple[int, str]] = []
        self.fleet = Fleet(self)
        self.care = Care(self.jobs, self.fleet, WebhookQueue(None, None), session.client("s3"))

    def submit(self, count: int, *, is_batch: bool = False) -> None:
        for number in range(count):
            job_id = f"job-{number}"
            new = NewJob(
                job_id=job_id,
                owner="team",
                request_uri="s3://assets/requests/1.json",
                result_uri="s3://results/1/result.json",
                batch="b-1" if is_batch else None,
            )
            state = self.jobs.submit_of_batch(new) if is_batch else self.jobs.submit(new)
            self.fleet.send(state.message, is_batch=is_batch)
            self.jobs.dispatched(job_id, is_batch=is_batch)

    def play(self, rounds: int, *, every_s: int = MINUTE_S) -> None:
        for _ in range(rounds):
            self.fleet.work()
            self.clock.later(every_s)
            self.care.round()
        self.fleet.work()

    def read(self, job_id: str) -> JobState:
        state = self.jobs.read_alone(job_id)
        assert state is not None
        return state


@pytest.fixture
def world(monkeypatch: pytest.MonkeyPatch) -> Iterator[World]:
    with aws() as session:
        yield World(session, monkeypatch)


@pytest.mark.parametrize("is_batch", [False, True])
def test_an_image_that_dies_as_it_starts_costs_forty_jobs_few_invocations(world: World, is_batch: bool) -> None:
    world.submit(40, is_batch=is_batch)
    world.play(30)
    assert 40 < world.fleet.invocations < 60, "1,129 when each job was sent again each minute"


def test_an_image_that_dies_for_a_day_costs_an_invocation_an_hour(world: World) -> None:
    world.submit(3)
    world.play(24, every_s=5 * MINUTE_S)
    before = world.fleet.invocations
    world.play(24, every_s=10 * MINUTE_S)
    assert before < 15
    assert 3 <= world.fleet.invocations - before <= 4


def test_once_workers_live_all_jobs_run_soon_after_the_next_turn(world: World) -> None:
    world.submit(40)
    world.play(10)
    world.fleet.is_dead = False
    world.play(22)
    first = world.begun[0][0]
    assert {job_id for _, job_id in world.begun} == {f"job-{number}" for number in range(40)}
    assert max(when for when, _ in world.begun) - first <= 10 * MINUTE_S, "1, 2, 4, 8 … jobs in a turn"


def test_a_worker_that_died_by_accident_costs_its_jobs_a_minute_or_two(world: World) -> None:
    world.submit(FIRST_WIDTH)
    world.fleet.work()
    world.fleet.is_dead = False
    world.play(2)
    assert len(world.begun) == FIRST_WIDTH
    assert world.fleet.invocations == 2 * FIRST_WIDTH


def test_a_job_that_kills_its_workers_keeps_no_other_waiting_for_long(world: World, monkeypatch: Any) -> None:
    world.submit(6)
    begin = JobStore.begin

    def begin_or_die(store: JobStore, job_id: str, *, run: str) -> Any:
        return None if job_id == "job-0" else begin(store, job_id, run=run)

    world.fleet.work()
    world.fleet.is_dead = False
    monkeypatch.setattr(JobStore, "begin", begin_or_die)
    world.play(8)
    assert {state.id for state in map(world.read, (f"job-{n}" for n in range(6))) if state.run is None} == {"job-0"}


def test_each_job_counts_how_often_it_was_sent_and_waits_for_twice_as_long(world: World) -> None:
    world.submit(1)
    seen = []
    for _ in range(16):
        world.play(1)
        seen.append(world.read("job-0").sent_again)
    assert seen == [1, 1, 2, 2, 2, 2, 3, 3, 3, 3, 3, 3, 3, 3, 4, 4]


def test_an_item_without_the_count_is_one_that_was_never_sent_again(world: World) -> None:
    world.submit(1)
    item = world.table.get("job#job-0", "job")
    assert item is not None
    assert "sent_again" not in item
    assert JobState.from_item(item).sent_again == 0


def test_two_callers_begin_one_turn(world: World) -> None:
    world.submit(2)
    other = JobStore(world.table, lease_s=30, max_runs=3)
    states = [world.read("job-0"), world.read("job-1")]
    for state in states:
        state_store = world.jobs if state.id == "job-0" else other
        assert state_store.take_turn(state)
    item = world.table.get("care", "queued")
    assert item is not None
    assert (item["first"], item["sent"]) == ("job-0", 2)


def test_a_turn_is_followed_at_once_if_it_was_long_ago_and_says_nothing_of_workers_any_more() -> None:
    turn = Turn(begun=1000, first="a", width=1, failed=3)
    assert turn.end == 1000 + 8 * 60

    def following(now: int, *, is_begun: bool) -> Turn | None:
        return turn.next("b", is_begun=lambda: is_begun, now=now)

    assert following(1059, is_begun=True) is None, "a minute at least"
    assert following(1060, is_begun=True) == Turn(begun=1060, first="b", width=2)
    assert following(turn.end - 1, is_begun=False) is None
    assert following(turn.end, is_begun=False) == Turn(begun=turn.end, first="b", width=1, failed=4)
    assert following(turn.expires, is_begun=False) == Turn(begun=turn.expires, first="b")
    wide = Turn(begun=1000, first="a", width=90).next("b", is_begun=lambda: True, now=1060)
    assert wide is not None
    assert wide.width == MAX_WIDTH


def test_pauses_are_one_two_four_up_to_sixty_minutes() -> None:
    assert [again_after_s(times) // 60 for times in (0, 1, 2, 3, 4, 5, 6, 99)] == [1, 2, 4, 8, 16, 32, 60, 60]
