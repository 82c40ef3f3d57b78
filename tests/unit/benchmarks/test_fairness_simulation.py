"""The simulated owners: SQS's documented rule, what must be true of every run, and the figures in the docs."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path

import pytest

from benchmarks.scaling.fairness import (
    AFTER,
    BEFORE,
    LARGE,
    NOISY_IN_FLIGHT,
    RESULTS,
    SMALL,
    WAYS,
    Case,
    Job,
    Queue,
    cases,
    clock,
    simulate,
)

DOCS = Path(__file__).parents[3] / "docs" / "scaling.md"


def filled(*owners: str, is_fair: bool = True) -> Queue:
    queue = Queue(is_fair=is_fair)
    for number, owner in enumerate(owners):
        queue.send(Job(owner, float(number), 1.0))
    return queue


def owners_of(queue: Queue, count: int, now: float = 100.0) -> list[str]:
    return [job.owner for _ in range(count) if (job := queue.receive(now)) is not None]


def test_without_fairness_messages_come_in_order() -> None:
    queue = filled(*["a"] * 40, "b", is_fair=False)
    assert owners_of(queue, 50) == ["a"] * 40 + ["b"]


def test_a_tenant_with_many_in_flight_is_noisy_and_the_others_messages_go_first() -> None:
    queue = filled(*["a"] * 40, "b", "b", "a")
    assert owners_of(queue, NOISY_IN_FLIGHT - 1) == ["a"] * (NOISY_IN_FLIGHT - 1), "as long as nobody knows"
    assert not queue.is_noisy("a", 100.0)
    assert owners_of(queue, 4) == ["a", "b", "b", "a"]
    assert queue.is_noisy("a", 100.0)


def test_a_tenant_with_much_of_the_recent_processing_time_is_noisy_until_that_is_long_ago() -> None:
    queue = filled("a", "a", "b")
    queue.delete(queue.receive(0.0) or pytest.fail("there are messages"), 5.0)
    assert queue.is_noisy("a", 6.0)
    assert owners_of(queue, 3, now=6.0) == ["b", "a"]
    assert not queue.is_noisy("a", 600.0)


def test_among_noisy_tenants_the_one_with_fewest_in_flight_is_next() -> None:
    queue = filled("a", "a", "a", "a", "b", "b", "b")
    for _ in range(2):  # one of each, which take long
        queue.delete(queue.receive(0.0) or pytest.fail("there are messages"), 50.0)
    assert owners_of(queue, 5, now=51.0) == ["a", "b", "a", "b", "a"]


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("is_batch", [False, True])
def test_every_job_ends_once_and_no_gpu_executes_two(way: str, is_batch: bool) -> None:
    case = Case(way=way, instances=3, is_batch=is_batch)
    jobs = case.jobs(300, 5)
    result = simulate(case, jobs)
    assert all(job.sent_s <= job.begun_s < job.ended_s for job in jobs)
    moments = sorted([(job.begun_s, 1) for job in jobs] + [(job.ended_s, -1) for job in jobs])
    at_once = most = 0
    for _, change in moments:
        at_once += change
        most = max(most, at_once)
    assert most == 3
    assert result.idle_percent < 2


@pytest.mark.parametrize(("before", "after"), list(zip(BEFORE, AFTER, strict=True)))
def test_the_small_owner_does_not_wait_for_the_large_one_and_that_one_loses_little(before: str, after: str) -> None:
    was, now = (simulate(case, case.jobs(1000)) for case in (Case(way=before), Case(way=after)))
    assert now.small_done_s < was.small_begins_s / 10
    assert now.large_done_s < 1.02 * was.large_done_s


def test_alone_an_owner_is_as_fast_as_ever() -> None:
    ends = []
    for way in WAYS:
        case = Case(way=way)
        jobs = [*case.jobs(500, 0), Job(SMALL, 1e6, 1.0)]
        ends.append(max(job.ended_s for job in jobs if job.owner == LARGE) if simulate(case, jobs) else 0.0)
    assert max(ends) < 1.01 * min(ends)


def test_the_results_are_those_of_this_simulation_and_in_the_docs() -> None:
    results = [simulate(case, case.jobs()) for case in cases()]
    assert json.loads(RESULTS.read_text()) == [asdict(one) for one in results]
    docs = DOCS.read_text(encoding="utf-8")
    for one in results:
        times = " | ".join(map(clock, (one.small_begins_s, one.small_done_s, one.large_done_s)))
        row = f"| {one.way} | {one.large_is} | {one.instances} | {one.job_s:g} s | {times} | {one.idle_percent:.2f} % |"
        assert row in docs
