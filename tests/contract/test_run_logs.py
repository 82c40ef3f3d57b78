"""What the engine writes during a run is told of that run, and of no other: in turn, two at once, after a new start."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
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


def test_jobs_that_overlap_share_no_line(worker: SharedWorker, monkeypatch: pytest.MonkeyPatch) -> None:
    logs: list[Sequence[str]] = []
    run = worker.connector.run
    monkeypatch.setattr(
        worker.connector, "run", lambda workflow, **arguments: run(workflow, **{**arguments, "on_log": logs.append})
    )
    graphs = [
        {
            "1": {
                "class_type": "EmptyImage",
                "inputs": {"width": 64, "height": 64, "batch_size": 1, "color": number},
            },
            "2": {"class_type": "SaveImage", "inputs": {"images": ["1", 0], "filename_prefix": "fox"}},
        }
        for number in range(21)
    ]
    worker.run(graphs[0])  # the engine declares the classes: only then may jobs overlap
    assert worker.connector.may_overlap(graphs[1])
    with ThreadPoolExecutor(3) as threads:
        list(threads.map(worker.run, graphs[1:]))
    last_lines = [[line for line in lines if "Prompt executed in" in line] for lines in logs]
    assert len(logs) == 21
    assert all(len(found) <= 1 for found in last_lines)


def test_what_a_new_process_writes_when_it_starts_is_of_no_run(worker: SharedWorker) -> None:
    engine = worker.connector._engine
    engine.replace(engine.starts)
    log = log_of(worker, failing("after"))
    assert told(log) == {"after"}
    assert "To see the GUI" not in log
    assert engine.process is not None
    assert engine.process.output._runs._runs == {}, "nothing is kept"
