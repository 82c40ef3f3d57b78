"""Between two runs an engine is looked after. (A leak of a real process: tests/contract/test_recycling.py.)"""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from typing import Any

import pytest

from comfy_serverless import Settings
from comfy_serverless.connector import memory, upkeep
from comfy_serverless.connector.client import RequestFailed
from comfy_serverless.connector.upkeep import Upkeep
from comfy_serverless.errors import EngineUnavailable

MB = 1_000_000
GB = 1000 * MB
GRAPH: dict[str, Any] = {"1": {"class_type": "Leak", "inputs": {}}}


@dataclass
class Process:
    pid: int = os.getpid()
    answers: bool = False
    dies: bool = False

    def wait_ready(self, _timeout_s: float) -> bool:
        if self.dies:
            raise EngineUnavailable("it exited")
        return self.answers


@dataclass
class Engine:
    """An engine whose GPU has 24 GB, of which it uses `gpu`, and `cached` of that until it is told to free it."""

    process: Process | None = field(default_factory=Process)
    successor: Process | None = None
    is_running: bool = True
    starts: int = 1
    gpu: int = 1 * GB
    cached: int = 0
    waiting: int = 0
    questions: int = 0
    did: list[str] = field(default_factory=list)

    @property
    def client(self) -> Engine:
        return self

    @property
    def stats(self) -> dict[str, Any]:
        used = self.gpu + self.cached
        return {"devices": [{"type": "cuda", "vram_total": 24 * GB, "vram_free": 24 * GB - used}]}

    def system_stats(self) -> dict[str, Any]:
        self.questions += 1
        return self.stats

    def queue_remaining(self) -> int:
        return self.waiting

    def free_memory(self, *, unload_models: bool) -> None:
        self.did.append("free")
        self.cached = 0

    def replace(self, generation: int) -> None:
        self.did.append(f"replace {generation}")
        self.starts += 1

    def start_successor(self) -> None:
        self.did.append("second one starts")
        self.successor = Process()

    def drop_successor(self) -> None:
        self.did.append("second one is dropped")
        self.successor = None

    def hand_over(self) -> bool:
        self.did.append("hand over")
        self.process, self.successor = self.successor, None
        self.starts += 1
        self.gpu = 1 * GB
        return True


