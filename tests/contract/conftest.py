"""Fixtures: `engine`, one for the whole session, reset before each test, and `start_engine`."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.contract.engines import EngineProcess


@pytest.fixture(scope="session")
def shared_engine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[EngineProcess]:
    engine = EngineProcess(tmp_path_factory.mktemp("engine"))
    yield engine
    engine.close()


@pytest.fixture
def engine(shared_engine: EngineProcess) -> EngineProcess:
    shared_engine.reset()
    return shared_engine


@pytest.fixture
def start_engine(tmp_path: Path) -> Iterator[Callable[..., EngineProcess]]:
    """Start an engine with its own flags: ``start_engine("--max-upload-size", "1")``."""
    engines: list[EngineProcess] = []

    def start(*arguments: str) -> EngineProcess:
        engines.append(EngineProcess(tmp_path / f"engine-{len(engines)}", *arguments))
        return engines[-1]

    yield start
    for engine in engines:
        engine.close()
