"""What comes into ComfyUI's folders after the end of an owner's runs is not there when another owner's begin."""

from __future__ import annotations

import errno
import fcntl
import logging
import os
import stat
import time
from collections.abc import Iterator
from contextlib import ExitStack
from itertools import count
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from comfy_serverless import locks
from comfy_serverless.connector import late_files, standing
from comfy_serverless.connector.folders import EngineFolders
from comfy_serverless.connector.late_files import LateFiles
from comfy_serverless.connector.places import beside
from comfy_serverless.connector.real_paths import mounts_in, remove_tree
from comfy_serverless.graph.file_inputs import own_folders


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
        late = beside(self.folders["output"]) / "late"
        return sorted(path.read_text() for path in late.rglob("*") if path.is_file())


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


EMPTY = ("output/jane-doe", "output/secret/project", "output/kept/new", "temp/x/y/z", "output/comfy-serverless/named")


def test_empty_folders_that_came_late_are_gone_before_another_ones_job(world: World) -> None:
    """Their names may tell something."""
    time.sleep(0.06)
    (world.base / "output/comfy-serverless").mkdir()
    before = world.turn("alice")
    for name in EMPTY:
        (world.base / name).mkdir(parents=True)
    assert set(EMPTY) <= world.turn("alice"), "they are her own"
    assert world.turn("bob") == before
    (world.base / "output/full/deep").mkdir(parents=True)
    world.write("output/full/late.png", content="late")
    assert world.turn("carol") == before
    assert world.kept() == ["late"]
    assert "output/empty" in before, "what was there stays"


def test_empty_folders_of_a_dead_process_are_gone_and_those_that_came_after_it_stay(world: World) -> None:
    time.sleep(0.06)
    before = world.turn("alice")
    for name in EMPTY:
        (world.base / name).mkdir(parents=True)
    time.sleep(0.06)
    world.held.close()
    time.sleep(0.06)
    (world.base / "output/operators").mkdir()
    world.held = EngineFolders(world.folders)
    assert world.turn("bob") == before | {"output/operators", "output/comfy-serverless"}
    assert world.turn("alice") == before | {"output/operators", "output/comfy-serverless"}


def test_the_folder_of_all_runs_is_not_made_anew_for_each_owner(world: World) -> None:
    world.turn("alice")
    jobs = world.base / "output/comfy-serverless"
    jobs.mkdir()
    was = jobs.stat()
    world.turn("bob")
    assert os.path.samestat(jobs.stat(), was)


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


