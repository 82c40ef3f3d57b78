"""An owner with thousands of jobs beside one with a few: how long the latter waits, without fairness and with it.

    owners ──► fair queue ──► holders ──► gate ──► endpoint's own queue ──► containers, each with one GPU

Arithmetic with a clock of its own, like the rest of this folder: no emulator of SQS knows fair queues. What AWS
documents of them, and what is assumed, is in docs/scaling.md. The gate's places are `table/gate.py`'s own arithmetic.
"""

from __future__ import annotations

import argparse
import functools
import heapq
import json
import math
from collections import Counter, deque
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path

from rich.console import Console
from rich.table import Table

from benchmarks.scaling.simulation import Load
from comfy_serverless.handlers.forward import PAUSE_S
from comfy_serverless.table.gate import places_for

RESULTS = Path(__file__).with_name("fairness.json")
#: SQS's documented rule: a tenant is noisy with this share of what is in flight and so many of its own, or with this
#: share of the recent processing time; it is quiet again once none of its messages waits.
NOISY_SHARE, NOISY_IN_FLIGHT = 0.1, 30
#: How long ago is "recent": not documented, assumed.
RECENT_S = 60.0
#: From a message to the function that has it: assumed.
HAND_OVER_S = 0.1
#: As infra/ sets them: invocations at once from each queue, jobs in a container, places of batches for each instance.
HOLDERS, IN_FLIGHT, PER_INSTANCE = 2, 3, 2
LARGE, SMALL = "large", "small"


@dataclass(slots=True)
class Job:
    """A job, and what became of it."""

    owner: str
    sent_s: float
    duration_s: float
    is_batch: bool = False
    begun_s: float = math.nan
    ended_s: float = math.nan


class Queue:
    """A standard queue of SQS, fair or not: messages come about in order, a noisy tenant's after all others'."""

    def __init__(self, *, is_fair: bool) -> None:
        self._is_fair = is_fair
        self._waiting: dict[str, deque[Job]] = {}
        self._taken: dict[int, float] = {}
        self._in_flight: Counter[str] = Counter()
        self._spent: deque[tuple[float, str, float]] = deque()

    def send(self, job: Job) -> None:
        """Put a message in."""
        self._waiting.setdefault(job.owner, deque()).append(job)

    def receive(self, now: float) -> Job | None:
        """Take the message that is next."""
        owners = [owner for owner, jobs in self._waiting.items() if jobs]
        if not owners:
            return None
        owner = min(owners, key=lambda owner: self._turn(owner, now))
        job = self._waiting[owner].popleft()
        self._taken[id(job)] = now
        self._in_flight[owner] += 1
        return job

    def delete(self, job: Job, now: float) -> None:
        """The message is done with."""
        self._in_flight[job.owner] -= 1
        self._spent.append((now, job.owner, now - self._taken.pop(id(job))))

    def is_noisy(self, owner: str, now: float) -> bool:
        """By the documented rule."""
        in_flight = self._in_flight[owner]
        if in_flight >= NOISY_IN_FLIGHT and in_flight > NOISY_SHARE * self._in_flight.total():
            return True
        while self._spent and self._spent[0][0] < now - RECENT_S:
            self._spent.popleft()
        own_s = sum(seconds for _, of, seconds in self._spent if of == owner)
        return own_s > NOISY_SHARE * sum(seconds for *_, seconds in self._spent)

    def _turn(self, owner: str, now: float) -> tuple[float, float]:
        """Quiet tenants first; among noisy ones the one with the fewest in flight; then the oldest message."""
        sent_s = self._waiting[owner][0].sent_s
        if not self._is_fair:
            return 0.0, sent_s
        return (1.0 + self._in_flight[owner] if self.is_noisy(owner, now) else 0.0), sent_s


@dataclass(slots=True)
class _Container:
    """A GPU: jobs in hand, of which the first executes."""

    places: int
    jobs: deque[Job] = field(default_factory=deque)
    busy_s: float = 0.0


@dataclass(slots=True)
class _Holder:
    """An invocation of the function before the endpoint: it holds one job until there is room."""

    queue: Queue
    job: Job | None = None


