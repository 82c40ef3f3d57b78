"""What a run has made, what it only names, and what is left of it in ComfyUI's folders."""

from __future__ import annotations

import errno
import os
import shutil
import threading
import time
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import BinaryIO

import pytest

from comfy_serverless.connector import local_files, whole_files
from comfy_serverless.connector.folders import EngineFolders
from comfy_serverless.connector.local_files import LocalFiles
from comfy_serverless.connector.made_files import JOBS_FOLDER, Made, Place, Remembered
from comfy_serverless.connector.places import beside
from comfy_serverless.connector.remote_files import RemoteFiles
from comfy_serverless.errors import DeadlineExceeded
from tests.patience import PATIENCE_S


class Engine:
    """The folders of an engine, with files that were there before."""

    def __init__(self, home: Path) -> None:
        self.home = home
        self.folders = {kind: home / kind for kind in ("input", "output", "temp")}
        for folder in self.folders.values():
            folder.mkdir(parents=True)
        self.write("input/mine.png", "output/old.png", "output/kept/deep/old.png", "temp/old.png", ".env")
        (self.folders["output"] / "empty").mkdir()
        made_before = time.time() - 50
        self.remembered = Remembered({kind: self.folders[kind] for kind in ("output", "temp")})
        self.before = self.names()
        self.began_s = made_before + 100
        time.sleep(0.03)

    def write(self, *names: str, content: str = "") -> None:
        for name in names:
            path = self.home / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(content or name)

    def write_at_once(self, name: str) -> float:
        """Write a file, which comes in one moment, however slow the machine is; the moment, in s since the epoch."""
        whole, path = self.home / ".ours" / "whole", self.home / name
        self.write(".ours/whole", content=name)
        whole.rename(path)
        return path.stat().st_ctime

    def run(
        self,
        keep_in: str = "kept",
        *,
        began_s: float | None = None,
        move_strays: Callable[[float], None] | None = None,
    ) -> LocalFiles:
        """A run apart that begins now."""
        kept = self.home / ".ours" / keep_in
        files = LocalFiles(self.folders, self.remembered, view=_nothing, keep_in=kept, move_strays=move_strays)
        files.begin(time.time() if began_s is None else began_s)
        return files

    def names(self) -> set[str]:
        return {
            str(path.relative_to(self.home)) + "/" * path.is_dir()
            for path in self.home.rglob("*")
            if ".ours" not in path.parts
        }


def _nothing(*_: str) -> BinaryIO:
    raise AssertionError


@pytest.fixture
def engine(tmp_path: Path) -> Engine:
    return Engine(tmp_path / "ComfyUI")


def output(name: str, subfolder: str = "", folder_type: str = "output") -> Place:
    return Place(name, subfolder, folder_type)


def contents(made: list[Made]) -> dict[str, str]:
    return {
        f"{file.place.folder_type}/{file.place.subfolder}/{file.place.name}": file.fetch().read().decode()
        for file in made
    }


@pytest.mark.parametrize(
    "place",
    [
        output("old.png"),
        output("old.png", "kept/deep"),
        output("old.png", folder_type="temp"),
        output("mine.png", folder_type="input"),
        output("mine.png", "../input"),
        output(".env", "..", "temp"),
        output(".env", folder_type="temp"),
        output("x.png", folder_type="base"),
        output("../.env"),
        output("empty"),
        output("link.png"),
        output("linked.png", "linked-folder"),
        output("pipe"),
        output("n\0ul.png"),
        output("x" * 300),
    ],
)
def test_a_reference_to_what_the_run_has_not_made_is_refused(engine: Engine, place: Place, tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "linked.png").write_text("private")
    run = engine.run()
    (engine.folders["output"] / "link.png").symlink_to(engine.home / ".env")
    (engine.folders["output"] / "linked-folder").symlink_to(outside)
    os.mkfifo(engine.folders["output"] / "pipe")
    assert run.claim(place, cached=False) is None
    assert run.claim(place, cached=True) is None
    assert run.find(f"{place.subfolder}/{place.name}", cached=False) is None
    assert [file for file in run.unclaimed() if file.place.name != "link.png"] == []
    run.leave()
    assert engine.names() >= engine.before
    made = {engine.folders["output"] / name for name in ("link.png", "linked-folder", "pipe")}
    assert [path for path in made if path.is_symlink() or path.exists()] == [], "the next owner would see their names"
    assert (engine.home / ".env").exists()
    assert outside.is_dir()


