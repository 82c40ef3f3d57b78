"""Where nobody can tell whose runs were the last ones, what came since is no owner's: it is kept aside."""

from __future__ import annotations

import errno
import json
import logging
import math
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from comfy_serverless.connector import late_files
from comfy_serverless.connector.folders import EngineFolders
from comfy_serverless.connector.places import beside
from comfy_serverless.connector.real_paths import remove_tree
from tests.unit.connector.test_late_files import World

LEFT = ("input/mask.png", "input/new/deep/mask.png", "output/late.png", "output/kept/late.png", "temp/late.png")


def changed(**fields: Any) -> Callable[[Path], object]:
    return lambda path: path.write_text(json.dumps({**json.loads(path.read_text()), **fields}))


def without(key: str) -> Callable[[Path], object]:
    return lambda path: path.write_text(json.dumps({**json.loads(path.read_text()), key: ...}, default=lambda _: None))


def written(content: bytes) -> Callable[[Path], object]:
    return lambda path: path.write_bytes(content)


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-1])


def a_folder(path: Path) -> None:
    path.unlink(missing_ok=True)  # one that could not be replaced has been removed
    path.mkdir()
    (path / "x").touch()


DAMAGES: dict[str, Callable[[Path], object]] = {
    "truncated": cut,
    "empty": written(b""),
    "zeros": written(b"\0" * 200),
    "no text": written(b"\xff\xfe"),
    "null": written(b"null"),
    "a list": written(b'["owner"]'),
    "nothing in it": written(b"{}"),
    "too deep": written(b"[" * 200_000),
    "unreadable": a_folder,
    "gone": Path.unlink,
    "no owner": without("owner"),
    "an owner of another form": changed(owner="alice"),
    "an owner that is no text": changed(owner=5),
    "since a word": changed(since_s="yesterday"),
    "since no number": changed(since_s=math.nan),
    "since ever": changed(since_s=-math.inf),
    "since a time to come": changed(since_s=time.time() + 1e6),
    "until no number": changed(until_s=math.nan),
    "until before since": changed(until_s=1.0),
    "before a number": changed(before=5),
    "before of another form": changed(before=[[1]]),
}
EACH = pytest.mark.parametrize("damage", DAMAGES)


@pytest.fixture
def world(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[World]:
    """Where it began is not the moment in which the operator's files came."""
    (tmp_path / "shared").mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "shared"))
    made = World(tmp_path / "ComfyUI")
    made.held.close()
    remove_tree(beside(made.folders["output"]))
    time.sleep(0.06)
    made.held = EngineFolders(made.folders)
    yield made
    made.held.close()


def noted(world: World, name: str) -> Path:
    return beside(world.folders["output"]) / name


def unknown(world: World) -> list[str]:
    return sorted(path.read_text() for path in noted(world, "unknown").rglob("*") if path.is_file())


def left_by_alice(world: World) -> set[str]:
    """What the operator has, before she has left something."""
    before = world.turn("alice")
    time.sleep(0.06)
    for name in LEFT:
        world.write(name, content=name)
    return before


@EACH
@pytest.mark.parametrize("owner", ["alice", "bob"])
def test_a_new_process_gives_to_nobody_what_came_before(
    world: World, damage: str, owner: str, caplog: pytest.LogCaptureFixture
) -> None:
    before = left_by_alice(world)
    dead, world.held = world.held, EngineFolders(world.folders)
    DAMAGES[damage](noted(world, "owner.json"))
    with caplog.at_level(logging.WARNING):
        assert world.turn(owner) == before
    assert "whose runs were the last ones" in caplog.text
    assert unknown(world) == sorted(LEFT), "the operator has them still"
    assert world.turn("carol") == before
    world.write("output/hers.png", content="hers")
    assert world.turn("carol") == before | {"output/hers.png"}, "who comes now is known again"
    assert world.turn("alice") == before
    assert world.kept() == ["hers"]
    dead.close()


@EACH
def test_a_process_that_has_had_runs_gives_them_to_nobody_either(world: World, damage: str) -> None:
    """Others may have had the folders since: unless it is missing, what it last knew itself is no answer."""
    before = left_by_alice(world)
    DAMAGES[damage](noted(world, "owner.json"))
    assert world.turn("alice" if damage != "gone" else "bob") == before
    DAMAGES[damage](noted(world, "owner.json"))
    assert world.turn("carol") == before


@pytest.mark.parametrize("damage", ["truncated", "empty", "too deep", "unreadable"])
def test_if_what_stood_is_damaged_too_only_what_was_there_before_all_runs_is_the_operators(
    world: World, damage: str
) -> None:
    before = left_by_alice(world)
    dead, world.held = world.held, EngineFolders(world.folders)
    for name in ("owner.json", "standing.json"):
        DAMAGES[damage](noted(world, name))
    assert world.turn("bob") == before
    assert unknown(world) == sorted(LEFT)
    dead.close()


def test_what_is_kept_of_nobody_makes_no_room_for_more(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(late_files, "MAX_KEPT_BYTES", 1)
    monkeypatch.setattr(late_files, "MOST_KEPT", 1)
    left_by_alice(world)
    DAMAGES["empty"](noted(world, "owner.json"))
    world.turn("bob")
    for owner in ("carol", "bob"):
        world.write("input/mask.png", content="mask")
        world.turn(owner)
    assert unknown(world) == sorted(LEFT)


def test_folders_that_no_run_has_had_are_the_operators(world: World, caplog: pytest.LogCaptureFixture) -> None:
    world.write("input/his.png")
    with caplog.at_level(logging.WARNING):
        assert "input/his.png" in world.turn("alice")
    assert not caplog.text


def test_without_room_for_a_note_a_new_process_gives_to_nobody_what_came_before(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(file: Path, _content: object) -> None:
        file.with_suffix(".part").touch()  # a name there may be room for
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(late_files, "_write", full)
        before = left_by_alice(world)
        world.turn("alice")
        dead, world.held = world.held, EngineFolders(world.folders)
        assert world.turn("bob") == before
    assert unknown(world) == sorted(LEFT), "the operator has them still"
    world.write("output/his.png", content="his")
    assert world.turn("bob") == before | {"output/his.png"}, "there is room again"
    assert world.turn("alice") == before
    assert world.kept() == ["his"]
    dead.close()
