"""What `make bench-api` makes of the calls that the local AWS has had."""

from __future__ import annotations

import pytest

from benchmarks.api_way import API, WORKER, Hop, Way, hops_of, in_a_row, inside_ms
from local.aws.server import AwsCall


def call(role: str, operation: str, begun: float, ended: float) -> AwsCall:
    return AwsCall(role=role, operation=operation, begun=begun, ended=ended)


JOB = (
    call(API, "s3:PUT object", 1, 4),
    call(API, "dynamodb:TransactWriteItems", 2, 3),
    call(API, "sqs:SendMessage", 5, 6),
    call(WORKER, "sqs:ReceiveMessage", 0, 7),
    call(API, "dynamodb:UpdateItem", 7, 9),
    call(WORKER, "dynamodb:UpdateItem", 8, 11),
    call(WORKER, "s3:GET object", 9, 10),
    call(API, "dynamodb:Query", 12, 13),
    call(WORKER, "s3:PUT object", 20, 21),
    call(WORKER, "s3:PUT object", 22, 24),
    call(WORKER, "dynamodb:BatchWriteItem", 22, 25),
    call(WORKER, "dynamodb:UpdateItem", 26, 28),
    call(WORKER, "sqs:DeleteMessage", 29, 30),
)


def test_calls_at_the_same_time_count_once_in_a_row() -> None:
    assert [len(in_a_row(JOB[:2])), len(in_a_row(JOB[:3])), len(in_a_row(JOB[8:12]))] == [1, 2, 3]


def test_the_hops_of_a_job_follow_each_other_from_the_request_to_the_end_that_is_heard() -> None:
    hops, legs = hops_of(Way(asked=0, answered=10, heard=31), JOB)
    *way, beside = hops
    assert [(hop.begun, hop.ended) for hop in way] == [
        *((0, 1), (1, 6), (6, 8), (8, 11), (11, 20), (20, 21), (21, 28), (28, 31))
    ]
    assert (beside.begun, beside.ended) == (6, 10)
    assert [len(calls) for calls in legs.values()] == [3, 2, 4]


def test_the_calls_of_no_whole_job_are_refused() -> None:
    with pytest.raises((LookupError, StopIteration)):
        hops_of(Way(0, 1, 2), JOB[:5])


def test_time_in_the_local_aws_counts_once_and_only_within_the_hop() -> None:
    hop = Hop("", "", "", 0, 3.5)
    assert inside_ms(hop, JOB[:2]) == pytest.approx(2500)