def test_a_run_that_breaks_off_leaves_nothing_for_the_next_one(engine: Engine) -> None:
    run = engine.run()
    engine.write("output/a.png", "temp/deep/b.png")
    run.leave()
    assert engine.names() == engine.before


def test_the_own_folder_of_a_run_leaves_with_what_comes_too_late(engine: Engine) -> None:
    run = engine.run("job")
    engine.write("output/comfy-serverless/job/deep/a.png", "temp/comfy-serverless/job/b.png")
    made = run.unclaimed()
    engine.write("output/comfy-serverless/job/deep/late.png")
    run.leave()
    assert engine.names() == engine.before | {"output/comfy-serverless/", "temp/comfy-serverless/"}
    assert sorted(contents(made)) == [
        "output/comfy-serverless/job/deep/a.png",
        "temp/comfy-serverless/job/b.png",
    ]


def test_a_link_in_the_place_of_the_folder_of_jobs_leads_to_nothing_that_leaves(engine: Engine, tmp_path: Path) -> None:
    anybodys = tmp_path / "anybodys"
    (anybodys / "job").mkdir(parents=True)
    (anybodys / "job/precious").write_text("x")
    run = engine.run("job")
    engine.write("temp/new.png")
    (engine.folders["output"] / JOBS_FOLDER).symlink_to(anybodys)
    run.unclaimed()
    run.leave()
    assert (anybodys / "job/precious").exists()


def test_what_the_run_has_made_is_kept_apart_and_leaves_comfyuis_folders(engine: Engine) -> None:
    run = engine.run()
    engine.write("output/comfy-serverless/job/a.png", "output/new/deep/b.txt", "temp/c.png", "output/kept/d.png")
    claimed = run.claim(output("a.png", "comfy-serverless/job"), cached=False)
    assert claimed is not None
    assert claimed.path is not None
    assert ".ours" in claimed.path.parts
    found = run.find(str(engine.folders["output"] / "new/deep/b.txt"), cached=False)
    assert found is not None
    assert found.place == output("b.txt", "new/deep")
    rest = run.unclaimed()
    assert sorted(file.place.name for file in rest) == ["c.png", "d.png"]
    run.leave()
    assert engine.names() == engine.before | {"output/comfy-serverless/"}
    assert contents([claimed, found, *rest]) == {
        "output/comfy-serverless/job/a.png": "output/comfy-serverless/job/a.png",
        "output/new/deep/b.txt": "output/new/deep/b.txt",
        "temp//c.png": "temp/c.png",
        "output/kept/d.png": "output/kept/d.png",
    }


def test_a_folder_that_a_run_has_made_and_left_empty_goes_with_it(engine: Engine) -> None:
    run = engine.run()
    (engine.folders["output"] / "made" / "in vain").mkdir(parents=True)
    run.unclaimed()
    run.leave()
    assert engine.names() == engine.before


@pytest.mark.parametrize("overlaps", [False, True])
def test_the_empty_folder_of_a_run_that_has_died_before_its_first_file_goes_with_it(
    engine: Engine, overlaps: bool
) -> None:
    run = engine.run("1")
    if overlaps:
        engine.run("2")
    (engine.folders["output"] / JOBS_FOLDER / "1" / "deep").mkdir(parents=True)
    (engine.folders["output"] / JOBS_FOLDER / "2").mkdir()
    assert run.unclaimed() == []
    run.leave()
    assert engine.names() - engine.before == {f"output/{JOBS_FOLDER}/", f"output/{JOBS_FOLDER}/2/"}


