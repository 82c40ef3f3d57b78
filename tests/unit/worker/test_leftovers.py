"""What may be removed once a job has been delivered, and what may not."""

from __future__ import annotations

from pathlib import Path

import pytest

from comfy_serverless.connector.folders import remove_files, remove_tree
from comfy_serverless.worker.leftovers import FilesInUse, Leftovers

A, B = Path("/engine/output/a.png"), Path("/engine/temp/b.png")


JOB = "comfy-serverless/job-1"


def begun(in_use: FilesInUse, folder: str) -> Leftovers:
    leftovers = Leftovers(in_use, folder=folder)
    leftovers.begin()
    return leftovers


def test_a_job_that_never_ran_has_left_nothing() -> None:
    in_use = FilesInUse()
    assert Leftovers(in_use, folder=JOB).take() == ([], None)
    assert begun(in_use, JOB).take() == ([], JOB)


def test_who_was_answered_from_the_result_of_another_removes_what_that_one_has_left() -> None:
    in_use = FilesInUse()
    ran, answered = begun(in_use, JOB), Leftovers(in_use, folder=JOB)
    ran.see(A, "output")
    assert ran.take() == ([], None)
    assert answered.take() == ([A], JOB)


def test_what_was_delivered_may_go_once_with_the_folder_of_the_job() -> None:
    leftovers = begun(FilesInUse(), JOB)
    leftovers.see(A, "output")
    leftovers.see(B, "temp")
    assert leftovers.take() == ([A, B], JOB)
    assert leftovers.take() == ([], None)


def test_nothing_of_a_job_goes_while_something_of_it_could_not_be_delivered() -> None:
    leftovers = begun(FilesInUse(), JOB)
    leftovers.see(A, "output")
    leftovers.see(B, "output")
    leftovers.settle(is_complete=False)
    assert leftovers.take() == ([], None)


def test_once_another_try_could_deliver_everything_what_all_of_them_made_goes() -> None:
    in_use = FilesInUse()
    first = begun(in_use, JOB)
    first.see(B, "temp")
    first.settle(is_complete=False)
    assert first.take() == ([], None)
    second = begun(in_use, JOB)
    second.see(A, "output")
    second.settle(is_complete=True)
    assert second.take() == ([B, A], JOB)


def test_it_does_not_matter_which_try_is_released_first() -> None:
    in_use = FilesInUse()
    first, second = begun(in_use, JOB), begun(in_use, JOB)
    first.see(A, "output")
    first.settle(is_complete=False)
    second.see(A, "output")
    second.settle(is_complete=True)
    assert second.take() == ([], None)
    assert first.take() == ([A], JOB)


def test_inputs_and_what_is_no_file_here_are_not_touched() -> None:
    leftovers = begun(FilesInUse(), JOB)
    leftovers.see(A, "input")
    leftovers.see(None, "output")
    assert leftovers.take() == ([], JOB)


def test_a_file_that_two_jobs_deliver_goes_with_the_last_of_them() -> None:
    in_use = FilesInUse()
    first, second = begun(in_use, JOB), begun(in_use, "comfy-serverless/job-2")
    first.see(A, "output")
    second.see(A, "output")
    assert first.take() == ([], JOB)
    assert second.take() == ([A], "comfy-serverless/job-2")


def test_the_folder_of_two_deliveries_of_a_job_goes_with_the_last_of_them() -> None:
    in_use = FilesInUse()
    first, second = begun(in_use, JOB), begun(in_use, JOB)
    assert first.take() == ([], None)
    assert second.take() == ([], JOB)


def test_a_file_told_of_twice_by_one_job_goes_once() -> None:
    leftovers = begun(FilesInUse(), JOB)
    leftovers.see(A, "output")
    leftovers.see(A, "output")
    assert leftovers.take() == ([A], JOB)


def test_nothing_outside_of_the_folders_is_removed(tmp_path: Path) -> None:
    inside, outside = tmp_path / "output", tmp_path / "home"
    for folder in (inside, outside):
        folder.mkdir()
        (folder / "a.png").write_bytes(b"a")
    (inside / "link.png").symlink_to(outside / "a.png")
    remove_files(
        [inside / "a.png", outside / "a.png", inside / "link.png", inside / "gone.png", inside / ".." / "home/a.png"],
        folders=[inside],
    )
    assert sorted(path.name for path in inside.iterdir()) == ["link.png"]
    assert (outside / "a.png").exists()


def test_a_folder_is_removed_with_all_that_is_in_it_and_nothing_beside_it(tmp_path: Path) -> None:
    own, other = tmp_path / "jobs" / "one" / "deep", tmp_path / "jobs" / "two"
    for folder in (own, other):
        folder.mkdir(parents=True)
        (folder / "a.png").write_bytes(b"a")
    remove_tree("jobs/one", folders=[tmp_path])
    assert [path.name for path in (tmp_path / "jobs").iterdir()] == ["two"]
    remove_tree("jobs/two", folders=[tmp_path])
    assert (tmp_path / "jobs").exists(), "another job may be about to write there"
    remove_tree("jobs/three", folders=[tmp_path, tmp_path / "missing"])


def test_a_link_in_place_of_the_folder_is_not_followed(tmp_path: Path) -> None:
    precious = tmp_path / "precious"
    precious.mkdir()
    (precious / "a.png").write_bytes(b"a")
    (tmp_path / "output" / "jobs").mkdir(parents=True)
    (tmp_path / "output" / "jobs" / "one").symlink_to(precious)
    remove_tree("jobs/one", folders=[tmp_path / "output"])
    assert (precious / "a.png").exists()


def test_what_cannot_be_removed_is_logged(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise PermissionError("no")

    (tmp_path / "a.png").write_bytes(b"a")
    monkeypatch.setattr(Path, "unlink", refuse)
    remove_files([tmp_path / "a.png"], folders=[tmp_path])
    assert "could not be removed" in caplog.text
