"""The autoscaling policies' arithmetic: given what the metrics say, how many instances shall there be?

No clock and no AWS: readings go in, capacities come out. What is documented and what is assumed: docs/scaling.md.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Protocol

#: CloudWatch's period: how often a policy is given a number.
PERIOD_S = 60.0
#: Target tracking's own alarms: so many periods above the target; so many below nine tenths of it.
HIGH_PERIODS, LOW_PERIODS, LOW_SHARE = 3, 15, 0.9


@dataclass(frozen=True, slots=True)
class Reading:
    """What is known at the end of a period. The backlog has what waits and what executes, as SageMaker counts it."""

    at_s: float
    backlog: int
    in_service: int
    capacity: int


@dataclass(frozen=True, slots=True)
class Memory:
    """What a policy remembers: for how many periods its alarms have been up, and its last activities."""

    high: int = 0
    low: int = 0
    out_at_s: float = -math.inf
    out_to: int = 0
    in_at_s: float = -math.inf


def backlog_per_instance(backlog: int, in_service: int) -> float:
    """`ApproximateBacklogSizePerInstance`. With no instance it is the whole backlog."""
    return backlog / max(1, in_service)


def capacity_for(per_instance: float, in_service: int, *, target: float) -> int:
    """How many instances would bring the backlog of each to the target."""
    return math.ceil(per_instance * max(1, in_service) / target - 1e-9)


class Policy(Protocol):
    """A scaling policy: it counts periods, and wishes for a capacity, or nothing."""

    def observe(self, memory: Memory, reading: Reading) -> Memory: ...
    def wish(self, memory: Memory, reading: Reading) -> int | None: ...


@dataclass(frozen=True, slots=True, kw_only=True)
class TargetTracking:
    """Keeps the backlog per instance at a target."""

    target: float
    out_cooldown_s: float = 60.0
    in_cooldown_s: float = 300.0

    def observe(self, memory: Memory, reading: Reading) -> Memory:
        """Count the periods above and below."""
        value = backlog_per_instance(reading.backlog, reading.in_service)
        return replace(
            memory,
            high=memory.high + 1 if value > self.target else 0,
            low=memory.low + 1 if value < LOW_SHARE * self.target else 0,
        )

    def wish(self, memory: Memory, reading: Reading) -> int | None:
        """More at once, and during a cooldown only more still; less only when the last less is long enough ago."""
        value = backlog_per_instance(reading.backlog, reading.in_service)
        wanted = capacity_for(value, reading.in_service, target=self.target)
        if memory.high >= HIGH_PERIODS and wanted > reading.capacity:
            is_cooling = reading.at_s < memory.out_at_s + self.out_cooldown_s
            return wanted if not is_cooling or wanted > memory.out_to else None
        if memory.low >= LOW_PERIODS and wanted < reading.capacity:
            return wanted if reading.at_s >= memory.in_at_s + self.in_cooldown_s else None
        return None


@dataclass(frozen=True, slots=True, kw_only=True)
class FromZero:
    """Adds instances while there is a backlog and no instance in service: `HasBacklogWithoutCapacity`."""

    add: int = 1
    periods: int = 1
    cooldown_s: float = 600.0

    def observe(self, memory: Memory, reading: Reading) -> Memory:
        """Count the periods of a backlog without capacity."""
        is_stuck = reading.backlog > 0 and reading.in_service == 0
        return replace(memory, high=memory.high + 1 if is_stuck else 0)

    def wish(self, memory: Memory, reading: Reading) -> int | None:
        """One step, and the next one not before the first has had its time."""
        is_cooling = reading.at_s < memory.out_at_s + self.cooldown_s
        return reading.capacity + self.add if memory.high >= self.periods and not is_cooling else None


class Autoscaler:
    """Application Auto Scaling: several policies on one target. The largest capacity that is wished for wins."""

    def __init__(self, policies: Sequence[Policy], *, minimum: int = 0, maximum: int) -> None:
        self._policies = policies
        self._memories = [Memory() for _ in policies]
        self._minimum = minimum
        self._maximum = maximum

    def decide(self, reading: Reading) -> int:
        """The capacity from now on."""
        self._memories = [
            policy.observe(memory, reading) for policy, memory in zip(self._policies, self._memories, strict=True)
        ]
        wishes = [policy.wish(memory, reading) for policy, memory in zip(self._policies, self._memories, strict=True)]
        stated = [wish for wish in wishes if wish is not None]
        chosen = max(stated, default=reading.capacity)
        capacity = min(self._maximum, max(self._minimum, chosen))
        for number, wish in enumerate(wishes):
            if wish == chosen:
                self._memories[number] = _after(self._memories[number], reading, capacity)
        return capacity


def _after(memory: Memory, reading: Reading, capacity: int) -> Memory:
    """A policy's memory once its wish was followed. Scaling out ends the cooldown of scaling in."""
    if capacity > reading.capacity:
        return replace(memory, out_at_s=reading.at_s, out_to=capacity, in_at_s=-math.inf)
    if capacity < reading.capacity:
        return replace(memory, in_at_s=reading.at_s)
    return memory
