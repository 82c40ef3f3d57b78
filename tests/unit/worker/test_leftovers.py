"""When the kept files of a job may be removed."""

from __future__ import annotations

from comfy_serverless.worker.leftovers import FilesInUse, Leftovers

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
