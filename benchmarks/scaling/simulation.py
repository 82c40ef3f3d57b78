"""A simulated endpoint: jobs come, instances start, execute and are taken away, each at its time.

An instance executes one job at a time, as its one GPU does: what else it has in flight is being delivered.
"""

from __future__ import annotations

import heapq
import math
import random
from collections import deque
from dataclasses import dataclass, field

from benchmarks.scaling.policies import PERIOD_S, Autoscaler, Reading

#: What a container is given between SIGTERM and SIGKILL.
STOP_S = 30.0
#: Where a simulation ends that does not come to rest.
LONGEST_S = 90 * 86_400.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Load:
    """Jobs: when they come and how long they take. The same seed makes the same ones."""

    jobs: int
    rate: float | None = None
    job_s: float = 8.0
    spread: float = 0.4
    seed: int = 1

    def arrivals(self) -> list[float]:
        """All at once, or by and by as a Poisson process."""
        if self.rate is None:
            return [0.0] * self.jobs
        dice, at_s, times = random.Random(f"arrivals {self.seed}"), 0.0, []
        for _ in range(self.jobs):
            at_s += dice.expovariate(self.rate)
            times.append(at_s)
        return times

    def durations(self) -> list[float]:
        """Log-normal around the mean: many about as long as usual, a few much longer."""
        dice = random.Random(f"durations {self.seed}")
        middle = math.log(self.job_s) - self.spread**2 / 2
        return [dice.lognormvariate(middle, self.spread) for _ in range(self.jobs)]


@dataclass(frozen=True, slots=True)
class Sample:
    """One point of the series."""

    at_s: float
    backlog: int
    in_service: int
    capacity: int
    oldest_s: float


@dataclass(slots=True)
class Outcome:
    """What became of a load.

    Attributes:
        ended: how often each job ended.
        cut: how often a job was lost with its instance, and ran again.
        instance_s: what is paid, from an instance's request to its end.
        busy_s: how long instances executed.
    """

    ended: list[int]
    series: list[Sample] = field(default_factory=list)
    cut: int = 0
    instance_s: float = 0.0
    busy_s: float = 0.0
    first_start_s: float | None = None
    last_end_s: float = 0.0
    longest_wait_s: float = 0.0

    @property
    def most_instances(self) -> int:
        """The most in service at once."""
        return max((sample.in_service for sample in self.series), default=0)


@dataclass(eq=False, slots=True)
class _Instance:
    asked_s: float
    ready_s: float
    job: int | None = None
    begun_s: float = 0.0
    is_leaving: bool = False
    is_gone: bool = False


class Simulation:
    """An endpoint from its first job until everything is done and it is at its minimum again."""

    def __init__(self, load: Load, scaler: Autoscaler, *, start_s: float, minimum: int = 0) -> None:
        self._arrivals, self._durations = load.arrivals(), load.durations()
        self._scaler = scaler
        self._start_s = start_s
        self._minimum = minimum
        self._events: list[tuple[float, int, str, int | _Instance | None]] = []
        self._number = 0
        self._now = 0.0
        self._waiting: deque[int] = deque()
        self._instances: list[_Instance] = []
        self._left = load.jobs
        self._outcome = Outcome(ended=[0] * load.jobs)

    def run(self) -> Outcome:
        """Let it all happen."""
        for job, at_s in enumerate(self._arrivals):
            self._at(at_s, "arrival", job)
        for _ in range(self._minimum):
            self._instances.append(_Instance(0.0, 0.0))
        self._at(PERIOD_S, "reading", None)
        while self._events and self._now < LONGEST_S:
            self._now, _, kind, subject = heapq.heappop(self._events)
            if kind == "reading":
                if not self._read():
                    break
            elif isinstance(subject, _Instance):
                self._see(kind, subject)
            elif subject is not None:
                self._waiting.append(subject)
            self._assign()
        self._sample()
        for instance in list(self._instances):
            self._remove(instance)
        return self._outcome

    def _at(self, at_s: float, kind: str, subject: int | _Instance | None) -> None:
        self._number += 1
        heapq.heappush(self._events, (at_s, self._number, kind, subject))

    def _see(self, kind: str, instance: _Instance) -> None:
        if instance.is_gone:
            return
        if kind == "end" and instance.job is not None:
            self._end_job(instance, instance.job)
        elif kind == "kill":
            self._remove(instance)

    def _end_job(self, instance: _Instance, job: int) -> None:
        self._outcome.ended[job] += 1
        self._outcome.busy_s += self._now - instance.begun_s
        self._outcome.last_end_s = self._now
        self._left -= 1
        instance.job = None
        if instance.is_leaving:
            self._remove(instance)

    def _remove(self, instance: _Instance) -> None:
        """The end of an instance; its job comes again."""
        instance.is_gone = True
        self._instances.remove(instance)
        self._outcome.instance_s += self._now - instance.asked_s
        if instance.job is not None:
            self._outcome.cut += 1
            self._outcome.busy_s += self._now - instance.begun_s
            self._waiting.appendleft(instance.job)

    def _assign(self) -> None:
        for instance in self._instances:
            if not self._waiting:
                return
            if instance.job is None and not instance.is_leaving and instance.ready_s <= self._now:
                job = self._waiting.popleft()
                instance.job, instance.begun_s = job, self._now
                if self._outcome.first_start_s is None:
                    self._outcome.first_start_s = self._now
                self._outcome.longest_wait_s = max(self._outcome.longest_wait_s, self._now - self._arrivals[job])
                self._at(self._now + self._durations[job], "end", instance)

    def _read(self) -> bool:
        """The end of a period; returns whether there is more to come."""
        seen = self._sample()
        capacity = self._scaler.decide(Reading(seen.at_s, seen.backlog, seen.in_service, seen.capacity))
        self._change([instance for instance in self._instances if not instance.is_leaving], capacity)
        self._at(self._now + PERIOD_S, "reading", None)
        return self._left > 0 or len(self._instances) > self._minimum

    def _sample(self) -> Sample:
        staying = [instance for instance in self._instances if not instance.is_leaving]
        in_service = sum(instance.ready_s <= self._now for instance in staying)
        executing = sum(instance.job is not None for instance in self._instances)
        oldest_s = self._now - self._arrivals[self._waiting[0]] if self._waiting else 0.0
        sample = Sample(self._now, len(self._waiting) + executing, in_service, len(staying), oldest_s)
        self._outcome.series.append(sample)
        return sample

    def _change(self, staying: list[_Instance], capacity: int) -> None:
        for _ in range(capacity - len(staying)):
            instance = _Instance(self._now, self._now + self._start_s)
            self._instances.append(instance)
            self._at(instance.ready_s, "ready", instance)
        for instance in reversed(staying[capacity:]):  # the youngest: AWS does not promise that it is an idle one
            instance.is_leaving = True
            if instance.job is None:
                self._remove(instance)
            else:
                self._at(self._now + STOP_S, "kill", instance)
