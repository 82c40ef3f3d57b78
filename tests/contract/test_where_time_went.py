"""Each node that ran has its time, with the embedded engine or a real ComfyUI (COMFYUI_DIR); a cached one has none."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from comfy_serverless import ComfyConnector
from tests.contract.test_connector import settings


@pytest.fixture(scope="module")
def connector(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ComfyConnector]:
    folder: Path = tmp_path_factory.mktemp("engine")
    connector = ComfyConnector(settings=settings(folder))
    yield connector
    connector.close()


def graph(radius: int) -> dict[str, Any]:
    return {
        "1": {"class_type": "EmptyImage", "inputs": {"width": 512, "height": 512, "batch_size": 1, "color": 255}},
        "2": {"class_type": "ImageBlur", "inputs": {"image": ["1", 0], "blur_radius": radius, "sigma": 5.0}},
        "3": {"class_type": "PreviewImage", "inputs": {"images": ["2", 0]}},
    }


@pytest.mark.parametrize("watches", [True, False])
def test_nodes_that_ran_have_their_times(connector: ComfyConnector, watches: bool) -> None:
    radius = 20 if watches else 21
    on_progress = (lambda _progress: None) if watches else None
    first = connector.run(graph(radius), on_progress=on_progress).timings
    assert {"2", "3"} <= set(first.node_ms) <= {"1", "2", "3"}
    assert sum(first.node_ms.values()) <= first.executing_ms + 50
    assert first.loading_ms == 0
    assert connector.run(graph(radius), on_progress=on_progress).timings.node_ms == {}
