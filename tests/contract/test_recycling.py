"""An engine that leaks is replaced between two jobs: the embedded one, or the ComfyUI in COMFYUI_DIR."""

from __future__ import annotations

import logging
import os
import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from comfy_serverless.connector import memory
from tests.contract.engines import REAL_COMFYUI, START_PATIENCE_S
from tests.contract.shared_worker import SharedWorker
from tests.patience import is_alive, wait_until

#: A real engine has some 150 MB more or less from one reading to the next on a busy machine, without any leak.
GROWTH = 300_000_000 if REAL_COMFYUI else 60_000_000
#: A job that leaks this many MB takes a few of its kind to be found, and three of them are more than what is allowed.
LEAK = 120 if REAL_COMFYUI else 25
#: Between two jobs, while a second one starts: it needs the processor, too.
BREATH_S = 0.05


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Callable[..., SharedWorker]]:
    """Start a worker with settings of its own."""
    workers: list[SharedWorker] = []

    def start(**changes: Any) -> SharedWorker:
        workers.append(SharedWorker(tmp_path / "engine", **changes))
        return workers[-1]

    yield start
    for worker in workers:
        worker.close()
        worker.connector.kill_api()


def leak(megabytes: int = 0, name: str = "") -> dict[str, Any]:
    return {"1": {"class_type": "ContractLeak", "inputs": {"megabytes": megabytes, "name": name}}}


def pid_of(worker: SharedWorker, graph: dict[str, Any], **request: Any) -> int:
    """Run a job; return the id of the process that ran it."""
    outcome, made = worker.contents(graph, **request)
    assert outcome.error is None, outcome.error
    [text] = made.values()
    return int(text)


def run_until_replaced(worker: SharedWorker, megabytes: int = 0) -> list[int]:
    """Run jobs until another process runs them; return the processes, one for each job.

    One leaks so much whenever the memory has been read since the last leak: a busy machine reads it seldom, and what is
    held at the first reading, however much, is what growth is counted from.
    """
    condition = worker.connector.condition
    pids = [pid_of(worker, leak())]
    end = time.monotonic() + START_PATIENCE_S
    while pids[-1] == pids[0]:
        assert time.monotonic() < end, "it was not replaced"
        time.sleep(BREATH_S)
        before, condition = condition, worker.connector.condition
        pids.append(pid_of(worker, leak(megabytes if condition != before else 0)))
    return pids


def test_an_engine_that_leaks_is_replaced_and_no_job_notices(
    start: Callable[..., SharedWorker], caplog: pytest.LogCaptureFixture
) -> None:
    worker = start(engine_growth_bytes=GROWTH)
    caplog.set_level(logging.INFO, logger="comfy_serverless")
    pids = run_until_replaced(worker, LEAK)
    assert not is_alive(pids[0]), "the first one is gone"
    assert is_alive(pids[-1])
    assert worker.connector.condition.recycled == 1
    assert worker.connector.condition.starts == worker.connector.starts == 2
    [why] = [record.getMessage() for record in caplog.records if "is to be replaced" in record.getMessage()]
    assert "MB more than after its first jobs (ENGINE_GROWTH_BYTES)" in why
    # The files of a job that ran on the first are still there; those of the next ones are where they belong.
    again, made = worker.contents(
        {
            "1": {"class_type": "EmptyImage", "inputs": {"width": 8, "height": 8, "batch_size": 1, "color": 255}},
            "2": {"class_type": "SaveImage", "inputs": {"images": ["1", 0], "filename_prefix": "after"}},
            "3": {"class_type": "PreviewImage", "inputs": {"images": ["1", 0]}},
        }
    )
    assert again.error is None
    assert sorted(name[0] for name in made) == ["2", "3"]
    assert wait_until(lambda: not [name for name in worker.files("output", "temp") if name.endswith(".png")])


def test_it_is_replaced_again_and_again_and_each_begins_with_little(start: Callable[..., SharedWorker]) -> None:
    """A real one begins with a GB, give or take 100 MB on a busy machine: less than what any of them leaks."""
    worker = start(engine_growth_bytes=GROWTH)
    held: dict[int, int] = {}
    for _ in range(3):
        pids = run_until_replaced(worker, LEAK)
        held[pids[-1]] = memory.resident_bytes(pids[-1])
    assert worker.connector.condition.recycled == 3
    assert len(held) == 3
    # The last one comes after twice as much as that has leaked since the first of the three has begun.
    assert max(held.values()) < min(held.values()) + GROWTH


