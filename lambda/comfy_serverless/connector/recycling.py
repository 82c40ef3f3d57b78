"""Decides when an engine's process is replaced because of what it holds. Without IO: it is fed readings.

A leak grows, and so does memory that is well used: ComfyUI keeps the models and results of earlier prompts. What tells
them apart, for the memory of the processor and of the GPU alike:

    the first jobs ──► what they leave is where growth is counted from
    a job with a class or model that is new to the process ──► what it adds is explained by it
    growth that nothing explains, above the limit ──► FREE: have ComfyUI let go of all it can, and read again
          less is left than the least so far, and the limit ──► it was well used: counted from here on
          more ──► REPLACE

So a leak is found when it has grown by the limit, or by twice that beside models that were loaded from the first job
on; and memory that is well used costs one loading of the models for each time it reaches a new height, never a process.
Growth that first uses explain is held to several times the limit: where each job names another model, all are such.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import Enum

#: What this many jobs leave is where growth is counted from.
FIRST_JOBS = 3
#: How many times the limit all growth together may be, explained or not, before it is looked into.
_EXPLAINED_LIMITS = 3
#: The jobs between a replacement that failed and the next try; doubled with each.
_AGAIN_AFTER_JOBS = 10


class Step(Enum):
    """What to do with a process."""

    KEEP = "keep"
    FREE = "free"
    REPLACE = "replace"


@dataclass(frozen=True, slots=True)
class Reading:
    """What a process holds while nothing runs.

    Attributes:
        jobs: how many it has run.
        resident_bytes: the memory of all its processes.
        gpu_bytes: the memory of its GPUs that is in use; 0 without one.
        is_first_use: whether it has used a class or a model for the first time since the last reading.
    """

    jobs: int
    resident_bytes: int
    gpu_bytes: int = 0
    is_first_use: bool = False


@dataclass(slots=True)
class _Level:
    """One kind of memory of one process.

    Attributes:
        limit: how much growth is borne.
        explained: what it may hold beside its cache of models and results.
        checked: what was explained when that was last looked into.
        least: the least it has held, with or without that cache.
    """

    name: str
    limit: int
    explained: int = 0
    checked: int = 0
    least: int = 0
    _last: int = 0

    def settle(self, held: int) -> None:
        """Count growth from here, at least."""
        self.explained = self.checked = self.least = self._last = max(self.explained, held)

    def observe(self, held: int, *, is_first_use: bool) -> bool:
        """Whether it must be looked into."""
        if is_first_use:
            self.explained += max(0, held - max(self._last, self.explained))
        self._last = held
        return held - self.explained > self.limit or held - self.checked > _EXPLAINED_LIMITS * self.limit

    def observe_freed(self, before: int, held: int) -> bool:
        """Whether it has leaked, from what it holds before and after it has let go of all that it can."""
        leaked = held - self.least > self.limit
        self.least = min(self.least, held)
        self.explained = self.checked = max(self.explained, before)
        self._last = before
        return leaked


@dataclass(slots=True)
class Recycling:
    """Whether one process has to be replaced, from its first job on.

    Args:
        growth_bytes: how much it may grow.
        gpu_growth_bytes: how much more memory of the GPU it may hold.
        max_jobs: how many jobs it may run; None for any number.
    """

    growth_bytes: int
    gpu_growth_bytes: int
    max_jobs: int | None = None
    #: Why it is to be replaced; empty as long as it is not.
    reason: str = ""
    _levels: tuple[_Level, _Level] = field(init=False)
    _before: tuple[int, int] = (0, 0)
    _is_settled: bool = False
    _not_before: int = 0
    _failures: int = 0

    def __post_init__(self) -> None:
        self._levels = (_Level("memory", self.growth_bytes), _Level("memory of the GPU", self.gpu_growth_bytes))

    def observe(self, reading: Reading) -> Step:
        """What to do after a reading between two jobs."""
        if reading.jobs < self._not_before:
            return Step.KEEP
        if self.reason:  # it was found, but ComfyUI had other things to do, or did not say that it had none
            return Step.REPLACE
        if self.has_run_enough(reading.jobs):
            self.reason = f"it has run {reading.jobs} jobs (ENGINE_MAX_JOBS={self.max_jobs})"
            return Step.REPLACE
        held = (reading.resident_bytes, reading.gpu_bytes)
        if not self._is_settled:
            for level, now in zip(self._levels, held, strict=True):
                level.settle(now)
            self._is_settled = reading.jobs >= FIRST_JOBS
            return Step.KEEP
        self._before = held
        looks = [
            level.observe(now, is_first_use=reading.is_first_use) for level, now in zip(self._levels, held, strict=True)
        ]
        return Step.FREE if any(looks) else Step.KEEP

    def observe_freed(self, reading: Reading) -> Step:
        """What to do after a reading of a process that has let go of all it can: the answer to FREE."""
        held = (reading.resident_bytes, reading.gpu_bytes)
        for level, before, now in zip(self._levels, self._before, held, strict=True):
            least = level.least
            if level.observe_freed(before, now):
                self.reason = (
                    f"after {reading.jobs} jobs it holds {_mb(now)} MB of {level.name} that it cannot let go of: "
                    f"{_mb(now - least)} MB more than after its first jobs (ENGINE_GROWTH_BYTES)"
                )
        return Step.REPLACE if self.reason else Step.KEEP

    def has_run_enough(self, jobs: int) -> bool:
        """Whether it has run as many jobs as it may."""
        return self.max_jobs is not None and jobs >= max(self.max_jobs, self._not_before)

    def put_off(self, jobs: int) -> int:
        """Note that it could not be replaced after this many jobs; return after how many to try again."""
        self._not_before = jobs + (_AGAIN_AFTER_JOBS << self._failures)
        self._failures += 1
        self.reason = ""
        return self._not_before


def _mb(size_bytes: int) -> int:
    return round(size_bytes / 1_000_000)