class Run:
    """One simulation of a fixed number of instances.

    Args:
        queues: what comes before the endpoint, and by how many holders each is emptied.
        room: how many jobs may wait in the endpoint's own queue for this one to join.
    """

    def __init__(self, instances: int, *, in_flight: int, room: Callable[[Job], float]) -> None:
        self._containers = [_Container(in_flight) for _ in range(instances)]
        self._inside: deque[Job] = deque()
        self._holders: list[_Holder] = []
        self._room = room
        self._events: list[tuple[float, int, Callable[[], None]]] = []
        self._number = 0
        self.now = 0.0

    def add(self, queue: Queue, *, holders: int) -> None:
        """Have a queue emptied into the endpoint."""
        self._holders += [_Holder(queue) for _ in range(holders)]

    def run(self, jobs: Sequence[Job], queue_of: Callable[[Job], Queue | None]) -> float:
        """Run all jobs; a job without a queue is sent straight to the endpoint. Returns how long GPUs were idle."""
        for job in jobs:
            self._at(job.sent_s, lambda job=job: self._arrive(job, queue_of(job)))  # type: ignore[misc]
        while self._events:
            self.now, _, act = heapq.heappop(self._events)
            act()
        span_s = self.now - min(job.sent_s for job in jobs)
        return span_s * len(self._containers) - sum(container.busy_s for container in self._containers)

    def _at(self, at_s: float, act: Callable[[], None]) -> None:
        self._number += 1
        heapq.heappush(self._events, (at_s, self._number, act))

    def _arrive(self, job: Job, queue: Queue | None) -> None:
        if queue is None:
            self._inside.append(job)
            self._hand_out()
            return
        queue.send(job)
        for holder in self._holders:
            if holder.queue is queue and holder.job is None:
                self._take(holder)
                return

    def _take(self, holder: _Holder) -> None:
        holder.job = holder.queue.receive(self.now)
        if holder.job is not None:
            self._at(self.now + HAND_OVER_S, lambda: self._look(holder))

    def _look(self, holder: _Holder) -> None:
        job = holder.job
        assert job is not None
        if len(self._inside) >= self._room(job):
            self._at(self.now + PAUSE_S, lambda: self._look(holder))
            return
        self._inside.append(job)
        holder.queue.delete(job, self.now)
        self._hand_out()
        self._take(holder)

    def _hand_out(self) -> None:
        """SageMaker gives what waits longest to whichever container has a place."""
        for container in sorted(self._containers, key=lambda one: len(one.jobs)):
            while self._inside and len(container.jobs) < container.places:
                container.jobs.append(self._inside.popleft())
                if len(container.jobs) == 1:
                    self._execute(container)

    def _execute(self, container: _Container) -> None:
        job = container.jobs[0]
        job.begun_s, job.ended_s = self.now, self.now + job.duration_s
        container.busy_s += job.duration_s
        self._at(job.ended_s, lambda: self._end(container))

    def _end(self, container: _Container) -> None:
        container.jobs.popleft()
        if container.jobs:
            self._execute(container)
        self._hand_out()


@dataclass(frozen=True, slots=True)
class Result:
    """How long the owner with a few jobs waited, in seconds, and what it cost the other."""

    way: str
    large_is: str
    instances: int
    job_s: float
    small_begins_s: float
    small_done_s: float
    large_done_s: float
    idle_percent: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """A way that jobs take, and two owners.

    Attributes:
        is_batch: whether the large owner's jobs are a batch, and nobody waits for them.
    """

    way: str
    instances: int = 4
    job_s: float = 8.0
    is_batch: bool = False

    def jobs(self, large: int = 5000, small: int = 5, *, later_s: float = 60.0) -> list[Job]:
        """All of the large owner's at once, the small one's a minute later."""
        durations = Load(jobs=large + small, job_s=self.job_s).durations()
        return [
            *(Job(LARGE, 0.0, duration, self.is_batch) for duration in durations[:large]),
            *(Job(SMALL, later_s, duration) for duration in durations[large:]),
        ]


def straight(case: Case, jobs: list[Job]) -> float:
    """As it was: callers' jobs into the endpoint at once; a batch waits before it, until 7 for each instance are in."""
    run = Run(case.instances, in_flight=IN_FLIGHT, room=lambda _job: case.instances * (4 + IN_FLIGHT))
    batches = Queue(is_fair=False)
    run.add(batches, holders=1)
    return run.run(jobs, lambda job: batches if job.is_batch else None)


