"""What the engine writes during a run is told of that run, and of no other: in turn, two at once, around a crash."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from comfy_serverless.errors import ComfyError
from tests.contract.shared_worker import SharedWorker


@pytest.fixture(scope="module")
def worker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SharedWorker]:
    worker = SharedWorker(tmp_path_factory.mktemp("engine") / "ComfyUI")
    yield worker
    worker.close()


def failing(name: str) -> dict[str, Any]:
    """A graph that says its name, and whose last node is too late to be cached."""
    return {
        "1": {"class_type": "ContractRaise", "inputs": {"kind": "ValueError", "message": f"told by {name}."}},
        "2": {"class_type": "PreviewImage", "inputs": {"images": ["1", 0]}},
    }


def log_of(worker: SharedWorker, graph: Mapping[str, Any], *, owner: str = "bob") -> str:
    """What the engine wrote during a run that fails."""
    lines: list[str] = []
    with pytest.raises(ComfyError):
        worker.connector.run(graph, on_log=lines.extend, apart_as=f"{owner}-1", recalls_as=owner)
    return "\n".join(lines)


def told(log: str) -> set[str]:
    return set(re.findall(r"told by (\w+)\.", log))


def test_a_run_has_the_traceback_of_its_own_failure_and_nothing_of_the_one_before(worker: SharedWorker) -> None:
    for number in range(20):
        log = log_of(worker, failing(f"job{number}"), owner=f"owner{number % 2}")
        assert told(log) == {f"job{number}"}
        assert "Traceback" in log


def test_of_two_jobs_at_once_each_has_its_own(worker: SharedWorker, monkeypatch: pytest.MonkeyPatch) -> None:
    """As the worker has them: the second is let in once the first executes, if they are of one owner."""
    logs: dict[str, str] = {}
    run = worker.connector.run

    def run_and_keep(workflow: Mapping[str, Any], **arguments: Any) -> Any:
        name = re.findall(r"told by (\w+)\.", str(workflow))[0]
        return run(workflow, **{**arguments, "on_log": lambda lines: logs.update({name: "\n".join(lines)})})

    monkeypatch.setattr(worker.connector, "run", run_and_keep)
    with ThreadPoolExecutor(3) as threads:
        list(threads.map(lambda number: worker.run(failing(f"job{number}"), owner=f"owner{number // 15}"), range(30)))
    assert {name: told(log) for name, log in logs.items()} == {f"job{number}": {f"job{number}"} for number in range(30)}


def test_of_a_crash_there_is_what_was_written_before(worker: SharedWorker) -> None:
    graph = failing("crash")
    graph["3"] = {"class_type": "ContractRaise", "inputs": {"kind": "SystemExit", "message": ""}}
    graph["4"] = {"class_type": "PreviewImage", "inputs": {"images": ["3", 0]}}
    assert told(log_of(worker, graph)) <= {"crash"}
    assert told(log_of(worker, failing("after"))) == {"after"}
    process = worker.connector._engine.process
    assert process is not None
    assert process.output._runs._runs == {}, "nothing is kept"
