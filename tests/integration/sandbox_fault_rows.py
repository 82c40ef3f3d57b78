"""What the place a worker lives in can do to it: rows of the fault matrix that `test_freeze` and
`test_shutdown` prove."""

from __future__ import annotations

from tests.integration.s3_fault_rows import Row

ROWS = (
    Row(
        "the sandbox freezes and thaws, with nothing running",
        "the next job succeeds, with the same engine",
        "at once",
        ("test_a_sandbox_that_was_frozen_works_at_once",),
    ),
    Row(
        "the sandbox freezes and thaws in the middle of a job",
        "succeeded, with the same engine",
        "the job's own time after the thaw",
        ("test_a_job_that_was_frozen_in_the_middle_ends_as_if_nothing_had_happened",),
    ),
    Row(
        "the deadline passes during a freeze",
        "deadline_exceeded, with the same engine",
        "5 s after the thaw",
        ("test_a_deadline_that_passed_during_the_freeze_is_told_at_once",),
    ),
    Row(
        "a freeze in the middle of a job is longer than STALL_S",
        "succeeded: the engine could not have said anything",
        "the job's own time after the thaw",
        ("test_a_freeze_longer_than_an_engine_may_be_silent_is_not_held_against_it",),
    ),
)

SHUTDOWN_ROWS = (
    Row(
        "SIGTERM with nothing running",
        "the process ends with exit code 0, and the engine with it",
        "2 s",
        ("test_sigterm_ends_an_idle_worker_and_its_engine",),
    ),
    Row(
        "SIGTERM in the middle of a job that can finish",
        "succeeded, then the end; what comes meanwhile is worker_stopped",
        "the job's own time, at most 12.5 s",
        ("test_sigterm_lets_a_job_finish_and_begins_no_other",),
    ),
    Row(
        "SIGTERM in the middle of a job that cannot finish",
        "interrupted: worker_stopped, retryable, what it has made delivered",
        "25 s",
        ("test_sigterm_interrupts_a_job_that_cannot_finish",),
    ),
    Row(
        "SIGTERM while the engine hangs",
        "the engine is killed; worker_stopped or engine_crashed, retryable",
        "25 s",
        ("test_sigterm_while_the_engine_hangs_ends_both_in_time",),
    ),
)
