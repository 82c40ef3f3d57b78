"""Fixtures: `engine`, one for the whole session, reset before each test, and `start_engine`.

A test that takes `release`, too, is run once for each release that the embedded engine speaks as.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.contract.engines import REAL_COMFYUI, START_PATIENCE_S, EngineProcess, StartEngine, releases
from tests.contract.tiny_models import CHECKPOINT

#: How long a test may take against a real ComfyUI, which some start several times.
_TEST_PATIENCE_S = 6 * START_PATIENCE_S

if REAL_COMFYUI and not (Path(REAL_COMFYUI) / "models" / CHECKPOINT).exists():
    raise pytest.UsageError(
        f"the tests run text-to-image graphs with models/{CHECKPOINT}, which this ComfyUI does not have. Any Stable "
        f"Diffusion 1.5 will do, or one with random weights: python -m tests.contract.tiny_models {REAL_COMFYUI}/models"
    )
if REAL_COMFYUI:  # it takes as long as the machine makes it take: that says nothing about what is tested
    os.environ.setdefault("MAX_COMFY_START_ATTEMPTS", str(START_PATIENCE_S))
    # The models are tiny: threads that share one step wait for each other, and on a busy machine mostly do only that.
    os.environ.setdefault("OMP_NUM_THREADS", "1")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    if not REAL_COMFYUI:
        return
    for item in items:
        if Path(__file__).parent in item.path.parents and item.get_closest_marker("timeout") is None:
            item.add_marker(pytest.mark.timeout(_TEST_PATIENCE_S))


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    if "release" in metafunc.fixturenames:
        metafunc.parametrize("release", releases(), scope="session")


def speaking(release: str) -> list[str]:
    """The arguments that make an engine speak as a release: of the embedded one; a real one has but its own."""
    return [] if REAL_COMFYUI else ["--comfyui-version", release]


@pytest.fixture(scope="session")
def shared_engine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[EngineProcess]:
    engine = EngineProcess(tmp_path_factory.mktemp("engine"))
    yield engine
    engine.close()


@pytest.fixture
def engine(shared_engine: EngineProcess) -> EngineProcess:
    shared_engine.reset()
    return shared_engine


@pytest.fixture(scope="session")
def engines_of_releases(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, EngineProcess]]:
    engines: dict[str, EngineProcess] = {}
    yield engines
    for engine in engines.values():
        engine.close()


@pytest.fixture
def engine_of_release(
    release: str, engines_of_releases: dict[str, EngineProcess], tmp_path_factory: pytest.TempPathFactory
) -> EngineProcess:
    """One engine for each release, reset before each test."""
    if release not in engines_of_releases:
        engines_of_releases[release] = EngineProcess(tmp_path_factory.mktemp(f"engine-{release}"), *speaking(release))
    engine = engines_of_releases[release]
    engine.reset()
    return engine


@pytest.fixture
def start_engine(tmp_path: Path) -> Iterator[StartEngine]:
    """Start an engine with its own flags: ``start_engine("--max-upload-size", "1")``."""
    engines: list[EngineProcess] = []

    def start(*arguments: str) -> EngineProcess:
        engines.append(EngineProcess(tmp_path / f"engine-{len(engines)}", *arguments))
        return engines[-1]

    yield start
    for engine in engines:
        engine.close()
