"""What is kept of runs that could not be delivered: how large it is, and how it goes."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from comfy_serverless.connector.folders import EngineFolders


@pytest.fixture
def folders(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[EngineFolders]:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    places = {kind: tmp_path / kind for kind in ("input", "output", "temp")}
    for place in places.values():
        place.mkdir()
    made = EngineFolders(places)
    yield made
    made.close()


def keep(folders: EngineFolders, run: str, name: str, size_bytes: int) -> Path:
    path = folders.kept(run) / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(b"x" * size_bytes)
    return path


def test_the_files_of_a_run_are_counted_in_all_its_folders_and_no_others(
    folders: EngineFolders, tmp_path: Path
) -> None:
    keep(folders, "one", "output/a.png", 100)
    keep(folders, "one", "temp/deep/er/b.png", 20)
    keep(folders, "two", "output/c.png", 3)
    outside = tmp_path / "large"
    outside.write_bytes(b"x" * 10_000)
    (folders.kept("one") / "link").symlink_to(outside)
    assert 120 <= folders.kept_bytes("one") < 1000
    assert folders.kept_bytes("two") == 3
    assert folders.kept_bytes("never ran") == 0


def test_what_is_forgotten_is_gone_and_the_rest_stays(folders: EngineFolders) -> None:
    first, second = keep(folders, "one", "a.png", 10), keep(folders, "two", "a.png", 10)
    folders.forget("one")
    assert not first.exists()
    assert second.exists()
    assert folders.kept_bytes("one") == 0
