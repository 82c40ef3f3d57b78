"""Fixtures: `world`, which checks every test against its row of the matrix; `fragile`, with an engine."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.contract.faults.world import World


@pytest.fixture
def world(
    request: pytest.FixtureRequest,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    record_property: Callable[[str, object], None],
) -> Iterator[World]:
    temporary = tmp_path / "tmp"
    temporary.mkdir()
    monkeypatch.setenv("TMPDIR", str(temporary))
    monkeypatch.setattr(tempfile, "tempdir", str(temporary))
    folder = tmp_path / "engine"
    folder.mkdir()
    made = World(folder, request.function.row, lambda seconds: record_property("ended_after_s", f"{seconds:.2f}"))
    try:
        yield made
        made.prove_nothing_is_left()
    finally:
        made.close()


@pytest.fixture
def fragile(world: World) -> World:
    world.connect()
    return world