@pytest.fixture(autouse=True)
def no_waiting(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each run is followed by a reading, and what is freed is free at once."""
    monkeypatch.setattr(upkeep, "_SHARE", 1e9)
    monkeypatch.setattr(upkeep, "_FREED_AFTER_S", 0)
    monkeypatch.setattr(upkeep, "_FREED_LOOK_S", 0)
    monkeypatch.setattr(memory, "available_bytes", lambda: 1 << 60)


def kept(engine: Engine, **settings: Any) -> Upkeep:
    double: Any = engine
    return Upkeep(double, Settings(**settings))


def run(upkeep: Upkeep, jobs: int = 1, **names: Any) -> None:
    for _ in range(jobs):
        with upkeep.run({"1": {"class_type": "Leak", "inputs": names}}):
            pass


def test_memory_of_the_gpu_that_it_cannot_let_go_of_is_a_reason() -> None:
    engine = Engine()
    keeper = kept(engine, engine_growth_bytes=2 * GB)
    run(keeper, 5)
    engine.gpu += 3 * GB
    run(keeper)
    assert engine.did == ["free", "second one starts"]
    assert engine.successor is not None
    run(keeper, 3)
    assert engine.did == ["free", "second one starts"], "it does not answer yet"
    engine.successor.answers = True
    run(keeper)
    assert engine.did[-1] == "hand over"
    assert keeper.condition.recycled == 1
    run(keeper, 10)
    assert keeper.condition.gpu_bytes == 1 * GB
    assert engine.did[-1] == "hand over"


def test_models_on_the_gpu_are_none() -> None:
    engine = Engine()
    keeper = kept(engine, engine_growth_bytes=2 * GB)
    run(keeper, 5)
    engine.cached += 9 * GB
    run(keeper, 5)
    assert engine.did == ["free"]


def test_by_default_it_may_grow_by_a_quarter_of_the_gpu() -> None:
    engine = Engine()
    keeper = kept(engine)
    run(keeper, 5)
    engine.gpu += 6 * GB
    run(keeper, 5)
    assert engine.did == []
    engine.gpu += MB
    run(keeper)
    assert engine.did == ["free", "second one starts"]


def test_never_while_another_run_is_in_the_engine() -> None:
    engine = Engine()
    keeper = kept(engine, engine_max_jobs=1)
    run(keeper)
    with keeper.run(GRAPH):
        engine.did.clear()
        run(keeper, 100)
        assert engine.did == []


def test_never_while_another_client_has_something_in_its_queue() -> None:
    engine = Engine(waiting=1)
    keeper = kept(engine, engine_max_jobs=2)
    run(keeper, 10)
    assert engine.did == []
    engine.waiting = 0
    run(keeper)
    assert engine.did == ["second one starts"]


@pytest.mark.parametrize("said", [1, None], ids=["busy", "no answer"])
def test_a_leak_that_was_found_at_a_bad_moment_is_not_forgotten(
    monkeypatch: pytest.MonkeyPatch, said: int | None
) -> None:
    answers = [0, said]  # before it lets go of its memory, and after

    def queue_remaining(_: Engine) -> int:
        answer = answers.pop(0) if answers else 0
        if answer is None:
            raise RequestFailed("timed out")
        return answer

    monkeypatch.setattr(Engine, "queue_remaining", queue_remaining)
    engine = Engine()
    keeper = kept(engine, engine_growth_bytes=GB)
    run(keeper, 5)
    engine.gpu += 2 * GB  # and nothing more, ever
    run(keeper)
    assert engine.did == ["free"]
    run(keeper)
    assert engine.did == ["free", "second one starts"]


def test_an_engine_elsewhere_is_left_alone_and_asked_nothing() -> None:
    engine = Engine(process=None)
    keeper = kept(engine, engine_max_jobs=1, engine_growth_bytes=1)
    run(keeper, 100)
    assert (engine.did, engine.questions) == ([], 0)
    assert not keeper.wants_a_moment()


def test_where_the_gpu_has_no_room_for_a_second_context_the_first_one_goes_first() -> None:
    engine = Engine(gpu=23_500 * MB)
    keeper = kept(engine, engine_max_jobs=3)
    run(keeper, 4)
    assert engine.did == ["replace 1"]
    assert keeper.condition.recycled == 1


def test_a_second_one_that_dies_is_dropped_and_tried_again_later(caplog: pytest.LogCaptureFixture) -> None:
    engine = Engine()
    keeper = kept(engine, engine_max_jobs=3)
    run(keeper, 4)
    assert engine.successor is not None
    engine.successor.dies = True
    run(keeper)
    assert engine.did == ["second one starts", "second one is dropped"]
    assert "goes on; the next try is after job 14 of it: it exited" in caplog.text
    run(keeper, 9)
    assert len(engine.did) == 2
    run(keeper, 2)
    assert engine.did[-1] == "second one starts"


def test_where_memory_runs_short_meanwhile_the_first_goes_before_the_second_answers(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    engine = Engine()
    keeper = kept(engine, engine_max_jobs=3)
    run(keeper, 5)
    assert engine.did == ["second one starts"]
    monkeypatch.setattr(memory, "available_bytes", lambda: MB)
    run(keeper)
    assert engine.did == ["second one starts", "hand over"]
    assert keeper.condition.recycled == 1


def test_a_second_one_that_never_answers_is_dropped() -> None:
    engine = Engine()
    keeper = kept(engine, engine_max_jobs=3, start_attempts_sleep_s=0.0001, max_start_attempts=1)
    run(keeper, 100)
    assert engine.did[:2] == ["second one starts", "second one is dropped"]


def test_readings_take_a_small_share_of_the_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(upkeep, "_SHARE", 1e-9)
    monkeypatch.setattr(upkeep, "_LOOK_WITHIN_S", 1e9)
    engine = Engine()
    run(kept(engine), 1000)
    assert engine.questions == 1


def test_a_reading_that_took_long_puts_the_next_one_off_for_no_more_than_seconds(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(upkeep, "_SHARE", 1e-9)
    monkeypatch.setattr(upkeep, "_LOOK_WITHIN_S", 0)
    engine = Engine()
    run(kept(engine), 10)
    assert engine.questions == 9


def test_a_moment_is_wanted_after_many_runs_that_left_none_between_them() -> None:
    engine = Engine()
    keeper = kept(engine)
    with keeper.run(GRAPH):
        run(keeper, 49)
        assert not keeper.wants_a_moment()
        run(keeper)
        assert keeper.wants_a_moment()
    run(keeper)
    assert not keeper.wants_a_moment()


def test_a_moment_is_wanted_while_a_second_one_starts() -> None:
    engine = Engine()
    keeper = kept(engine, engine_max_jobs=3)
    run(keeper, 4)
    assert engine.successor is not None
    assert keeper.wants_a_moment()


def test_the_condition_says_what_was_read_last() -> None:
    engine = Engine(gpu=3 * GB)
    keeper = kept(engine)
    assert keeper.condition.resident_bytes == 0
    run(keeper, 2)
    assert keeper.condition.gpu_bytes == 3 * GB
    assert keeper.condition.resident_bytes > MB
    assert (keeper.condition.starts, keeper.condition.recycled) == (1, 0)
