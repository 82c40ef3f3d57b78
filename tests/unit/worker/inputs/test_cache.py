"""The input files that ComfyUI has: uploaded once, held while a job runs, deleted when there are too many."""

from __future__ import annotations

import os
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import BinaryIO

import pytest

from comfy_serverless.fetch.sources import Unusable
from comfy_serverless.worker.inputs.cache import HeldFiles, InputCache
from comfy_serverless.worker.inputs.receive import DiskFull
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
        self._work = work

    def bring(self, *contents: bytes, subfolder: str = "comfy-serverless", held: HeldFiles | None = None) -> HeldFiles:
        held = held or HeldFiles(self.cache)
        for content in contents:
            file = self._work / f"{threading.get_ident()}"
            file.write_bytes(content)
            value = held.bring(file, name_of(content, folder=""), subfolder=subfolder, timeout_s=5)
            assert value.endswith(name_of(content, folder="")) or "(1)" in value
        return held

    def run(self, *contents: bytes, subfolder: str = "comfy-serverless") -> None:
        self.bring(*contents, subfolder=subfolder).release()


def left_behind(local: LocalFolder, content: bytes, *, used_at: float = HOURS_AGO, name: str = "") -> Path:
    path = local.input_directory / (name or name_of(content))
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
    os.utime(path, (used_at, used_at))
    return path


A, B, C = b"a" * 400, b"b" * 400, b"c" * 400


class TestUploads:
    def test_content_is_uploaded_once_also_to_an_engine_elsewhere(
        self, folder: InputFolder, local: LocalFolder, work: Path
    ) -> None:
        for connector in (folder, local):
            jobs = Jobs(connector, work)
            jobs.run(A, B, A)
            jobs.run(A)
            assert connector.uploads == 2

    def test_another_start_of_an_engine_elsewhere_is_given_everything_anew(
        self, folder: InputFolder, work: Path
    ) -> None:
        jobs = Jobs(folder, work)
        jobs.run(A)
        folder.starts += 1
        jobs.run(A)
        assert folder.uploads == 2

    def test_an_engine_that_comes_back_with_another_folder_is_given_everything_anew(
        self, local: LocalFolder, work: Path, tmp_path: Path
    ) -> None:
        jobs = Jobs(local, work)
        held = jobs.bring(A)
        local.input_directory = tmp_path / "other"
        local.input_directory.mkdir()
        jobs.run(A)
        assert local.names == {name_of(A)}
        held.release()

    def test_a_file_that_somebody_has_deleted_or_changed_is_brought_again(self, local: LocalFolder, work: Path) -> None:
        jobs = Jobs(local, work)
        jobs.run(A)
        path = local.input_directory / name_of(A)
        for spoil in (path.unlink, lambda: path.write_bytes(b"half")):
            spoil()
            jobs.run(A)
            assert path.read_bytes() == A

    def test_several_jobs_at_once_upload_the_same_content_once(self, local: LocalFolder, work: Path) -> None:
        jobs = Jobs(local, work)
        with ThreadPoolExecutor(8) as pool:
            leases = list(pool.map(lambda _: jobs.bring(A), range(16)))
        assert local.uploads == 1
        for held in leases:
            held.release()

    def test_using_a_file_again_does_not_change_when_it_was_made(self, local: LocalFolder, work: Path) -> None:
        jobs = Jobs(local, work)
        jobs.run(A)
        path = local.input_directory / name_of(A)
        os.utime(path, (HOURS_AGO, HOURS_AGO))
        jobs.run(A)
        assert path.stat().st_mtime == pytest.approx(HOURS_AGO)
        assert path.stat().st_atime > HOURS_AGO + 3600

    def test_a_file_that_could_not_be_uploaded_is_not_remembered(self, local: LocalFolder, work: Path) -> None:
        jobs = Jobs(local, work)
        held = HeldFiles(jobs.cache)
        file = work / "a"
        file.write_bytes(A)
        local.failure = RuntimeError("no")
        with pytest.raises(RuntimeError):
            held.bring(file, name_of(A, folder=""), subfolder="comfy-serverless", timeout_s=5)
        held.release()
        local.failure = None
        jobs.run(A)
        assert local.names == {name_of(A)}


