"""A queue of jobs, and beside it where messages are put aside that nobody could take."""

from __future__ import annotations

from aws_cdk import Duration
from aws_cdk import aws_sqs as sqs
from constructs import Construct

from infra.justify import QUEUE, justify

#: As in the SAM stack (table/jobs.py: QUEUE_RETENTION_S): a job that nobody took in this time has expired.
RETENTION = Duration.days(4)
#: As there, for jobs of batches, of which many may be before one: the longest that SQS keeps anything.
BATCH_RETENTION = Duration.days(14)
#: The worker's MAX_RECEIVES: what fails at the last delivery is written down.
MAX_RECEIVES = 5


def job_queue(
    scope: Construct, name: str, *, queue_name: str, visibility: Duration, retention: Duration = RETENTION
) -> tuple[sqs.Queue, sqs.Queue]:
    """A queue and its dead letters: encrypted, TLS only, as patient as those of the SAM stack."""
    dead_letters = dead_letter_queue(scope, f"{name}DeadLetters")
    queue = sqs.Queue(
        scope,
        name,
        queue_name=queue_name,
        encryption=sqs.QueueEncryption.SQS_MANAGED,
        enforce_ssl=True,
        retention_period=retention,
        visibility_timeout=visibility,
        dead_letter_queue=sqs.DeadLetterQueue(queue=dead_letters, max_receive_count=MAX_RECEIVES),
    )
    justify(queue, QUEUE)
    return queue, dead_letters


def dead_letter_queue(scope: Construct, name: str) -> sqs.Queue:
    """Where what nobody could take is put aside, for 14 days."""
    queue = sqs.Queue(
        scope,
        name,
        encryption=sqs.QueueEncryption.SQS_MANAGED,
        enforce_ssl=True,
        retention_period=Duration.days(14),
    )
    justify(queue, QUEUE)
    return queue
