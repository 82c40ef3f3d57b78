"""The outside is made once for each module: nothing in it changes but what a test adds under names of its own."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.environments.outside import Outside, outside
from tests.integration.environments.env_world import Project, project


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Outside]:
    with outside(tmp_path_factory.mktemp("outside")) as made:
        yield made


@pytest.fixture(scope="module")
def uv_cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Ports are used again, and uv remembers what an index has said."""
    return tmp_path_factory.mktemp("uv-cache")


@pytest.fixture
def made(
    tmp_path: Path,
    world: Outside,
    uv_cache: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> Iterator[Project]:
    for name in [name for name in os.environ if name.startswith(("UV_", "PIP_"))]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("UV_CACHE_DIR", str(uv_cache))
    monkeypatch.setenv("COMFY_REGISTRY_URL", world.registry.url)
    monkeypatch.setenv("COMFYUI_REPOSITORY", world.comfyui.url)
    for name, value in world.variables.items():
        monkeypatch.setenv(name, value)
    with project(tmp_path / "project", world, capsys, monkeypatch) as it:
        yield it