def gated(case: Case, jobs: list[Job]) -> float:
    """As it is: two fair queues, and the gate."""

    def room(job: Job) -> int:
        return places_for(case.instances, per_instance=PER_INSTANCE, is_batch=job.is_batch)

    run = Run(case.instances, in_flight=IN_FLIGHT, room=room)
    queues = {is_batch: Queue(is_fair=True) for is_batch in (False, True)}
    for queue in queues.values():
        run.add(queue, holders=HOLDERS)
    return run.run(jobs, lambda job: queues[job.is_batch])


def functions(case: Case, jobs: list[Job], *, is_fair: bool) -> float:
    """Functions behind one queue: each holds a message for as long as it executes the job. Returns the idle time."""
    queue, coming, now, busy_s = Queue(is_fair=is_fair), deque(jobs), 0.0, 0.0
    ending: list[tuple[float, int, Job]] = []
    while True:
        while len(ending) < case.instances and (job := queue.receive(now)) is not None:
            job.begun_s, job.ended_s = now, now + job.duration_s
            busy_s += job.duration_s
            heapq.heappush(ending, (job.ended_s, id(job), job))
        if not coming and not ending:
            return now * case.instances - busy_s
        if coming and (not ending or coming[0].sent_s <= ending[0][0]):
            now = coming[0].sent_s
            while coming and coming[0].sent_s == now:
                queue.send(coming.popleft())
        else:
            now, _, job = heapq.heappop(ending)
            queue.delete(job, now)


WAYS: dict[str, Callable[[Case, list[Job]], float]] = {
    "endpoint, first come, first served": straight,
    "endpoint, fair queues and the gate": gated,
    "functions, queue without owners": functools.partial(functions, is_fair=False),
    "functions, fair queue": functools.partial(functions, is_fair=True),
}
BEFORE, AFTER = tuple(WAYS)[0::2], tuple(WAYS)[1::2]


def simulate(case: Case, jobs: list[Job]) -> Result:
    """What became of the jobs of a case."""
    idle_s = WAYS[case.way](case, jobs)
    small, large = ([job for job in jobs if job.owner == owner] for owner in (SMALL, LARGE))
    last_s = max(job.ended_s for job in jobs)
    return Result(
        way=case.way,
        large_is="batch" if case.is_batch else "callers",
        instances=case.instances,
        job_s=case.job_s,
        small_begins_s=round(min(job.begun_s - job.sent_s for job in small), 1),
        small_done_s=round(max(job.ended_s - job.sent_s for job in small), 1),
        large_done_s=round(max(job.ended_s for job in large), 1),
        idle_percent=round(100 * idle_s / (last_s * case.instances), 2),
    )


def cases() -> list[Case]:
    """What is compared."""
    return [
        *(Case(way=way, instances=instances) for instances in (1, 4) for way in WAYS),
        *(Case(way=way, is_batch=True) for way in tuple(WAYS)[:2]),
        *(Case(way=AFTER[0], instances=instances, job_s=job_s) for instances in (1, 4) for job_s in (2.0, 1.0)),
    ]


def main() -> None:
    """Simulate, show, and write the results if asked to."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.scaling.fairness", description=__doc__)
    parser.add_argument("--write", action="store_true", help=f"write {RESULTS.name}, which docs/scaling.md shows")
    options = parser.parse_args()
    results = [simulate(case, case.jobs()) for case in cases()]
    table = Table(title="5,000 jobs of one owner; a minute later 5 of another", box=None, title_justify="left")
    for column in ("way", "large", "GPUs", "job", "small begins", "small done", "large done", "idle"):
        table.add_column(column, justify="left" if column in ("way", "large") else "right")
    for one in results:
        times = (clock(one.small_begins_s), clock(one.small_done_s), clock(one.large_done_s))
        row = (one.way, one.large_is, str(one.instances), f"{one.job_s:g} s", *times, f"{one.idle_percent:.2f} %")
        table.add_row(*row)
    Console(width=120).print(table)
    if options.write:
        RESULTS.write_text(json.dumps([asdict(one) for one in results], indent=1) + "\n", encoding="utf-8")


def clock(seconds: float) -> str:
    """Seconds, or hours and minutes."""
    if seconds < 120:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    return f"{minutes // 60} h {minutes % 60:02} min" if minutes >= 60 else f"{minutes} min"


if __name__ == "__main__":
    main()
