"""The input files that jobs have brought: kept once, shown while a job runs, deleted when there are too many."""

from __future__ import annotations

import math
import os
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from comfy_serverless.connector.folders import link_or_copy
from comfy_serverless.connector.places import beside
from comfy_serverless.errors import AssetUnavailable
from comfy_serverless.fetch.sources import Unusable
from comfy_serverless.worker.inputs import cache as cache_module
from comfy_serverless.worker.inputs.cache import HeldFiles, InputCache
from comfy_serverless.worker.inputs.receive import DiskFull
from tests.patience import PATIENCE_S
from tests.unit.input_world import InputFolder, LocalFolder, name_of

HOURS_AGO = time.time() - 7200


@pytest.fixture
def local(tmp_path: Path) -> LocalFolder:
    return LocalFolder(tmp_path / "input")


@pytest.fixture
def work(tmp_path: Path) -> Path:
    (tmp_path / "work").mkdir()
    return tmp_path / "work"


class Jobs:
    """Jobs that bring contents, each as a separate file."""

    def __init__(self, connector: InputFolder, work: Path, *, max_bytes: int = 1000) -> None:
        self.cache = InputCache(connector, max_bytes=max_bytes)
        self.values: list[str] = []
        self._work = work

    def bring(self, *contents: bytes, subfolder: str = "comfy-serverless", held: HeldFiles | None = None) -> HeldFiles:
        held = held or HeldFiles(self.cache)
        for content in contents:
            file = self._work / f"{threading.get_ident()}"
            file.write_bytes(content)
            self.values.append(held.bring(file, name_of(content, folder=""), subfolder=subfolder, timeout_s=PATIENCE_S))
            file.unlink()
        return held

    def run(self, *contents: bytes, subfolder: str = "comfy-serverless") -> None:
        held = self.bring(*contents, subfolder=subfolder)
        held.show(math.inf)
        held.release()


def kept(local: LocalFolder) -> Path:
    return beside(local.input_directory) / "inputs"


def kept_names(local: LocalFolder) -> set[str]:
    return {path.name for path in kept(local).iterdir()}


def bare(*contents: bytes) -> set[str]:
    return {name_of(content, folder="") for content in contents}


def left_behind(local: LocalFolder, content: bytes, *, used_at: float = HOURS_AGO, name: str = "") -> Path:
    """A file that a former life of the process has kept."""
    kept(local).mkdir(exist_ok=True)
    path = kept(local) / (name or name_of(content, folder=""))
    path.write_bytes(content)
    os.utime(path, (used_at, used_at))
    return path


def of_the_user(local: LocalFolder, name: str, content: bytes) -> Path:
    path = local.input_directory / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
    return path


A, B, C = b"a" * 400, b"b" * 400, b"c" * 400


class TestSight:
    """What ComfyUI sees."""

    def test_a_file_is_seen_from_show_to_release_and_by_nobody_else(self, local: LocalFolder, work: Path) -> None:
        jobs = Jobs(local, work)
        held = jobs.bring(A)
        assert local.names == set(), "another owner's job may be running"
        held.show(math.inf)
        assert local.names == {name_of(A)} == set(jobs.values)
        assert (local.input_directory / name_of(A)).read_bytes() == A
        held.release()
        assert local.names == set()
        assert kept_names(local) == bare(A)

    def test_a_file_of_two_jobs_is_seen_until_the_last_of_them_ends(self, local: LocalFolder, work: Path) -> None:
        jobs = Jobs(local, work)
        first, second = jobs.bring(A, B), jobs.bring(A)
        first.show(math.inf)
        second.show(math.inf)
        first.release()
        assert local.names == {name_of(A)}
        second.release()
        second.release()
        assert local.names == set()

    def test_a_file_is_where_its_loader_looks(self, local: LocalFolder, work: Path) -> None:
        jobs = Jobs(local, work)
        held = jobs.bring(A, subfolder="")
        jobs.bring(A, subfolder="3d/comfy-serverless", held=held)
        held.show(math.inf)
        assert local.names == {name_of(A, folder=""), name_of(A, folder="3d/comfy-serverless/")} == set(jobs.values)
        assert len(kept_names(local)) == 1, "equal content is one file"
        held.release()

    def test_it_costs_no_copy_and_nobody_may_write_to_it(self, local: LocalFolder, work: Path) -> None:
        jobs = Jobs(local, work)
        held = jobs.bring(A)
        held.show(math.inf)
        shown = local.input_directory / name_of(A)
        assert shown.samefile(kept(local) / name_of(A, folder=""))
        assert shown.stat().st_mode & 0o222 == 0
        held.release()

    def test_a_folder_that_cannot_be_written_is_told(self, local: LocalFolder, work: Path) -> None:
        held = Jobs(local, work).bring(A)
        (local.input_directory / "comfy-serverless").write_text("a file in the way")
        with pytest.raises(AssetUnavailable, match="cannot be put into ComfyUI's input folder"):
            held.show(math.inf)
        held.release()

    def test_what_a_former_life_has_shown_is_removed_before_the_next_job_is_shown(
        self, local: LocalFolder, work: Path
    ) -> None:
        dead = Jobs(local, work).bring(A, subfolder="")
        dead.show(math.inf)
        mine = of_the_user(local, name_of(B, folder=""), b"a file of the user")
        held = Jobs(local, work).bring(C)
        held.show(math.inf)
        assert local.names == {name_of(C), mine.name}
        held.release()


