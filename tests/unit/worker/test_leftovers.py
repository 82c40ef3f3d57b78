"""When the kept files of a job may be removed."""

from __future__ import annotations

import shutil
import tempfile

import pytest

from comfy_serverless.worker.leftovers import FilesInUse, Leftovers, room_for_kept

JOB = "job-1"


def begun(in_use: FilesInUse, job_id: str = JOB) -> Leftovers:
    leftovers = Leftovers(in_use, job_id=job_id)
    leftovers.begin()
    return leftovers


def test_a_job_that_never_ran_has_left_nothing() -> None:
    in_use = FilesInUse()
    assert not Leftovers(in_use, job_id=JOB).take()
    assert begun(in_use).take()
    assert not in_use.users


def test_who_was_answered_from_the_result_of_another_removes_what_that_one_has_left() -> None:
    in_use = FilesInUse()
    ran, answered = begun(in_use), Leftovers(in_use, job_id=JOB)
    assert not ran.take()
    assert answered.take()


def test_what_was_delivered_may_go_once() -> None:
    leftovers = begun(FilesInUse())
    assert leftovers.take()
    assert not leftovers.take()


def test_nothing_of_a_job_goes_while_something_of_it_could_not_be_delivered() -> None:
    in_use = FilesInUse()
    first = begun(in_use)
    first.settle(is_complete=False)
    assert not first.take()
    second = begun(in_use)
    second.settle(is_complete=True)
    assert second.take(), "what all tries have made goes"


def test_it_does_not_matter_which_try_is_released_first() -> None:
    in_use = FilesInUse()
    first, second = begun(in_use), begun(in_use)
    first.settle(is_complete=False)
    second.settle(is_complete=True)
    assert not second.take()
    assert first.take()


def test_jobs_do_not_wait_for_each_other() -> None:
    in_use = FilesInUse()
    first, second = begun(in_use), begun(in_use, "job-2")
    assert first.take()
    assert second.take()


def kept(in_use: FilesInUse, job_id: str, size_bytes: int) -> Leftovers:
    """A job whose files stay."""
    leftovers = begun(in_use, job_id)
    leftovers.settle(is_complete=False)
    assert not leftovers.take()
    in_use.keep(job_id, size_bytes)
    return leftovers


def test_the_oldest_go_until_the_rest_has_room() -> None:
    in_use = FilesInUse(limit_bytes=100)
    for number in range(4):
        kept(in_use, f"job-{number}", 40)
    assert in_use.beyond() == ["job-0", "job-1"]
    assert [in_use.let_go(job_id) for job_id in in_use.beyond()] == [40, 40]
    assert in_use.beyond() == []
    assert set(in_use.kept) == set(in_use.is_complete) == set(in_use.users) == {"job-2", "job-3"}


def test_a_job_that_is_tried_again_is_in_hand_and_then_the_newest() -> None:
    in_use = FilesInUse(limit_bytes=100)
    kept(in_use, "job-0", 80)
    kept(in_use, "job-1", 80)
    again = begun(in_use, "job-0")
    assert in_use.beyond() == ["job-1"]
    assert in_use.let_go("job-0") is None
    again.settle(is_complete=False)
    assert not again.take()
    in_use.keep("job-0", 90)
    assert in_use.beyond() == ["job-1"]


def test_one_job_that_takes_more_than_there_is_goes_too() -> None:
    in_use = FilesInUse(limit_bytes=100)
    kept(in_use, JOB, 101)
    assert in_use.beyond() == [JOB]


def test_a_job_of_which_no_file_is_kept_is_forgotten() -> None:
    in_use = FilesInUse(limit_bytes=100)
    kept(in_use, JOB, 0)
    assert not in_use.kept
    assert not in_use.users
    assert not in_use.is_complete


def test_what_is_delivered_at_last_counts_no_longer() -> None:
    in_use = FilesInUse(limit_bytes=100)
    kept(in_use, JOB, 99)
    second = begun(in_use)
    second.settle(is_complete=True)
    assert second.take()
    assert in_use.kept == {}


def test_by_default_an_eighth_of_the_disk_may_be_kept() -> None:
    disk = shutil.disk_usage(tempfile.gettempdir())
    assert room_for_kept(None) == pytest.approx(disk.total / 8, rel=0.1)
    assert room_for_kept(7) == 7
