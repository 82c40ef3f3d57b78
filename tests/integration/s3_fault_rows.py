"""What S3 can do to a job, and how the job ends: the rows of the fault matrix that `test_s3_faults` proves."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Row:
    """One row of the fault matrix.

    Attributes:
        fault: what goes wrong.
        outcome: how the job ends, with its code where it fails.
        bound: how long that takes at most.
        tests: the tests that prove it, by name.
    """

    fault: str
    outcome: str
    bound: str
    tests: tuple[str, ...]


#: Five attempts, pauses of 1, 2, 4 and 8 s at most between them.
_RETRIES = "15 s of pauses between five attempts"
_SILENCE = "5 attempts of 20 s of silence each, or the time that is left to the invocation"

ROWS = (
    Row(
        "S3 answers 500, now and then",
        "succeeded",
        _RETRIES,
        (
            "test_an_upload_survives_a_fault",
            "test_the_end_of_an_upload_in_parts_survives_a_fault",
            "test_the_result_survives_a_fault",
        ),
    ),
    Row(
        "S3 answers 500, always",
        "delivery_failed, retryable; the other outputs are stored",
        _RETRIES,
        ("test_an_upload_that_never_succeeds_is_told_and_costs_no_other_output",),
    ),
    Row(
        "S3 throttles (503 SlowDown)",
        "succeeded",
        _RETRIES,
        ("test_an_upload_survives_a_fault", "test_the_result_survives_a_fault"),
    ),
    Row(
        "a put is slower than the time that is left",
        "delivery_failed, retryable, while there is time to report it",
        "the invocation's time, less 1 s",
        ("test_an_upload_that_outlasts_the_invocation_is_told_in_time",),
    ),
    Row(
        "S3 accepts and never answers",
        "delivery_failed, retryable",
        _SILENCE,
        ("test_an_s3_that_never_answers_is_given_up",),
    ),
    Row(
        "an answer comes in drops",
        "answered from the stored result",
        "as long as the drops take; 20 s of silence end it",
        ("test_a_result_that_comes_in_drops_is_waited_for",),
    ),
    Row(
        "the connection is reset in the middle of an upload",
        "succeeded",
        _RETRIES,
        ("test_an_upload_survives_a_fault", "test_the_end_of_an_upload_in_parts_survives_a_fault"),
    ),
    Row(
        "S3 stores, and its answer is lost",
        "succeeded: what stands there is read and compared",
        _RETRIES,
        ("test_an_upload_survives_a_fault", "test_the_end_of_an_upload_in_parts_survives_a_fault"),
    ),
    Row(
        "bytes change on their way (BadDigest)",
        "delivery_failed, retryable; nothing wrong is stored",
        "at once",
        ("test_bytes_that_change_on_their_way_are_never_stored",),
    ),
    Row(
        "S3 confirms another checksum than was sent",
        "delivery_failed, retryable; sent again, what stands there is read and compared",
        "at once",
        ("test_a_confirmation_of_something_else_is_no_confirmation",),
    ),
    Row(
        "putting an output is denied",
        "delivery_failed, naming s3:PutObject; not run again",
        "at once",
        ("test_a_denied_put_is_told_with_the_permission_that_is_missing",),
    ),
    Row(
        "putting the result is denied",
        "delivery_failed: without its result a job has not succeeded; sent again, as its outcome stands nowhere",
        "at once",
        ("test_a_denied_result_is_told",),
    ),
    Row(
        "reading the result is denied (S3's answer without s3:ListBucket)",
        "the job runs if one may write there; a result that stands already is never replaced: delivery_failed",
        "at once",
        ("test_a_result_that_may_not_be_read_is_never_replaced",),
    ),
    Row(
        "the bucket does not exist",
        "invalid_request, before any work",
        "at once",
        ("test_a_bucket_that_does_not_exist_is_told_before_any_work",),
    ),
    Row(
        "the bucket goes away during the job",
        "delivery_failed, not run again; told in OUTPUT_BUCKET",
        "at once",
        ("test_a_bucket_that_goes_away_during_a_job_is_told",),
    ),
    Row(
        "our clock is wrong (RequestTimeTooSkewed)",
        "succeeded: signed again with S3's time, as are the links",
        "one more request",
        ("test_a_wrong_clock_costs_one_more_request",),
    ),
    Row(
        "the result exists already: our own",
        "answered from it; nothing runs",
        "at once",
        ("test_a_job_that_has_ended_is_answered_from_its_result",),
    ),
    Row(
        "the result exists already: another's, or no result at all",
        "invalid_request; nothing runs, nothing is replaced",
        "at once",
        ("test_what_is_not_the_jobs_own_result_is_refused_and_stays",),
    ),
    Row(
        "whether the result exists cannot be learned",
        "missing_asset, retryable; nothing runs",
        _RETRIES,
        ("test_a_job_whose_result_cannot_be_read_is_not_run_again",),
    ),
    Row(
        "two workers run the same job at once",
        "succeeded, with one result that both answer, and every file it names",
        "the longer of the two runs",
        ("test_two_workers_with_the_same_job_answer_the_same_result",),
    ),
)
