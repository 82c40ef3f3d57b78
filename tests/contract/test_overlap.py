"""The next job of an owner may execute before the files of the last one are collected: neither gets the other's."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from comfy_serverless.connector.collector import OutputCollector
from tests.contract.shared_worker import SharedWorker
from tests.patience import wait_until


@pytest.fixture(scope="module")
def worker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SharedWorker]:
    worker = SharedWorker(tmp_path_factory.mktemp("engine") / "ComfyUI")
    yield worker
    worker.close()


def batch(count: int, name: str) -> dict[str, Any]:
    inputs = {"width": 256, "height": 256, "batch_size": count, "color": count}
    return {
        "1": {"class_type": "EmptyImage", "inputs": inputs},
        "2": {"class_type": "SaveImage", "inputs": {"images": ["1", 0], "filename_prefix": name}},
        "3": {"class_type": "PreviewImage", "inputs": {"images": ["1", 0]}},
    }


def test_a_job_whose_next_one_is_writing_takes_none_of_its_files(
    worker: SharedWorker, monkeypatch: pytest.MonkeyPatch
) -> None:
    worker.contents(batch(1, "first"))  # ComfyUI declares the classes: only then may jobs overlap
    collect = OutputCollector.collect

    def collect_late(collector: OutputCollector, *arguments: Any) -> Any:
        if "first" in str(collector._graph):
            assert wait_until(lambda: any("/second_" in name for name in worker.files("output")))
        return collect(collector, *arguments)

    monkeypatch.setattr(OutputCollector, "collect", collect_late)
    with ThreadPoolExecutor(2) as threads:
        first = threads.submit(worker.contents, batch(1, "first"))
        assert wait_until(lambda: worker.connector._runs)
        second = threads.submit(worker.contents, batch(40, "second"))
    for job, name, count in ((first, "first", 1), (second, "second", 40)):
        outcome, made = job.result()
        assert outcome.error is None
        assert sum(file.startswith(f"2/{name}_") for file in made) == count
        assert len(made) == 2 * count
    assert worker.files("output", "temp") == set()
