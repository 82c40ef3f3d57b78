"""What comes into ComfyUI's folders after the end of an owner's runs is not there when another owner's begin."""

from __future__ import annotations

import logging
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from comfy_serverless.connector import late_files
from comfy_serverless.connector.folders import EngineFolders, beside


class World:
    """An engine's folders with files of its operator, and those who have them in turn."""

    def __init__(self, base: Path) -> None:
        self.base = base
        for name in ("input/mine.png", "output/old.png", "output/kept/deep/old.png", "temp/old.png"):
            self.write(name)
        (base / "output/empty").mkdir()
        self.folders = {kind: base / kind for kind in ("input", "output", "temp")}
        self.held = EngineFolders(self.folders)

    def write(self, name: str, content: str = "x") -> None:
        path = self.base / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(content)

    def turn(self, owner: str | None) -> set[str]:
        """What there is when a job of this owner begins."""
        with self.held.hold(owner=owner):
            return self.names()

    def names(self) -> set[str]:
        return {path.relative_to(self.base).as_posix() for path in self.base.rglob("*")}

    def kept(self) -> list[str]:
        return sorted(path.read_text() for path in (beside(self.folders["output"]) / "late").glob("*"))


@pytest.fixture
def world(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[World]:
    (tmp_path / "shared").mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "shared"))
    made = World(tmp_path / "ComfyUI")
    yield made
    made.held.close()


LATE = ("output/late.png", "output/new/deep/late.txt", "output/kept/late.png", "temp/late.png")


def test_what_came_late_of_one_owner_is_gone_before_another_ones_job(
    world: World, caplog: pytest.LogCaptureFixture
) -> None:
    time.sleep(0.06)  # what was there is older than the tick of the file system's clock
    before = world.turn("alice")
    for name in LATE:
        world.write(name, content=name)
    assert set(LATE) <= world.turn("alice"), "they are her own"
    assert set(LATE) <= world.turn(None)
    with caplog.at_level(logging.WARNING):
        assert world.turn("bob") == before
    assert "4 files" in caplog.text
    assert world.kept() == sorted(LATE), "and the operator has them still"


def test_each_change_moves_what_came_since_the_last(world: World) -> None:
    time.sleep(0.06)
    before = world.turn("alice")
    for last, owner in (("alice", "bob"), ("bob", "alice"), ("alice", "")):
        world.write("output/late.png", content=last)
        assert world.turn(owner) == before, f"after {last}"
    assert world.kept() == ["alice", "alice", "bob"]


def test_what_was_there_just_before_the_first_job_stays(world: World) -> None:
    world.write("output/just.png")
    world.turn("alice")
    assert "output/just.png" in world.turn("bob")


def test_a_link_is_moved_and_not_what_it_leads_to(world: World) -> None:
    time.sleep(0.06)
    world.turn("alice")
    (world.base / "output/late").symlink_to(world.base / "output/old.png")
    (world.base / "output/folder").symlink_to(world.base / "output/kept")
    assert not {"output/late", "output/folder"} & world.turn("bob")
    assert (world.base / "output/kept/deep/old.png").is_file()


def test_the_oldest_of_what_is_kept_makes_room(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(late_files, "MAX_KEPT_BYTES", 10)
    time.sleep(0.06)
    world.turn("0")
    for number in range(1, 5):
        world.write("output/late.bin", content=f"{number}{number}{number}{number}")
        world.turn(str(number))
    assert world.kept() == ["3333", "4444"]