def test_the_oldest_of_many_make_room_and_are_looked_through_only_when_something_is_moved(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(late_files, "MOST_KEPT", 3)
    world.turn("alice")
    for number in range(5):
        world.write(f"input/{number}", content=str(number))
    world.turn("bob")
    assert world.kept() == ["0", "1", "2", "3", "4"], "what was moved last"
    with monkeypatch.context() as patch:
        patch.delattr(late_files.LateFiles, "_kept")
        world.turn("alice")
    world.write("input/last", content="last")
    world.turn("bob")
    assert len(world.kept()) == 3
    assert "last" in world.kept()


def test_what_a_node_puts_into_the_input_folder_is_its_owners_alone(
    world: World, caplog: pytest.LogCaptureFixture
) -> None:
    world.write("input/3d/mine.glb")
    (world.base / "input/empty").mkdir()
    before = world.turn("alice")
    names = ("input/mask.png", "input/pack/cache/mask.png", "input/3d/made.glb", "input/comfy-serverless/mask.png")
    for name in names:
        world.write(name, content=name)
    (world.base / "input/nothing/in/it").mkdir(parents=True)
    (world.base / "input/empty/too").mkdir()
    assert set(names) <= world.turn("alice"), "packs keep masks there for the next job"
    with caplog.at_level(logging.WARNING):
        assert world.turn("bob") == before | {"input/comfy-serverless"}
    assert "4 files or folders came into ComfyUI's input folder" in caplog.text
    assert str(beside(world.folders["output"]) / "late") in caplog.text
    assert world.kept() == sorted(names)
    assert world.turn("alice") == before | {"input/comfy-serverless"}


def test_names_of_ours_that_a_node_has_taken_are_no_exception(world: World) -> None:
    before = world.turn("alice")
    for name in (f"{'a' * 32}.png", f".{'b' * 36}.part", f"comfy-serverless/{'a' * 32}.png", "comfy-serverless/c/d"):
        world.write(f"input/{name}")
    assert world.turn("bob") == before | {"input/comfy-serverless"}


@pytest.mark.parametrize("link", ["mask.png", "comfy-serverless", "3d"])
def test_a_link_in_the_input_folder_is_moved_and_not_what_it_leads_to(world: World, link: str) -> None:
    before = world.turn("alice")
    (world.base / "input" / link).symlink_to(world.base / "output/kept")
    assert world.turn("bob") == before
    assert (world.base / "output/kept/deep/old.png").is_file()


def test_the_operators_input_files_stay_whatever_is_done_to_them(world: World) -> None:
    names = ("mine.png", "touched.png", "chmod.png", "written.png", "deep/in/folders.png", "renamed.png", "dir/a.png")
    for name in names:
        world.write(f"input/{name}")
    (world.base / "input/link").symlink_to(world.base / "output/kept")
    time.sleep(0.06)
    world.turn("alice")
    inputs = world.base / "input"
    os.utime(inputs / "touched.png")
    (inputs / "chmod.png").chmod(0o640)
    (inputs / "written.png").write_text("by a node")
    (inputs / "renamed.png").rename(inputs / "new.png")
    (inputs / "dir").rename(inputs / "pets")
    os.utime(inputs / "deep/in")
    expected = world.names()
    assert world.turn("bob") == world.turn("alice") == expected


def test_a_file_that_a_node_puts_in_the_place_of_the_operators_is_moved(world: World) -> None:
    time.sleep(0.06)
    world.turn("alice")
    world.write("input/new.png", content="alice's")
    (world.base / "input/new.png").replace(world.base / "input/mine.png")
    os.link(world.base / "output/old.png", world.base / "input/second.png")
    assert not {"input/mine.png", "input/second.png"} & world.turn("bob")
    assert world.kept() == ["alice's", "x"]
    assert (world.base / "output/old.png").is_file()


def test_old_outputs_that_get_a_name_a_right_or_a_time_more_stay(world: World) -> None:
    time.sleep(0.06)
    before = world.turn("alice")
    world.write("output/late.png")
    os.link(world.base / "output/old.png", world.base / "backup.png")
    (world.base / "temp/old.png").chmod(0o600)
    os.utime(world.base / "output/kept/deep/old.png")
    assert world.turn("bob") == before | {"backup.png"}


def test_a_second_name_for_the_operators_file_is_moved_and_the_first_one_stays(world: World) -> None:
    before = world.turn("alice")
    os.link(world.base / "input/mine.png", world.base / "input/of-alice.png")
    assert world.turn("bob") == before


def test_folders_that_keep_their_times_or_let_nobody_write_hide_nothing(world: World) -> None:
    world.write("input/pack/old.png")
    before = world.turn("alice")
    for name in ("input/pack/mask.png", "input/new/deep/mask.png", f"input/{'ü' * 120}.png"):
        world.write(name)
    for folder in ("pack", "new/deep", "new", ""):
        os.utime(world.base / "input" / folder, (1_700_000_000,) * 2)
    (world.base / "input/new/deep").chmod(0o500)
    (world.base / "input/new").chmod(0o500)
    assert world.turn("bob") == before


def test_a_process_after_this_one_knows_whose_files_are_there(world: World) -> None:
    before = world.turn("alice")
    world.write("input/mask.png", content="mask")
    world.write("output/late.png", content="late")
    time.sleep(0.06)
    world.held.close()
    time.sleep(0.06)
    for name in ("input/operators.png", "input/his/folder/of.png", "output/his.png"):
        world.write(name)
    world.held = EngineFolders(world.folders)
    put = {"input/operators.png", "input/his", "input/his/folder", "input/his/folder/of.png", "output/his.png"}
    assert world.turn("alice") == before | put | {"input/mask.png", "output/late.png"}
    assert world.turn("bob") == before | put
    assert world.kept() == ["late", "mask"]


def test_what_a_dead_process_has_left_of_one_owner_is_moved_before_anothers_job(world: World) -> None:
    before = world.turn("alice")
    world.write("input/mask.png")
    world.write("output/unnamed.png")
    dead, world.held = world.held, EngineFolders(world.folders)
    assert world.turn("bob") == before
    dead.close()


def test_long_after_a_process_has_died_what_came_since_is_the_operators(world: World) -> None:
    before = world.turn("alice")
    world.write("input/mask.png")
    time.sleep(0.06)
    died_at = time.time() + 0.05
    time.sleep(0.1)
    world.write("input/his.png")
    root = beside(world.folders["output"])
    now_s = time.time() + 2 * late_files._UNHEARD_S
    os.utime(root / "owner.json", (died_at, died_at))
    dead, world.held = world.held, EngineFolders(world.folders)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(time, "time", lambda: now_s)
        assert world.turn("bob") == before | {"input/his.png"}
    dead.close()


def test_what_a_run_has_left_that_died_with_its_process_is_its_owners_however_late_it_is_found(world: World) -> None:
    before = world.turn("alice")
    turn = world.held.hold(owner="alice")
    turn.__enter__()
    began_s = time.time()
    time.sleep(0.06)
    world.write("input/mask.png")
    root = beside(world.folders["output"])
    os.utime(root / "owner.json", (began_s, began_s))
    os.close(world.held._held or 0)  # the process is gone, with all that it held
    dead, world.held = world.held, EngineFolders(world.folders)
    dead._held = None
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(time, "time", lambda: began_s + 2 * late_files._UNHEARD_S)
        assert world.turn("bob") == before
    turn.__exit__(None, None, None)
    dead.close()


def test_processes_that_have_the_folders_in_turn_know_of_each_other(world: World) -> None:
    before = world.turn("alice")
    ours, theirs = world.held, EngineFolders(world.folders)
    try:
        for number in range(3):
            world.held = theirs
            assert world.turn("bob") == before
            world.write(f"input/bob-{number}.png")
            assert world.turn("bob") > before
            world.held = ours
            assert world.turn("alice") == before
            world.write(f"input/alice-{number}.png")
    finally:
        theirs.close()


def test_where_nothing_can_be_noted_files_are_apart_all_the_same(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    before = world.turn("alice")

    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(late_files, "_write", full)
    for owner in ("bob", "alice", "bob"):
        world.write("input/mask.png")
        assert world.turn(owner) == before


def test_folders_that_cannot_be_cleared_are_given_to_no_job(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    world.turn("alice")

    def fails(*_: object) -> None:
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    with monkeypatch.context() as patch:
        patch.setattr(late_files.LateFiles, "change", fails)
        for _ in range(2):
            with pytest.raises(OSError, match="Input/output"):
                world.turn("bob")
    world.turn("bob")


def test_what_was_moved_last_does_not_fill_the_disk(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(late_files, "MAX_KEPT_BYTES", 10)
    monkeypatch.setattr("shutil.disk_usage", lambda _: SimpleNamespace(free=50))
    world.turn("alice")
    world.write("input/film.mp4", content="x" * 100)
    world.turn("bob")
    assert world.kept() == []


def test_what_was_moved_last_is_kept_whole(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(late_files, "MAX_KEPT_BYTES", 10)
    world.turn("alice")
    world.write("input/film.mp4", content="x" * 100)
    world.turn("bob")
    assert world.kept() == ["x" * 100]
    world.write("input/deep/mask.png", content="mask")
    world.turn("alice")
    assert world.kept() == ["mask"]


@pytest.mark.parametrize("kind", ["input", "output", "temp"])
@pytest.mark.parametrize("way", ["removed", "a link", "a link to nothing", "a file"])
def test_a_folder_of_comfyuis_that_a_node_has_taken_away_is_there_for_the_next_job(
    world: World, kind: str, way: str
) -> None:
    world.turn("alice")
    folder, elsewhere = world.base / kind, world.base / "elsewhere"
    folder.chmod(0o750)
    world.held.follow(world.folders)
    folder.rename(elsewhere)
    if way == "a file":
        folder.write_text("x")
    elif way != "removed":
        folder.symlink_to(elsewhere if way == "a link" else world.base / "nowhere")
    world.turn("alice")
    assert not folder.is_symlink()
    assert not folder.is_file()
    if kind != "temp":  # which ComfyUI makes itself
        assert folder.is_dir()
        assert folder.stat().st_mode & 0o777 == 0o750
    assert any(elsewhere.iterdir()), "what the link led to is as it was"


def test_names_that_are_no_text_are_noted_and_moved(world: World, caplog: pytest.LogCaptureFixture) -> None:
    hers, late = os.fsdecode(b"caf\xe9.png"), os.fsdecode(b"th\xe9.png")
    for kind in ("input", "output"):
        world.write(f"{kind}/{hers}")
    before = world.turn("alice")
    world.held.close()
    world.held = EngineFolders(world.folders)
    assert world.turn("alice") == before
    for kind in ("input", "output"):
        world.write(f"{kind}/{late}")
    assert world.turn("bob") == before
    assert "th\\udce9.png" in caplog.text
    caplog.text.encode()  # whatever a file is called, the log can be written


@pytest.mark.parametrize("kind", ["input", "output"])
def test_rights_that_a_node_takes_from_comfyuis_folders_are_given_again(world: World, kind: str) -> None:
    world.turn("alice")
    (world.base / kind).chmod(0o500)
    world.turn("alice")
    assert (world.base / kind).stat().st_mode & 0o700 == 0o700


def test_our_own_folder_in_the_input_folder_can_be_used_by_the_next_owner(world: World) -> None:
    (world.base / "input/comfy-serverless").mkdir()
    world.turn("alice")
    world.write("input/comfy-serverless/mask.png")
    (world.base / "input/comfy-serverless").chmod(0)
    assert "input/comfy-serverless/mask.png" not in world.turn("bob")
    assert (world.base / "input/comfy-serverless").stat().st_mode & 0o700 == 0o700


def test_operators_files_stay_where_inodes_do_not_last(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    world.write("input/deep/mine.png")
    time.sleep(0.12)
    before = world.turn("alice")
    mark = standing._mark
    monkeypatch.setattr(standing, "_mark", lambda inode, *, is_folder: mark(inode + 1, is_folder=is_folder))
    for name in ("mask.png", "deep/mask.png"):
        world.write(f"input/{name}")
    world.write("input/other.png", content="alice's")
    (world.base / "input/other.png").replace(world.base / "input/mine.png")
    assert world.turn("bob") == before - {"input/mine.png"}


def mount(world: World, monkeypatch: pytest.MonkeyPatch, *places: str) -> None:
    """Let folders be what the operator has mounted there: nobody else may do that for a test."""
    paths = frozenset((str(world.base / place), "0:1") for place in places)
    monkeypatch.setattr(standing, "mounts_in", lambda _: paths)


@pytest.mark.parametrize("place", ["input", "input/there", "input/new", "input/new/deep"])
def test_what_the_operator_mounts_or_unmounts_between_jobs_stays(
    world: World, monkeypatch: pytest.MonkeyPatch, place: str
) -> None:
    (world.base / "input/there").mkdir()
    world.turn("alice")
    for name in (f"{place}/film.mp4", f"{place}/of/2024/film.mp4"):
        world.write(name)
    mount(world, monkeypatch, place)
    there = world.names()
    assert world.turn("bob") == there
    world.write(f"{place}/mask.png")
    world.write("input/new/mask.png")
    assert not {f"{place}/mask.png", "input/new/mask.png"} & world.turn("alice")
    (world.base / place).rename(world.base / "elsewhere")
    world.write(f"{place}/below.png")
    mount(world, monkeypatch)
    assert f"{place}/below.png" in world.turn("bob")


def test_a_mount_that_was_there_is_known_to_the_next_process(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    world.write("input/nas/film.mp4")
    mount(world, monkeypatch, "input/nas")
    before = world.turn("alice")
    world.write("input/nas/mask.png")
    world.held.close()
    world.held = EngineFolders(world.folders)
    assert world.turn("bob") == before


def test_mounts_are_read_from_the_kernels_list() -> None:
    mounted = dict(mounts_in("/proc"))
    assert os.path.ismount("/proc") == ("/proc" in mounted)
    assert all(f"{path}/".startswith("/proc/") for path in mounted)
    assert mounts_in("/nowhere") == frozenset()


@pytest.fixture
def elsewhere(monkeypatch: pytest.MonkeyPatch) -> None:
    """The input folder is on another file system than what is kept."""
    rename = Path.rename

    def renames(path: Path, target: Path) -> Path:
        if "late" in Path(target).parts:
            raise OSError(errno.EXDEV, os.strerror(errno.EXDEV))
        return rename(path, target)

    monkeypatch.setattr(Path, "rename", renames)
    renamed = os.rename

    def os_renames(path: str | Path, target: str | Path) -> None:
        if "late" in Path(target).parts:
            raise OSError(errno.EXDEV, os.strerror(errno.EXDEV))
        renamed(path, target)

    monkeypatch.setattr(os, "rename", os_renames)


@pytest.mark.usefixtures("elsewhere")
def test_what_is_on_another_file_system_is_moved_there(world: World) -> None:
    before = world.turn("alice")
    world.write("input/mask.png", content="mask")
    world.write("input/new/deep/mask.png", content="deep")
    (world.base / "input/link").symlink_to(world.base / "output/kept")
    assert world.turn("bob") == before
    assert {"mask", "deep"} <= set(world.kept())
    assert (world.base / "output/kept/deep/old.png").is_file()


@pytest.mark.usefixtures("elsewhere")
@pytest.mark.parametrize("name", ["mask.png", "new/deep/mask.png"])
@pytest.mark.parametrize("what", ["no room", "a pipe"])
def test_what_another_file_system_cannot_take_is_seen_by_nobody_and_leaves_no_parts(
    world: World, monkeypatch: pytest.MonkeyPatch, name: str, what: str
) -> None:
    before = world.turn("alice")
    world.write(f"input/{name}", content="mask")
    if what == "a pipe":
        (world.base / "input" / name).unlink()
        os.mkfifo(world.base / "input" / name)
    else:

        def full(_: object, target: str | Path, **__: object) -> None:
            Path(target).write_text("a part")
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

        monkeypatch.setattr("shutil.copyfile", full)
    assert world.turn("bob") == before
    assert world.kept() == []


@pytest.mark.usefixtures("elsewhere")
def test_what_cannot_be_removed_is_not_copied_again_at_each_change(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    world.turn("alice")
    world.write("input/mask.png")
    unlink = os.unlink

    def refused(path: str | Path, **arguments: Any) -> None:
        if str(path) == str(world.base / "input/mask.png"):
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))
        unlink(path, **arguments)

    monkeypatch.setattr(os, "unlink", refused)
    for owner in ("bob", "alice", "bob"):
        assert "input/mask.png" in world.turn(owner), "nobody may take it"
    assert world.kept() == []


@pytest.mark.parametrize("written", ["", "{", "[]", '{"folder": 1}', '{"noted_s": 1, "entries": []}'])
def test_what_a_dead_process_has_left_is_moved_whatever_has_become_of_its_notes(world: World, written: str) -> None:
    time.sleep(0.06)
    before = world.turn("alice")
    world.write("input/mask.png")
    notes = beside(world.folders["output"]) / "standing.json"
    if written:
        notes.write_text(written)
    else:
        notes.unlink()
    dead, world.held = world.held, EngineFolders(world.folders)
    assert world.turn("bob") == before
    dead.close()


def test_a_file_is_for_all_if_the_operator_has_put_it_there(world: World) -> None:
    world.write("input/pets/cat.png")
    world.write("elsewhere/far.png")
    (world.base / "input/link").symlink_to(world.base / "elsewhere")
    time.sleep(0.06)
    operators = ("mine.png", "pets/cat.png", "link/far.png")
    for _ in range(2):  # and of a process that comes after this one's death
        assert all(map(world.held.is_operators, operators))
        world.turn("alice")
        for name in ("mask.png", "pets/mask.png", "new/mask.png", "3d/mask.png"):
            world.write(f"input/{name}")
        (world.base / "input/hers").unlink(missing_ok=True)
        (world.base / "input/hers").symlink_to(world.base / "output")
        assert all(map(world.held.is_operators, operators))
        hers = ("mask.png", "pets/mask.png", "new/mask.png", "3d/mask.png", "hers/old.png", "gone.png")
        assert not any(map(world.held.is_operators, hers))
        dead, world.held = world.held, EngineFolders(world.folders)
        assert not any(map(world.held.is_operators, hers))
        dead._late.see()


@pytest.mark.parametrize("place", ["input", "output/comfy-serverless/run"])
@pytest.mark.parametrize("has_file", [False, True])
def test_folders_of_any_depth_hold_up_no_other_owner(
    world: World, monkeypatch: pytest.MonkeyPatch, place: str, *, has_file: bool
) -> None:
    (world.base / "output/comfy-serverless").mkdir()
    before = world.turn("alice")
    world.held.kept("run")
    (world.base / place).mkdir(exist_ok=True)
    monkeypatch.chdir(world.base / place)
    for _ in range(1200):  # deeper than Python calls itself
        Path("d").mkdir()
        os.chdir("d")
    if has_file:
        Path("mask.png").touch()
    monkeypatch.chdir(world.base)
    assert world.turn("bob") == before
    remove_tree(beside(world.folders["output"]))  # pytest could not


@pytest.mark.usefixtures("elsewhere")
def test_folders_of_any_depth_on_another_file_system_hold_up_no_other_owner(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = world.turn("alice")
    monkeypatch.chdir(world.base / "input")
    for _ in range(1200):
        Path("d").mkdir()
        os.chdir("d")
    Path("mask.png").touch()
    monkeypatch.chdir(world.base)
    assert world.turn("bob") == before
    assert world.kept() == []


def test_nothing_leaves_an_input_folder_in_which_another_worker_has_jobs(
    world: World, caplog: pytest.LogCaptureFixture
) -> None:
    """Each has an output folder of its own, and so they take no turns: what is there may be a running job's."""
    (world.base / "output2").mkdir()
    elsewhere = EngineFolders({**world.folders, "output": world.base / "output2"})
    named = f"input/{own_folders()[0]}/{'0' * 32}.png"
    world.turn("alice")
    world.write(named)
    world.write("input/made.png")
    with elsewhere.hold(owner="carol"):
        assert {named, "input/made.png"} <= world.turn("bob")
    assert "Give each worker an input folder of its own" in caplog.text
    again = EngineFolders(world.folders)  # a process that begins takes none of it for what a dead one has left
    with again.hold(owner="dave"):
        assert {named, "input/made.png"} <= world.names()
    again.close()
    elsewhere.close()
    assert not {named, "input/made.png"} & world.turn("alice")


def clean_up(world: World) -> None:
    """As who cleans a machine of what is old."""
    for folder in (world.base.parent / "shared").iterdir():
        remove_tree(folder)


def test_whose_runs_were_the_last_is_told_again_after_a_clean_up(world: World) -> None:
    world.turn("alice")
    clean_up(world)
    world.turn("alice")
    world.write("input/mask.png")
    another = EngineFolders(world.folders)
    with another.hold(owner="bob"):
        assert "input/mask.png" not in world.names()
        assert "input/mine.png" in world.names()
    another.close()


def test_what_the_operator_has_is_told_again_after_a_clean_up(world: World) -> None:
    world.turn("alice")
    (beside(world.folders["output"]) / "standing.json").unlink()
    world.write("input/mask.png")
    world.turn("alice")
    another = EngineFolders(world.folders)
    with another.hold(owner="bob"):
        assert "input/mask.png" not in world.names()
        assert "input/mine.png" in world.names()
    another.close()


def test_two_processes_take_turns_after_a_clean_up(world: World) -> None:
    another = EngineFolders(world.folders)
    clean_up(world)

    def give_up() -> None:
        raise TimeoutError

    with world.held.hold(owner="alice"), pytest.raises(TimeoutError), another.hold(give_up, owner="bob"):
        pytest.fail("both have the folders")
    with another.hold(owner="bob"):
        pass
    another.close()


def test_who_shares_the_input_folder_is_seen_after_a_clean_up(world: World) -> None:
    (world.base / "output-of-another").mkdir()
    another = EngineFolders({**world.folders, "output": world.base / "output-of-another"})
    clean_up(world)
    with another.hold(owner="carol"):
        world.turn("alice")
        world.write("input/carols.png")
        assert "input/carols.png" in world.turn("bob")
    another.close()


def test_our_folders_are_locked_for_who_cleans_up_and_this_users_alone(world: World) -> None:
    for again in (False, True):
        if again:
            clean_up(world)
        world.turn("alice")
        [shared] = (world.base.parent / "shared").iterdir()
        assert stat.S_IMODE(shared.stat().st_mode) == 0o700
        descriptor = os.open(shared, os.O_RDONLY | os.O_DIRECTORY)
        with pytest.raises(BlockingIOError):
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        os.close(descriptor)


def test_what_is_in_use_is_not_old(world: World) -> None:
    world.turn("alice")
    root = beside(world.folders["output"])
    files = [root / name for name in ("turn", "next", "owner.json", "standing.json")] + list(root.glob("kept-*/life"))
    assert len(files) == 5
    for file in files:
        os.utime(file, (0, 0))
    world.turn("alice")
    assert all(file.stat().st_mtime > 1 for file in files)


def test_who_waits_gets_his_turn_after_a_clean_up(world: World) -> None:
    another, calls = EngineFolders(world.folders), count()
    with ExitStack() as first:
        first.enter_context(world.held.hold(owner="alice"))

        def look() -> None:
            if (number := next(calls)) == 0:
                clean_up(world)
                first.close()
            assert number < 20, "nobody has the folders"

        with another.hold(look, owner="bob"):
            assert next(calls) > 0
    another.close()


@pytest.mark.parametrize("fails_at", [0, 1])
def test_a_job_that_cannot_begin_anew_after_a_clean_up_stops_no_other(
    world: World, monkeypatch: pytest.MonkeyPatch, fails_at: int
) -> None:
    (world.base / "output-of-another").mkdir()
    another = EngineFolders({**world.folders, "output": world.base / "output-of-another"})
    clean_up(world)
    calls, lock = count(), locks.lock

    def full(path: Path, kind: int = locks.ALONE) -> int:
        if next(calls) == fails_at:
            raise OSError(errno.ENOSPC, "No space left on device")
        return lock(path, kind)

    with monkeypatch.context() as patch:
        patch.setattr(locks, "lock", full)
        with pytest.raises(OSError, match="No space left"), another.hold(owner="carol"):
            pytest.fail("it has no folder of its own")
    with another.hold(owner="carol"):
        world.turn("alice")
        world.write("input/carols.png")
        assert "input/carols.png" in world.turn("bob"), "it is seen by the others"
    another.close()


def test_a_clean_up_as_a_job_begins_does_not_stop_it(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    world.turn("alice")
    world.write("output/late.png")
    monkeypatch.setattr(world.held, "restore", lambda: clean_up(world))
    assert "output/late.png" not in world.turn("bob")


@pytest.mark.parametrize("times", [1, 100], ids=["once", "on and on"])
def test_what_comes_while_the_rest_is_moved_is_not_there_for_ever(
    world: World, monkeypatch: pytest.MonkeyPatch, times: int
) -> None:
    before, move_out, numbers = world.turn("alice"), LateFiles.move_out, iter(range(times))
    time.sleep(0.06)
    world.write("output/late.png")

    def goes_on(late: LateFiles, path: Path, keep_in: Path | None = None) -> bool:
        has_moved = move_out(late, path, keep_in)
        if (number := next(numbers, None)) is not None:
            world.write(f"output/new/{number}.png")
        return has_moved

    with monkeypatch.context() as patch:
        patch.setattr(LateFiles, "move_out", goes_on)
        assert (world.turn("bob") == before) is (times == 1)
    for path in (world.base / "output/new").glob("*"):
        path.write_text("once more")  # as what is always in the same place
    assert world.turn("carol") == before