class TestRoom:
    def test_the_least_recently_used_is_deleted_first(self, local: LocalFolder, work: Path) -> None:
        jobs = Jobs(local, work)
        jobs.run(A)
        jobs.run(B)
        jobs.run(A)
        jobs.run(C)
        assert local.names == {name_of(A), name_of(C)}

    def test_what_a_job_holds_stays_until_it_is_released(self, local: LocalFolder, work: Path) -> None:
        jobs = Jobs(local, work)
        first = jobs.bring(A, B, C)
        second = jobs.bring(A)
        assert local.names == {name_of(A), name_of(B), name_of(C)}
        first.release()
        first.release()
        assert name_of(A) in local.names
        assert len(local.names) == 2
        jobs.run(B, C)
        assert name_of(A) in local.names
        second.release()

    def test_a_file_that_comes_after_the_jobs_end_is_not_brought(self, local: LocalFolder, work: Path) -> None:
        jobs = Jobs(local, work)
        held = jobs.bring(A)
        held.release()
        with pytest.raises(Unusable, match="the job's time was over"):
            jobs.bring(B, held=held)
        assert local.names == {name_of(A)}

    def test_a_file_larger_than_the_cache_is_there_while_its_job_runs(self, local: LocalFolder, work: Path) -> None:
        jobs = Jobs(local, work, max_bytes=100)
        held = jobs.bring(A)
        assert local.names == {name_of(A)}
        held.release()
        assert local.names == set()

    def test_a_full_disk_is_emptied_of_what_nobody_holds(self, local: LocalFolder, work: Path) -> None:
        jobs = Jobs(SmallDisk(local, room_for=2), work)
        held = jobs.bring(A)
        jobs.run(B)
        jobs.run(C)
        assert local.names == {name_of(A), name_of(C)}
        jobs.bring(C, held=held)
        with pytest.raises(DiskFull, match="No space left") as caught:
            jobs.bring(B)
        assert caught.value.transient
        held.release()


class SmallDisk(LocalFolder):
    """An input folder with room for some files."""

    def __init__(self, local: LocalFolder, *, room_for: int) -> None:
        super().__init__(local.input_directory)
        self._room_for = room_for

    def upload_file(self, file: BinaryIO | Path, name: str, *, subfolder: str = "", overwrite: bool = False) -> str:
        if len(self.names) >= self._room_for:
            raise OSError(28, "No space left on device")
        return super().upload_file(file, name, subfolder=subfolder)


class TestOtherPeoplesFiles:
    def test_what_a_former_life_has_left_is_used_and_counts(self, local: LocalFolder, work: Path) -> None:
        left_behind(local, A)
        left_behind(local, B, used_at=HOURS_AGO + 1)
        jobs = Jobs(local, work)
        jobs.run(A)
        assert local.uploads == 0
        jobs.run(C)
        assert local.names == {name_of(A), name_of(C)}

    def test_a_damaged_file_of_a_former_life_is_replaced(self, local: LocalFolder, work: Path) -> None:
        path = left_behind(local, A)
        path.write_bytes(b"x" * len(A))
        Jobs(local, work).run(A)
        assert path.read_bytes() == A

    def test_what_another_process_may_be_using_is_left_to_it(self, local: LocalFolder, work: Path) -> None:
        left_behind(local, A, used_at=time.time())
        jobs = Jobs(local, work, max_bytes=400)
        jobs.run(B)
        assert name_of(A) in local.names

    def test_unfinished_files_are_removed_once_they_are_old(self, local: LocalFolder, work: Path) -> None:
        part = ".0f8fad5b-d9cb-469f-a165-70867728950e.part"
        left_behind(local, b"x", name=f"comfy-serverless/{part}")
        left_behind(local, b"x", name=f"3d/comfy-serverless/{part}", used_at=time.time())
        Jobs(local, work).run(A)
        assert local.names == {name_of(A), f"3d/comfy-serverless/{part}"}

    def test_files_of_the_user_are_never_deleted(self, local: LocalFolder, work: Path) -> None:
        mine = ["photo.png", name_of(A, folder=""), "comfy-serverless/photo.png", "comfy-serverless/x/" + "a" * 32]
        for name in mine:
            left_behind(local, A, name=name)
        jobs = Jobs(local, work, max_bytes=1)
        jobs.run(A, B, subfolder="")
        jobs.run(A, B)
        assert local.names == set(mine)

    def test_a_file_of_the_user_that_has_our_name_keeps_its_content(self, local: LocalFolder, work: Path) -> None:
        mine = left_behind(local, b"mine", name=name_of(A, folder=""))
        jobs = Jobs(local, work, max_bytes=1)
        jobs.run(A, subfolder="")
        jobs.run(B)
        assert mine.read_bytes() == b"mine"

    def test_a_link_in_place_of_our_folder_is_not_followed(
        self, local: LocalFolder, work: Path, tmp_path: Path
    ) -> None:
        elsewhere = LocalFolder(tmp_path / "elsewhere")
        left_behind(elsewhere, B, name=name_of(B, folder=""))
        (local.input_directory / "comfy-serverless").symlink_to(elsewhere.input_directory)
        Jobs(local, work, max_bytes=1).run(A, subfolder="")
        assert name_of(B, folder="") in elsewhere.names
