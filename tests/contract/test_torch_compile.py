"""ComfyUI's own `TorchCompileModel` on a real ComfyUI: it needs a C++ compiler, which the image `worker` has.

It compiles every kernel of a tiny model anew, which takes a minute or more.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from comfy_serverless import ComfyConnector, Settings
from tests.contract.engines import REAL_COMFYUI, free_port

pytestmark = [
    pytest.mark.skipif(not REAL_COMFYUI, reason="needs a real ComfyUI: make contract COMFYUI_DIR=…"),
    pytest.mark.timeout(1800),
]


@pytest.fixture
def cache(tmp_path: Path) -> Path:
    """Where compiled kernels are kept: nothing is there."""
    return tmp_path / "inductor"


@pytest.fixture
def connector(tmp_path: Path, cache: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[ComfyConnector]:
    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", str(cache))
    base = tmp_path / "comfyui"
    (base / "custom_nodes").mkdir(parents=True)
    (base / "models").symlink_to(Path(str(REAL_COMFYUI)) / "models")
    settings = replace(
        Settings.from_environment(), comfyui_args=f"--cpu --base-directory {base}", initial_port=free_port()
    )
    warm = ComfyConnector(settings=settings)
    yield warm
    warm.kill_api()


def compiled_text_to_image() -> dict[str, Any]:
    graph: dict[str, Any] = json.loads((Path(__file__).parent / "test_payload.json").read_text())
    (loader,) = [node_id for node_id, node in graph.items() if node["class_type"] == "CheckpointLoaderSimple"]
    (sampler,) = [node["inputs"] for node in graph.values() if node["class_type"].startswith("KSampler")]
    graph["900"] = {"class_type": "TorchCompileModel", "inputs": {"model": [loader, 0], "backend": "inductor"}}
    sampler.update({"model": ["900", 0], "steps": 1})
    return graph


def test_a_model_is_compiled_and_makes_its_picture(connector: ComfyConnector, cache: Path) -> None:
    (output,) = connector.run(compiled_text_to_image()).outputs
    assert output.read().startswith(b"\x89PNG")
    assert list(cache.rglob("*.so")), "kernels have been compiled"