class TestKeeping:
    def test_an_engine_elsewhere_is_given_a_content_once(self, folder: InputFolder, work: Path) -> None:
        jobs = Jobs(folder, work)
        jobs.run(A, B, A)
        jobs.run(A)
        assert folder.uploads == 2
        folder.starts += 1
        jobs.run(A)
        assert folder.uploads == 3, "another start of it has nothing"

    def test_an_engine_that_comes_back_with_another_folder_is_given_everything_anew(
        self, local: LocalFolder, work: Path, tmp_path: Path
    ) -> None:
        jobs = Jobs(local, work)
        held = jobs.bring(A)
        local.input_directory = tmp_path / "other"
        local.input_directory.mkdir()
        second = jobs.bring(A)
        second.show(math.inf)
        assert local.names == {name_of(A)}
        second.release()
        held.release()

    def test_a_file_that_somebody_has_deleted_or_changed_is_brought_again(self, local: LocalFolder, work: Path) -> None:
        jobs = Jobs(local, work)
        jobs.run(A)
        path = kept(local) / name_of(A, folder="")
        spoilings: list[Callable[[], None]] = [path.unlink, lambda: rewrite(path, b"half"), lambda: rewrite(path, B)]
        for spoil in spoilings:
            spoil()
            jobs.run(A)
            assert path.read_bytes() == A

    def test_several_jobs_at_once_keep_the_same_content_once(
        self, local: LocalFolder, work: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        taken: list[Path] = []
        take = InputCache._take

        def noted(cache: InputCache, entry: Any, file: Path) -> None:
            taken.append(file)
            take(cache, entry, file)

        monkeypatch.setattr(InputCache, "_take", noted)
        jobs = Jobs(local, work)
        with ThreadPoolExecutor(8) as pool:
            held = list(pool.map(lambda _: jobs.bring(A), range(16)))
        assert len(taken) == 1
        for files in held:
            files.release()

    def test_using_a_file_again_does_not_change_when_it_was_made(self, local: LocalFolder, work: Path) -> None:
        path = left_behind(local, A)
        Jobs(local, work).run(A)
        assert path.stat().st_mtime == pytest.approx(HOURS_AGO)
        assert path.stat().st_atime > HOURS_AGO + 3600

    def test_a_file_that_could_not_be_uploaded_is_not_remembered(self, folder: InputFolder, work: Path) -> None:
        jobs = Jobs(folder, work)
        folder.upload_failure = RuntimeError("no")
        held = HeldFiles(jobs.cache)
        with pytest.raises(RuntimeError):
            jobs.bring(A, held=held)
        held.release()
        folder.upload_failure = None
        jobs.run(A)
        assert set(folder.files) == {name_of(A)}


def rewrite(path: Path, content: bytes) -> None:
    path.chmod(0o644)
    path.write_bytes(content)


class TestRoom:
    def test_the_least_recently_used_is_deleted_first(self, local: LocalFolder, work: Path) -> None:
        jobs = Jobs(local, work)
        jobs.run(A)
        jobs.run(B)
        jobs.run(A)
        jobs.run(C)
        assert kept_names(local) == bare(A, C)

    def test_what_a_job_holds_stays_until_it_is_released(self, local: LocalFolder, work: Path) -> None:
        jobs = Jobs(local, work)
        first = jobs.bring(A, B, C)
        second = jobs.bring(A)
        assert kept_names(local) == bare(A, B, C)
        first.release()
        first.release()
        assert bare(A) < kept_names(local)
        assert len(kept_names(local)) == 2
        jobs.run(B, C)
        assert bare(A) < kept_names(local)
        second.release()

    def test_a_file_that_comes_after_the_jobs_end_is_not_kept(self, local: LocalFolder, work: Path) -> None:
        jobs = Jobs(local, work)
        held = jobs.bring(A)
        held.release()
        with pytest.raises(Unusable, match="the job's time was over"):
            jobs.bring(B, held=held)
        assert kept_names(local) == bare(A)

    def test_a_file_larger_than_the_cache_is_there_while_its_job_runs(self, local: LocalFolder, work: Path) -> None:
        jobs = Jobs(local, work, max_bytes=100)
        held = jobs.bring(A)
        assert kept_names(local) == bare(A)
        held.release()
        assert kept_names(local) == set()

    def test_a_full_disk_is_emptied_of_what_nobody_holds(
        self, local: LocalFolder, work: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def with_room_for_two(source: Path, target: Path) -> None:
            if target.parent == kept(local) and len(kept_names(local)) >= 2:
                raise OSError(28, "No space left on device")
            link_or_copy(source, target)

        monkeypatch.setattr(cache_module, "link_or_copy", with_room_for_two)
        jobs = Jobs(local, work)
        held = jobs.bring(A)
        jobs.run(B)
        jobs.run(C)
        assert kept_names(local) == bare(A, C)
        jobs.bring(C, held=held)
        with pytest.raises(DiskFull, match="No space left") as caught:
            jobs.bring(B)
        assert caught.value.transient
        held.release()


class TestOtherPeoplesFiles:
    def test_what_a_former_life_has_left_is_used_and_counts(self, local: LocalFolder, work: Path) -> None:
        path = left_behind(local, A)
        left_behind(local, B, used_at=HOURS_AGO + 1)
        inode = path.stat().st_ino
        jobs = Jobs(local, work)
        jobs.run(A)
        assert path.stat().st_ino == inode
        jobs.run(C)
        assert kept_names(local) == bare(A, C)

    def test_a_damaged_file_of_a_former_life_is_replaced(self, local: LocalFolder, work: Path) -> None:
        path = left_behind(local, A)
        path.write_bytes(b"x" * len(A))
        Jobs(local, work).run(A)
        assert path.read_bytes() == A

    def test_what_another_process_may_be_using_is_left_to_it(self, local: LocalFolder, work: Path) -> None:
        left_behind(local, A, used_at=time.time())
        Jobs(local, work, max_bytes=400).run(B)
        assert bare(A) < kept_names(local) | {""}

    def test_unfinished_files_are_removed_once_they_are_old(self, local: LocalFolder, work: Path) -> None:
        old, young = (f".0f8fad5b-d9cb-469f-a165-70867728950{end}.part" for end in "ef")
        left_behind(local, b"x", name=old)
        left_behind(local, b"x", name=young, used_at=time.time())
        Jobs(local, work).run(A)
        assert kept_names(local) == {*bare(A), young}

    def test_files_of_the_user_are_never_deleted(self, local: LocalFolder, work: Path) -> None:
        mine = ["photo.png", name_of(A, folder=""), "comfy-serverless/photo.png", "comfy-serverless/x/" + "a" * 32]
        for name in mine:
            of_the_user(local, name, A)
        jobs = Jobs(local, work, max_bytes=1)
        jobs.run(A, B, subfolder="")
        jobs.run(A, B)
        assert local.names == set(mine)

    def test_a_file_of_the_user_that_has_our_name_keeps_it_and_its_content(
        self, local: LocalFolder, work: Path
    ) -> None:
        mine = of_the_user(local, name_of(A, folder=""), b"mine")
        jobs = Jobs(local, work)
        held = jobs.bring(A, subfolder="")
        held.show(math.inf)
        assert (local.input_directory / jobs.values[0]).read_bytes() == A
        held.release()
        assert mine.read_bytes() == b"mine"
        assert local.names == {mine.name}

    def test_a_link_in_place_of_our_folder_is_not_followed(
        self, local: LocalFolder, work: Path, tmp_path: Path
    ) -> None:
        elsewhere = tmp_path / "elsewhere"
        elsewhere.mkdir()
        (local.input_directory / "comfy-serverless").symlink_to(elsewhere)
        held = Jobs(local, work).bring(A)
        with pytest.raises(AssetUnavailable, match="is a link"):
            held.show(math.inf)
        held.release()
        assert list(elsewhere.iterdir()) == []