def test_what_is_left_of_runs_is_not_looked_for_behind_a_link(
    engine: Engine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    (tmp_path / "anybodys/1").mkdir(parents=True)
    folders = EngineFolders(engine.folders)
    folders.kept("1")
    (engine.folders["output"] / JOBS_FOLDER).symlink_to(tmp_path / "anybodys")
    with folders.hold():
        assert (tmp_path / "anybodys/1").is_dir()
    folders.close()
    assert (tmp_path / "anybodys/1").is_dir()


def test_a_file_that_was_there_and_is_written_anew_is_the_runs_if_a_node_names_it(engine: Engine) -> None:
    run = engine.run()
    engine.write("output/old.png", content="new")
    made = run.claim(output("old.png"), cached=False)
    assert made is not None
    assert made.fetch().read() == b"new"


def test_a_run_does_not_take_what_the_next_one_has_made_and_not_named_yet(engine: Engine) -> None:
    first, second = engine.run("job-1"), engine.run("job-2")
    engine.write("temp/preview_1.png", "output/comfy-serverless/job-1/silent.txt")
    engine.write("temp/preview_2.png", "output/comfy-serverless/job-2/silent.txt")
    assert first.claim(output("preview_1.png", folder_type="temp"), cached=False) is not None
    assert list(contents(first.unclaimed())) == ["output/comfy-serverless/job-1/silent.txt"]
    first.leave()
    assert second.claim(output("preview_2.png", folder_type="temp"), cached=False) is not None
    engine.write("output/elsewhere.txt")
    assert len(second.unclaimed()) == 2, "alone, it has made all that is new"


def test_two_runs_at_once_never_have_the_same_file(engine: Engine) -> None:
    first, second = engine.run("first"), engine.run("second")
    engine.write("output/a.png")
    assert first.claim(output("a.png"), cached=False) is not None
    engine.write("output/b.png")
    assert second.claim(output("a.png"), cached=False) is None
    first.leave()
    assert [file.place.name for file in second.unclaimed()] == ["b.png"]
    engine.write("output/a.png", content="the second one's")
    assert contents(second.unclaimed()) == {"output//a.png": "the second one's"}
    second.leave()
    assert engine.names() == engine.before


def test_a_run_cannot_name_what_is_in_the_folder_of_one_that_is_in_the_engine_too(engine: Engine) -> None:
    thief, other = engine.run("thief"), engine.run("other")
    others = output("picture.png", subfolder=f"{JOBS_FOLDER}/other")
    engine.write(f"output/{JOBS_FOLDER}/other/picture.png")
    assert thief.claim(others, cached=False) is None
    assert thief.find(f"{JOBS_FOLDER}/other/picture.png", cached=False) is None
    assert other.claim(others, cached=False) is not None
    thief.leave()
    other.leave()
    assert engine.names() == engine.before | {f"output/{JOBS_FOLDER}/"}


def test_a_run_whose_next_one_has_begun_takes_only_what_is_in_its_own_folder_or_named(engine: Engine) -> None:
    first, second = engine.run("1"), engine.run("2")
    jobs = JOBS_FOLDER
    engine.write(f"output/{jobs}/1/a.txt", f"output/{jobs}/2/b.png", "temp/b.png", "temp/stray.png")
    assert [str(file.place) for file in first.unclaimed()] == [f"'{jobs}/1/a.txt' (output)"]
    first.leave()
    assert second.claim(Place("b.png", "", "temp"), cached=False) is not None
    alone = {str(file.place) for file in second.unclaimed()}
    assert alone == {f"'{jobs}/2/b.png' (output)", "'stray.png' (temp)"}
    second.leave()
    assert engine.names() == engine.before | {f"output/{jobs}/"}


def test_strays_leave_with_the_last_run_and_before_the_next_one_begins(engine: Engine) -> None:
    moved: list[float] = []

    def move(since_s: float) -> None:
        assert engine.remembered.lock.locked(), "the next run's first files would leave with them"
        moved.append(since_s)

    began_s = time.time()
    first, second, third = (engine.run(str(number), began_s=began_s + number, move_strays=move) for number in range(3))
    for run in (first, second):
        run.leave()
        assert moved == [], "what the other one makes is in the folders, too"
    third.leave()
    engine.run("4", began_s=began_s + 4, move_strays=move).leave()
    assert [round(since_s - began_s, 1) for since_s in moved] == [0, 4], "since the first one of those together began"


def test_a_later_file_of_the_same_name_is_not_removed_with_the_earlier_one(engine: Engine) -> None:
    run = engine.run()
    engine.write("output/a.png")
    run.unclaimed()
    (engine.folders["output"] / "a.png").unlink()
    engine.write("output/a.png", content="another run's")
    run.leave()
    assert (engine.folders["output"] / "a.png").read_text() == "another run's"


def test_a_node_that_recalls_an_earlier_delivery_of_its_job_finds_the_kept_file(engine: Engine) -> None:
    first = engine.run()
    engine.write("output/a.png")
    first.unclaimed()
    first.leave()
    again = engine.run()
    assert again.claim(output("a.png"), cached=False) is None
    recalled = again.claim(output("a.png"), cached=True)
    assert recalled is not None
    assert recalled.fetch().read() == b"output/a.png"
    assert engine.run("of another job").claim(output("a.png"), cached=True) is None


def test_the_files_of_the_machines_owner_stay_where_they_are(engine: Engine) -> None:
    run = LocalFiles(engine.folders, engine.remembered, view=_nothing)
    engine.write("output/a.png")
    made = run.claim(output("a.png"), cached=False)
    assert made is not None
    assert made.path == (engine.folders["output"] / "a.png").resolve()
    assert run.claim(output("old.png"), cached=True) is not None
    assert run.claim(output("old.png"), cached=False) is None
    run.leave()
    assert engine.names() == engine.before | {"output/a.png"}


def test_two_runs_of_the_machines_owner_at_once_have_each_its_own(engine: Engine) -> None:
    first, second = (LocalFiles(engine.folders, engine.remembered, view=_nothing) for _ in range(2))
    time.sleep(0.02)
    engine.write("output/silent of the first.txt")
    time.sleep(0.02)
    first.end(time.time())
    time.sleep(0.02)
    second.begin(time.time())
    time.sleep(0.02)
    engine.write("output/b.png")
    assert [file.place.name for file in first.unclaimed()] == ["silent of the first.txt"]
    assert second.claim(output("b.png"), cached=False) is not None
    first.leave()
    engine.write("output/late.txt")
    assert [file.place.name for file in second.unclaimed()] == ["late.txt"], "now it is alone"


def quick(engine: Engine, name: str, run: LocalFiles) -> None:
    """A file of a run's first moment: the file system's clock lags behind, and ComfyUI says whole ms."""
    run.begin(engine.write_at_once(f"output/{name}"))


def test_a_quick_file_is_the_runs_although_others_wait_if_none_was_at_work_just_before(engine: Engine) -> None:
    first, second = (LocalFiles(engine.folders, engine.remembered, view=_nothing) for _ in range(2))
    first.begin(time.time())
    time.sleep(0.02)
    engine.write("output/a.txt")
    time.sleep(0.02)
    first.end(time.time())
    assert [file.place.name for file in first.unclaimed()] == ["a.txt"]
    time.sleep(0.05)
    quick(engine, "quick.txt", second)
    second.end(time.time() + 0.01)
    assert [file.place.name for file in second.unclaimed()] == ["quick.txt"]
    assert second.claim(output("a.txt"), cached=False) is None


def test_a_quick_file_that_may_be_either_ones_is_nobodys_and_is_named(engine: Engine) -> None:
    first, second = (LocalFiles(engine.folders, engine.remembered, view=_nothing) for _ in range(2))
    first.begin(time.time())
    time.sleep(0.05)
    quick(engine, "quick.txt", second)
    first.end((engine.folders["output"] / "quick.txt").stat().st_ctime)
    second.end(time.time() + 0.01)
    for run in (first, second):
        assert run.unclaimed() == []
        assert "'quick.txt'" in run.nothing
        assert "no file has appeared" not in run.nothing


def test_a_run_whose_end_is_not_known_yet_may_still_write(engine: Engine) -> None:
    first, second = (LocalFiles(engine.folders, engine.remembered, view=_nothing) for _ in range(2))
    first.begin(time.time())
    time.sleep(0.05)
    quick(engine, "quick.txt", second)
    second.end(time.time() + 0.01)
    assert second.unclaimed() == []
    first.leave()  # it has broken off, long before the next one
    time.sleep(0.05)
    third = LocalFiles(engine.folders, engine.remembered, view=_nothing)
    quick(engine, "of the third.txt", third)
    second.leave()
    assert [file.place.name for file in third.unclaimed()] == ["of the third.txt"]


def test_what_was_there_before_a_run_in_company_is_not_its_own(engine: Engine) -> None:
    first = LocalFiles(engine.folders, engine.remembered, view=_nothing)
    engine.write("output/of another client.txt")
    second = LocalFiles(engine.folders, engine.remembered, view=_nothing)
    second.begin(time.time())
    second.end(time.time() + 0.01)
    assert second.unclaimed() == []
    first.leave()


@pytest.mark.parametrize(("numbers", "is_its_own"), [([4, 5], True), ([4, 6], False), ([4, None], False), ([0], True)])
def test_a_file_of_the_moment_before_is_the_runs_only_if_no_other_client_was_there(
    engine: Engine, numbers: list[float | None], is_its_own: bool
) -> None:
    *before, number = numbers
    for earlier in before:
        run = LocalFiles(engine.folders, engine.remembered, view=_nothing)
        run.see_number(earlier)
        run.end(0.0)
        run.leave()
    run = LocalFiles(engine.folders, engine.remembered, view=_nothing)
    come_s = engine.write_at_once("output/quick.txt")  # this run's, or another client's, whose prompt has just ended
    run.begin(come_s + 0.004)
    run.see_number(number)
    assert [file.place.name for file in run.unclaimed()] == (["quick.txt"] if is_its_own else [])
    assert ("quick.txt" in run.nothing) is not is_its_own


def test_a_file_of_the_first_moment_is_the_runs_and_one_of_the_moment_before_it_is_not(engine: Engine) -> None:
    engine.write("output/of another client.txt")
    run = LocalFiles(engine.folders, engine.remembered, view=_nothing)
    come_s = engine.write_at_once("output/quick.txt")
    run.begin(come_s + 0.004)  # the file system's clock lags behind, and a node that writes a text takes no ms
    assert [file.place.name for file in run.unclaimed()] == ["quick.txt"]


def test_what_came_in_the_moment_before_a_run_apart_is_not_its_own(engine: Engine) -> None:
    come_s = engine.write_at_once("output/of the operator.txt")
    run = engine.run(began_s=come_s + 0.004)
    engine.write("output/quick.txt")
    assert [file.place.name for file in run.unclaimed()] == ["quick.txt"]
    run.leave()
    assert "output/of the operator.txt" in engine.names()


def test_a_file_that_is_still_being_written_is_waited_for(engine: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    run = engine.run()
    path = engine.folders["output"] / "slow.bin"
    now, left = [time.time()], list(range(20))

    def write_on(pause_s: float = 0.0) -> None:
        """What somebody does while the file is waited for."""
        now[0] += pause_s
        if left:
            left.pop()
            with path.open("ab") as file:
                file.write(b"x" * 100)
            os.utime(path, (now[0], now[0]))

    write_on()
    clock = SimpleNamespace(time=lambda: now[0], monotonic=lambda: now[0], sleep=write_on)
    monkeypatch.setattr(local_files, "time", clock)
    monkeypatch.setattr(whole_files, "time", clock)
    [made] = run.unclaimed()
    assert left == []
    assert len(made.fetch().read()) == 2000


def test_a_folder_in_which_nothing_has_changed_is_not_read_again(
    engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    time.sleep(0.1)
    engine.run().leave()
    read: list[Path] = []
    scandir = os.scandir

    def counted(path: str) -> object:
        read.append(Path(path))
        return scandir(path)

    monkeypatch.setattr(os, "scandir", counted)
    engine.run().leave()
    assert read == []
    run = engine.run()
    engine.write("output/kept/deep/new.png")
    run.begin(time.time() - 0.02)  # files have the time of a clock that may be a tick behind
    assert [file.place.name for file in run.unclaimed()] == ["new.png"]
    assert read == [engine.folders["output"].resolve() / "kept/deep"]


class TestAnEngineElsewhere:
    """Only ComfyUI itself can be asked."""

    @pytest.mark.parametrize(
        ("changed_s", "is_apart", "cached", "is_believed"),
        [
            (1000.5, True, False, True),
            (990.0, True, False, False),
            (990.0, True, True, False),
            (990.0, False, True, True),
            (990.0, False, False, False),
            (None, False, True, False),
            (0.0, True, False, False),
            (0.0, False, False, True),
        ],
    )
    def test_what_it_says_is_new_is_the_runs(
        self, changed_s: float | None, is_apart: bool, cached: bool, is_believed: bool
    ) -> None:
        files = RemoteFiles(lambda _: changed_s, Remembered(), view=_nothing, is_apart=is_apart)
        files.begin(1000)
        assert (files.claim(output("a.png"), cached=cached) is not None) is is_believed

    def test_it_is_not_asked_for_inputs(self) -> None:
        files = RemoteFiles(lambda _: pytest.fail("asked"), Remembered(), view=_nothing, is_apart=False)
        assert files.claim(output("a.png", folder_type="input"), cached=False) is None


class TestFoldersOfSeveralProcesses:
    """Engines that several processes start may have the same folders."""

    def test_one_at_a_time_has_them_and_jobs_of_one_process_have_them_together(self, engine: Engine) -> None:
        ours, theirs = EngineFolders(engine.folders), EngineFolders(engine.folders)
        has_them = threading.Event()

        def wait() -> None:
            with theirs.hold():
                has_them.set()

        with ours.hold(), ours.hold():
            other = threading.Thread(target=wait)
            other.start()
            assert not has_them.wait(0.2)
        assert has_them.wait(PATIENCE_S)
        other.join()
        ours.close()
        theirs.close()

    def test_a_process_with_many_jobs_lets_another_have_a_turn(self, engine: Engine) -> None:
        ours, theirs = EngineFolders(engine.folders), EngineFolders(engine.folders)
        has_them, ends = threading.Event(), threading.Event()

        def busy() -> None:
            while not ends.is_set():
                with ours.hold():
                    time.sleep(0.01)

        workers = [threading.Thread(target=busy) for _ in range(2)]
        for worker in workers:
            worker.start()
        with theirs.hold():
            has_them.set()
        ends.set()
        for worker in workers:
            worker.join()
        assert has_them.is_set()

    def test_who_has_them_may_ask_again_although_another_process_waits(self, engine: Engine) -> None:
        ours, theirs = EngineFolders(engine.folders), EngineFolders(engine.folders)
        waits = threading.Event()

        def wait() -> None:
            with theirs.hold(waits.set):
                pass

        other = threading.Thread(target=wait)
        with ours.hold():
            other.start()
            assert waits.wait(PATIENCE_S)
            with ours.hold(lambda: pytest.fail("it waits for itself")):
                pass
        other.join()

    def test_the_wait_ends_as_its_caller_says(self, engine: Engine) -> None:
        ours, theirs = EngineFolders(engine.folders), EngineFolders(engine.folders)

        def too_late() -> None:
            raise DeadlineExceeded("no time")

        with ours.hold(), pytest.raises(DeadlineExceeded), theirs.hold(too_late):
            pytest.fail("both have them")

    def test_what_a_dead_process_has_left_is_removed_by_the_next_and_nothing_else(self, engine: Engine) -> None:
        dead, living = EngineFolders(engine.folders), EngineFolders(engine.folders)
        brought = f"{'a1' * 16}.png"
        engine.write(
            f"input/comfy-serverless/{brought}",
            "input/comfy-serverless/of the operator.png",
            "output/comfy-serverless/dead-job/a.png",
            "output/comfy-serverless/of the operator/a.png",
        )
        for folders, run in ((dead, "dead-job"), (living, "living-job")):
            folders.kept(run).mkdir(parents=True)
            (folders.kept(run) / "a.png").write_text("kept")
        os.close(dead._life)
        with EngineFolders(engine.folders).hold():
            pass
        assert not dead.kept("dead-job").exists()
        assert living.kept("living-job").exists()
        left = {name for name in engine.names() - engine.before if not name.endswith("/")}
        assert left == {
            "input/comfy-serverless/of the operator.png",
            "output/comfy-serverless/of the operator/a.png",
        }

    def test_what_a_node_that_was_given_up_has_made_since_is_gone_before_the_next_turn(self, engine: Engine) -> None:
        folders = EngineFolders(engine.folders)
        folders.kept("given-up")
        late = f"output/{JOBS_FOLDER}/given-up/deep/late.png"
        with folders.hold():
            engine.write(late, f"output/{JOBS_FOLDER}/of the operator/a.png")
            with folders.hold():
                assert late in engine.names(), "it may be this turn's"
        with folders.hold():
            left = {name for name in engine.names() - engine.before if not name.endswith("/")}
            assert left == {f"output/{JOBS_FOLDER}/of the operator/a.png"}
        engine.write(late)
        folders.close()
        assert late not in engine.names()

    def test_ours_is_on_the_same_file_system_and_nobody_elses(self, engine: Engine) -> None:
        own = beside(engine.folders["output"])
        assert own.stat().st_dev == engine.folders["output"].stat().st_dev
        assert own.stat().st_mode & 0o777 == 0o700
        assert not own.is_relative_to(engine.folders["output"])


def replace_whole(path: Path, content: str) -> None:
    """Write as careful savers do: beside it, then in its place."""
    temporary = path.with_name(".unfinished")
    temporary.write_text(content)
    temporary.replace(path)


def test_two_nodes_that_put_a_file_in_the_same_place_have_each_their_own(engine: Engine) -> None:
    run, latest = engine.run(), engine.folders["output"] / "latest.png"
    made = []
    for content in ("first", "second"):
        replace_whole(latest, content)
        made.append(run.claim(output("latest.png"), cached=False))
    replace_whole(latest, "third")
    made += run.unclaimed()
    assert [one is not None and one.fetch().read() for one in made] == [b"first", b"second", b"third"]
    run.leave()
    assert engine.names() == engine.before, "the next owner would find the last one"
    recalled = engine.run().claim(output("latest.png"), cached=True)
    assert recalled is not None
    assert recalled.fetch().read() == b"third", "what ComfyUI would show"


@pytest.mark.parametrize("as_", [os.rename, os.link], ids=["renamed", "linked"])
@pytest.mark.parametrize("source", ["output/kept/deep/old.png", ".env", "input/mine.png"])
def test_another_name_for_what_was_there_makes_no_output_of_it(
    engine: Engine, source: str, as_: Callable[[Path, Path], None]
) -> None:
    run, loot = engine.run(), engine.folders["output"] / "loot.png"
    as_(engine.home / source, loot)
    assert run.claim(output("loot.png"), cached=False) is None
    assert run.find("loot.png", cached=False) is None
    assert run.unclaimed() == []
    run.leave()
    if as_ is os.link:
        assert engine.names() == engine.before, "a name of the run's goes, the file stays"
    else:
        assert loot.read_text() == source, "its last name is not removed"


def test_a_copy_is_the_runs_also_with_the_time_of_what_it_is_a_copy_of(engine: Engine) -> None:
    old = engine.folders["output"] / "old.png"
    os.utime(old, (1_700_000_000, 1_700_000_000))
    run = engine.run()
    shutil.copy2(old, engine.folders["output"] / "copy.png")
    assert list(contents(run.unclaimed())) == ["output//copy.png"]


def test_a_folder_that_becomes_a_link_leads_nowhere(engine: Engine) -> None:
    run, deep, elsewhere = engine.run(), engine.folders["output"] / "deep", engine.home / "elsewhere"
    engine.write("output/deep/a.png")
    assert run.claim(output("a.png", "deep"), cached=False) is not None
    engine.write("elsewhere/secret.png")
    shutil.rmtree(deep)
    deep.symlink_to(elsewhere)
    assert run.claim(output("secret.png", "deep"), cached=False) is None
    assert run.unclaimed() == []
    run.leave()
    assert engine.names() == engine.before | {"elsewhere/", "elsewhere/secret.png"}


@pytest.mark.parametrize("put", [os.mkfifo, lambda path: shutil.copy("/etc/hostname", path)], ids=["pipe", "another"])
def test_what_takes_the_place_of_a_file_is_not_copied_for_it(
    engine: Engine, put: Callable[[Path], object], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where the file system gives no second names; a node may be as quick as that."""
    run, path = engine.run(), engine.folders["output"] / "a.png"
    engine.write("output/a.png", content="its own")

    def refused(source: str, target: Path, **given: object) -> None:
        path.rename(engine.folders["temp"] / "gone.png")
        put(path)
        raise PermissionError(source)

    monkeypatch.setattr(os, "link", refused)
    assert run.claim(output("a.png"), cached=False) is None


def test_what_is_still_being_written_is_not_copied_by_half(engine: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where the file system gives no second names: files are taken as soon as their node says that it has run."""
    run, path = engine.run(), engine.folders["output"] / "a.png"
    engine.write("output/a.png", content="half")

    def refused(source: str, target: Path, **given: object) -> None:
        raise PermissionError(source)

    def write_on(_seconds: float) -> None:
        path.write_text("half and half")
        os.utime(path, (0, 0))

    monkeypatch.setattr(os, "link", refused)
    monkeypatch.setattr(whole_files, "_AT_REST_S", PATIENCE_S)
    monkeypatch.setattr(time, "sleep", write_on)
    made = run.claim(output("a.png"), cached=False)
    assert made is not None
    assert made.fetch().read() == b"half and half"


@pytest.mark.parametrize("text", ["itself.png", "../output/itself.png", "itself.png/itself.png"])
def test_the_folder_itself_is_no_file_of_it(engine: Engine, text: str) -> None:
    run = engine.run()
    (engine.folders["output"] / "itself.png").symlink_to(".")
    assert run.find(text, cached=True) is None
    assert run.claim(output(text, "."), cached=True) is None


@pytest.mark.parametrize(
    "name", [b"a\nb.bin", b"\xff\xfe.bin", b"\x1b[31m.png", b" ", b"-rf", b"..bin", b"a\\b.png", b"x" * 250 + b".png"]
)
def test_a_file_may_have_any_name(engine: Engine, name: bytes) -> None:
    run, path = engine.run(), os.path.join(os.fsencode(engine.folders["output"]), name)  # noqa: PTH118
    Path(os.fsdecode(path)).write_bytes(name)
    [made] = run.unclaimed()
    assert made.fetch().read() == name
    run.leave()
    assert engine.names() == engine.before


def test_what_is_in_folders_with_times_of_long_ago_is_the_runs_all_the_same(engine: Engine) -> None:
    run = engine.run()
    engine.write("output/unpacked/deep/fox.png", "output/kept/fox.png")
    for folder in ("unpacked/deep", "unpacked", "kept", ""):
        os.utime(engine.folders["output"] / folder, (1_000_000_000,) * 2)
    assert sorted(made.place.subfolder for made in run.unclaimed()) == ["kept", "unpacked/deep"]
    run.leave()
    assert engine.names() == engine.before


@pytest.mark.parametrize("mode", [0o000, 0o300, 0o500, 0o600])
def test_folders_in_which_a_node_lets_nobody_do_anything_are_the_runs_all_the_same(engine: Engine, mode: int) -> None:
    run = engine.run()
    made = engine.folders["output"] / "made"
    engine.write("output/made/deep/fox.png")
    (made / "deep").chmod(mode)
    made.chmod(mode)
    assert [file.place.name for file in run.unclaimed()] == ["fox.png"]
    assert {path.stat().st_mode & 0o700 for path in (made, made / "deep")} == {0o700}, "else it could not be removed"
    run.leave()
    assert engine.names() == engine.before


def test_the_rights_of_folders_that_were_there_stay_as_they_are(engine: Engine) -> None:
    run = engine.run()
    kept = engine.folders["output"] / "kept"
    engine.write("output/kept/fox.png")
    kept.chmod(0o500)
    run.unclaimed()
    assert kept.stat().st_mode & 0o777 == 0o500


def test_a_folder_that_cannot_be_read_fails_no_job(
    engine: Engine, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    run = engine.run()
    engine.write("output/fox.png", "output/bad/hen.png")
    read = os.scandir

    def fails(path: str) -> object:
        if str(path).endswith("/bad"):
            raise OSError(errno.ENAMETOOLONG, os.strerror(errno.ENAMETOOLONG))
        return read(path)

    with monkeypatch.context() as patch:
        patch.setattr(os, "scandir", fails)
        assert [file.place.name for file in run.unclaimed()] == ["fox.png"]
    assert "a folder of ComfyUI's cannot be read: File name too long" in caplog.text


def test_a_file_that_nobody_may_read_can_be_delivered(engine: Engine) -> None:
    run = engine.run()
    engine.write("output/fox.png")
    (engine.folders["output"] / "fox.png").chmod(0)
    [made] = run.unclaimed()
    assert made.path is not None
    assert made.path.stat().st_mode & 0o400


def test_what_is_kept_in_folders_that_nobody_may_change_is_removed_all_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "shared").mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "shared"))
    engine = Engine(tmp_path / "ComfyUI")
    own = EngineFolders(engine.folders)
    kept = own.kept("job-1")
    (kept / "left" / "deep").mkdir(parents=True)
    (kept / "left" / "deep").chmod(0o500)
    remove, calls = shutil.rmtree, []

    def as_another_user(path: Path, **more: object) -> None:
        calls.append((kept / "left" / "deep").stat().st_mode & 0o700)
        if calls[-1] != 0o700:
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(path))
        remove(path)

    with monkeypatch.context() as patch:
        patch.setattr(shutil, "rmtree", as_another_user)
        own.forget("job-1")
    assert calls == [0o500, 0o700]
    assert not kept.exists()
    own.close()


def test_names_that_were_there_stay_when_a_file_gets_another_one(engine: Engine) -> None:
    (engine.folders["output"] / "link").symlink_to(engine.home / ".env")
    engine.remembered = Remembered({kind: engine.folders[kind] for kind in ("output", "temp")})
    before = engine.names()
    time.sleep(0.03)
    run = engine.run()
    for name in ("output/stolen.png", "output/kept/deep/stolen.png"):
        os.link(engine.home / "output/old.png", engine.home / name)
    os.link(engine.home / "temp/old.png", engine.home / "backup.png")  # by the operator, who keeps one
    os.utime(engine.folders["output"] / "link", follow_symlinks=False)
    engine.write("output/fox.png", "temp/fox.png")
    assert run.claim(output("old.png"), cached=False) is None
    assert run.claim(output("stolen.png"), cached=False) is None
    assert {file.place.name for file in run.unclaimed()} == {"fox.png"}
    run.leave()
    assert engine.names() == before | {"backup.png"}


def test_sets_to_train_with_are_made_and_leave_as_other_files(engine: Engine) -> None:
    engine.folders["datasets"] = engine.home / "datasets"  # ComfyUI makes it with the first one
    run = engine.run("job-1")
    engine.write("datasets/comfy-serverless/job-1/fox/shard_0000.pkl", "datasets/of-a-pack/shard_0000.pkl")
    assert {(file.place.folder_type, file.place.subfolder) for file in run.unclaimed()} == {
        ("datasets", "comfy-serverless/job-1/fox"),
        ("datasets", "of-a-pack"),
    }
    run.leave()
    assert {name for name in engine.names() - engine.before if not name.endswith("/")} == set()
    assert not (engine.home / "datasets/comfy-serverless/job-1").exists()
