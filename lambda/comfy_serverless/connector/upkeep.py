"""Keeps an engine healthy for weeks: between two runs, never during one, a process that has grown is replaced.

    run ends ──► the next begins, nothing else runs ──► reading ──► `recycling` decides
                                                                        │ REPLACE
            is there memory for two? ── yes ──► a second process starts, and runs go on with the first
                      │ no                        └─► it answers: the next run begins on it, and the first is ended
                      └──► the first is ended, and the next run waits for the start (also where memory
                           runs short meanwhile)

Who runs a workflow pays for at most a five-hundredth of its time (see `_SHARE`), and a few seconds where FREE asks for
them. An engine that is not our own process is left alone.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from comfy_serverless.connector import memory
from comfy_serverless.connector.client import RequestFailed
from comfy_serverless.connector.recycling import Reading, Recycling, Step
from comfy_serverless.errors import EngineUnavailable
from comfy_serverless.files import MODEL_ENDINGS

if TYPE_CHECKING:
    from comfy_serverless.connector.engine import Engine
    from comfy_serverless.settings import Settings

logger = logging.getLogger(__name__)

#: The share of time that readings may take: a few jobs in a hundred wait for one, however short they are.
_SHARE = 0.002
#: However long a reading took: on a busy machine that says little of the next one, and an engine may grow meanwhile.
_LOOK_WITHIN_S = 5.0
#: After so many runs without a reading, because there was always another one, the next run waits for a moment between.
_RUNS_UNREAD = 50
#: The share of the machine's memory, and of the GPU's, that an engine may grow by unless a setting says otherwise.
_GROWTH_SHARE = 4
#: Below this share of the machine's memory the first process ends although the second one does not answer yet.
_SHORT_SHARE = 16
#: What a second process needs of the GPU before it has loaded anything, in bytes.
_GPU_START_BYTES = 1_000_000_000
#: How long ComfyUI may take to let go of its memory, in seconds: at least, at most, and the time between two readings.
_FREED_AFTER_S, _FREED_WITHIN_S, _FREED_LOOK_S = 0.5, 3.0, 0.25
#: How many runs may begin while a second process starts; the time of its start must be over, too. (A sandbox may be
#: frozen between two runs: then that is no time for a start.)
_RUNS_MEANWHILE = 20


@dataclass(frozen=True, slots=True)
class Condition:
    """How an engine has been.

    Attributes:
        starts: how many processes have been started.
        recycled: how many of them have been replaced between two runs.
        resident_bytes, gpu_bytes: what it held at the last reading; 0 before, and where nothing says it.
    """

    starts: int = 0
    recycled: int = 0
    resident_bytes: int = 0
    gpu_bytes: int = 0


class Upkeep:
    """Counts the runs of one engine, and looks after it between them. Thread-safe."""

    def __init__(self, engine: Engine, settings: Settings) -> None:
        self._engine = engine
        self._settings = settings
        #: Held during a look: runs that begin wait for its end.
        self._lock = threading.Lock()
        self._most_unread = min(_RUNS_UNREAD, settings.engine_max_jobs or _RUNS_UNREAD)
        self._running = 0
        self._recycled = 0
        self._last = Reading(0, 0)
        self._next_look = 0.0
        self._give_up_at, self._give_up_jobs = 0.0, 0
        self._begin_life(engine.starts)

    def _begin_life(self, starts: int) -> None:
        self._starts = starts
        self._jobs = self._jobs_read = 0
        self._seen: set[str] = set()
        self._is_first_use = False
        self._least_resident = 0
        self._recycling: Recycling | None = None

    @property
    def condition(self) -> Condition:
        """How the engine has been."""
        last = self._last
        return Condition(self._engine.starts, self._recycled, last.resident_bytes, last.gpu_bytes)

    @contextmanager
    def run(self, graph: Mapping[str, Any]) -> Iterator[None]:
        """Have one more run, from its beginning to its end. If it is the only one, the engine is looked after first."""
        with self._lock:
            if not self._running:
                self._look()
            self._running += 1
            new = _names_in(graph) - self._seen
            self._is_first_use |= bool(new)
            self._seen |= new
        try:
            yield
        finally:
            with self._lock:
                self._running -= 1
                self._jobs += 1

    def wants_a_moment(self) -> bool:
        """Whether the next run should begin when nothing runs: there is something to look after."""
        if self._engine.process is None:
            return False
        is_over = self._recycling is not None and self._recycling.has_run_enough(self._jobs)
        return is_over or self._engine.successor is not None or self._jobs - self._jobs_read >= self._most_unread

    def _look(self) -> None:
        engine = self._engine
        if engine.process is None or not engine.is_running:
            return
        if engine.starts != self._starts:  # it has died, and was started again
            engine.drop_successor()
            self._begin_life(engine.starts)
        if engine.successor is not None:
            self._succeed()
            return
        if self._jobs == 0:
            return
        recycling = self._recycling = self._recycling or self._limits()
        begun = time.monotonic()
        if begun < self._next_look and not recycling.has_run_enough(self._jobs):
            return
        reading = self._read()
        now = time.monotonic()
        self._next_look = now + min((now - begun) / _SHARE, _LOOK_WITHIN_S)
        step = recycling.observe(reading)
        if step is Step.FREE and self._is_idle():
            engine.free_memory(unload_models=True)
            step = recycling.observe_freed(self._read_freed())
        if step is Step.REPLACE and self._is_idle():
            self._replace(recycling)

    def _limits(self) -> Recycling:
        growth = self._settings.engine_growth_bytes
        _, gpu_total = memory.gpu_bytes(self._engine.stats)
        return Recycling(
            growth or (memory.total_bytes() or 1 << 62) // _GROWTH_SHARE,
            growth or (gpu_total or 1 << 62) // _GROWTH_SHARE,
            self._settings.engine_max_jobs,
        )

    def _read(self) -> Reading:
        process = self._engine.process
        resident = memory.resident_bytes(process.pid) if process is not None and process.pid is not None else 0
        gpu, gpu_total = memory.gpu_bytes(self._engine.stats)
        if gpu_total:
            try:
                gpu, _ = memory.gpu_bytes(self._engine.client.system_stats())
            except RequestFailed as error:
                logger.info("ComfyUI could not be asked for its memory: %s", error)
                gpu = self._last.gpu_bytes
        self._last = Reading(self._jobs, resident, gpu, self._is_first_use)
        self._least_resident = min(self._least_resident or resident, resident)
        self._is_first_use, self._jobs_read = False, self._jobs
        return self._last

    def _read_freed(self) -> Reading:
        """Read again once it has let go of what it can: until it holds no less than a moment before."""
        give_up_at = time.monotonic() + _FREED_WITHIN_S
        time.sleep(_FREED_AFTER_S)
        now = self._read()
        while time.monotonic() < give_up_at:
            time.sleep(_FREED_LOOK_S)
            before, now = now, self._read()
            if not _is_less(now, before):
                break
        return now

    def _is_idle(self) -> bool:
        """Whether ComfyUI has nothing to do, for other clients either."""
        try:
            return self._engine.client.queue_remaining() == 0
        except (RequestFailed, KeyError, TypeError, ValueError):
            return False

    def _replace(self, recycling: Recycling) -> None:
        if not self._has_room_for_two():
            logger.warning("ComfyUI is replaced, and the next job waits for its start: %s", recycling.reason)
            self._engine.replace(self._starts)
            self._recycled += 1
            return
        logger.warning("ComfyUI is to be replaced, and a second one starts beside it: %s", recycling.reason)
        self._give_up_at = time.monotonic() + self._settings.start_timeout_s
        self._give_up_jobs = self._jobs + _RUNS_MEANWHILE
        try:
            self._engine.start_successor()
        except EngineUnavailable as error:
            self._put_off(error.message)

    def _has_room_for_two(self) -> bool:
        """Whether there is memory for a second process while jobs go on with the first as they have so far."""
        process = self._engine.process
        peak = memory.peak_bytes(process.pid) if process is not None and process.pid is not None else 0
        needed = self._least_resident + max(0, peak - self._last.resident_bytes)
        _, gpu_total = memory.gpu_bytes(self._engine.stats)
        has_gpu_room = not gpu_total or gpu_total - self._last.gpu_bytes >= _GPU_START_BYTES
        return memory.available_bytes() >= needed and has_gpu_room

    def _succeed(self) -> None:
        """Hand over to the second process if it answers, or if memory runs short; end it if it does not start."""
        successor = self._engine.successor
        if successor is None:
            return
        try:
            is_ready = successor.wait_ready(0)
        except EngineUnavailable as error:
            self._put_off(error.message)
            return
        if is_ready or memory.available_bytes() < (memory.total_bytes() or 0) // _SHORT_SHARE:
            if self._is_idle() and self._engine.hand_over():
                self._recycled += 1
                logger.info("ComfyUI was replaced between two jobs, after %d jobs", self._jobs)
                self._begin_life(self._engine.starts)
        elif time.monotonic() >= self._give_up_at and self._jobs >= self._give_up_jobs:
            self._put_off(f"it did not answer within {self._settings.start_timeout_s:g} s of its start")

    def _put_off(self, why: str) -> None:
        self._engine.drop_successor()
        again_at = self._recycling.put_off(self._jobs) if self._recycling is not None else 0
        logger.warning(
            "ComfyUI could not be replaced, and goes on; the next try is after job %d of it: %s", again_at, why
        )


def _names_in(graph: Mapping[str, Any]) -> set[str]:
    """The classes of a graph and the models it names."""
    names = {str(node.get("class_type")) for node in graph.values()}
    for node in graph.values():
        values = node.get("inputs", {}).values()
        names.update(value for value in values if isinstance(value, str) and value.lower().endswith(MODEL_ENDINGS))
    return names


def _is_less(now: Reading, before: Reading) -> bool:
    """Whether it holds less than a moment before, by more than a hundredth."""
    return now.resident_bytes < 0.99 * before.resident_bytes or now.gpu_bytes < 0.99 * before.gpu_bytes
