"""A job with a partner node and no key ends before anything runs, and its error names the node."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from tests.contract.engines import REAL_COMFYUI
from tests.contract.shared_worker import SharedWorker

PARTNER = "FluxProUltraImageNode" if REAL_COMFYUI else "PartnerOfAPack"


@pytest.fixture
def worker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SharedWorker]:
    worker = SharedWorker(tmp_path_factory.mktemp("engine") / "ComfyUI")
    yield worker
    worker.close()


def test_it_is_refused_without_a_key_and_leaves_no_file(worker: SharedWorker) -> None:
    graph: dict[str, Any] = {
        "1": {"class_type": PARTNER, "inputs": {}},
        "2": {"class_type": "SaveImage", "inputs": {"images": ["1", 0], "filename_prefix": "partner"}},
        "3": {"class_type": "EmptyImage", "inputs": {"width": 8, "height": 8, "batch_size": 1, "color": 0}},
        "4": {"class_type": "SaveImage", "inputs": {"images": ["3", 0], "filename_prefix": "first"}},
    }
    outcome, made = worker.contents(graph)
    error = outcome.job.error
    assert error is not None
    assert (error.code, error.retryable) == ("invalid_workflow", False)
    assert f"Node 1 is a partner node ({PARTNER})" in error.message
    assert list(error.details["node_errors"]) == ["1"]
    assert (made, worker.files("output")) == ({}, set())
    assert worker.contents({"3": graph["3"], "4": graph["4"]})[1], "the next job runs"