def test_an_engine_that_does_not_leak_is_left_alone(start: Callable[..., SharedWorker]) -> None:
    worker = start(engine_growth_bytes=GROWTH)
    assert len({pid_of(worker, leak(0)) for _ in range(30)}) == 1
    assert worker.connector.condition.recycled == 0
    assert worker.connector.condition.resident_bytes > 0


def test_what_a_model_adds_when_it_is_first_used_is_no_leak(start: Callable[..., SharedWorker]) -> None:
    worker = start(engine_growth_bytes=GROWTH)
    pids = {pid_of(worker, leak(0)) for _ in range(5)}
    time.sleep(1)  # there is a reading before the next job, and one after it
    pids.add(pid_of(worker, leak(3 * LEAK, name="large.safetensors")))
    time.sleep(1)
    pids |= {pid_of(worker, leak(0, name="large.safetensors")) for _ in range(20)}
    assert len(pids) == 1


def test_after_so_many_jobs_it_is_replaced(
    start: Callable[..., SharedWorker], caplog: pytest.LogCaptureFixture
) -> None:
    worker = start(engine_max_jobs=5)
    caplog.set_level(logging.INFO, logger="comfy_serverless")
    pids = run_until_replaced(worker)
    assert len(pids) > 5
    assert any("it has run 5 jobs (ENGINE_MAX_JOBS=5)" in record.getMessage() for record in caplog.records)


def test_where_there_is_no_room_for_two_the_next_job_waits_for_the_start(
    start: Callable[..., SharedWorker], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(memory, "available_bytes", lambda: 0)
    worker = start(engine_max_jobs=2)
    pids = [pid_of(worker, leak()) for _ in range(3)]
    assert pids[0] == pids[1] != pids[2]
    assert not is_alive(pids[0])


def test_a_successor_that_does_not_start_costs_no_job_and_is_tried_again_later(
    start: Callable[..., SharedWorker], monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    worker = start(engine_max_jobs=2)
    # It finds its own temp folder taken by a file, and so does not start.
    blocker = worker.base / "comfy-serverless-second"
    blocker.write_bytes(b"")
    pids = [pid_of(worker, leak())]
    end = time.monotonic() + START_PATIENCE_S
    while not (said := [r for r in caplog.records if "could not be replaced, and goes on" in r.getMessage()]):
        assert time.monotonic() < end, "it was not told"
        time.sleep(BREATH_S)
        pids.append(pid_of(worker, leak()))
    assert "the next try is after job" in said[0].getMessage()
    assert said[0].levelno == logging.WARNING
    blocker.unlink()
    pids += run_until_replaced(worker)
    assert worker.connector.condition.recycled == 1
    assert pids[-1] != pids[0]


def test_a_second_one_leaves_the_files_of_the_first_alone(start: Callable[..., SharedWorker]) -> None:
    """ComfyUI empties its temp folder when it starts, and a job may be running then."""
    worker = start(engine_max_jobs=2)
    pid_of(worker, leak())
    files = [worker.base / name / "of-a-running-job.png" for name in ("temp", "input", "output")]
    for file in files:
        file.write_bytes(b"a picture")
    time.sleep(0.05)  # a job takes what has come with its beginning for its own
    run_until_replaced(worker)
    assert [file.exists() for file in files] == [True, True, True]


def test_a_first_that_dies_while_the_second_starts_is_started_again_and_the_second_is_dropped(
    start: Callable[..., SharedWorker], caplog: pytest.LogCaptureFixture
) -> None:
    worker = start(engine_max_jobs=2)
    caplog.set_level(logging.INFO, logger="comfy_serverless")
    first = pid_of(worker, leak())
    pid_of(worker, leak())
    while not any("a second one starts" in record.getMessage() for record in caplog.records):
        pid_of(worker, leak())
    os.kill(first, signal.SIGKILL)
    pids = [pid_of(worker, leak()) for _ in range(3)]
    assert first not in pids


def test_nothing_is_left_of_a_second_one_when_the_connector_ends(
    start: Callable[..., SharedWorker], caplog: pytest.LogCaptureFixture
) -> None:
    worker = start(engine_max_jobs=1)
    caplog.set_level(logging.INFO, logger="comfy_serverless")
    while not any("a second one starts" in record.getMessage() for record in caplog.records):
        pid_of(worker, leak())
    started = [
        int(record.getMessage().split()[2]) for record in caplog.records if "started on port" in record.getMessage()
    ]
    worker.connector.kill_api()
    assert not [pid for pid in started if is_alive(pid)]
