"""A queue of jobs, and a dead-letter queue for messages that no worker could process."""

from __future__ import annotations

from aws_cdk import Duration
from aws_cdk import aws_sqs as sqs
from constructs import Construct

from infra.justify import QUEUE, justify

#: As in the SAM stack (table/jobs.py: QUEUE_RETENTION_S): a job that no worker took in this time has expired.
RETENTION = Duration.days(4)
#: As there, for jobs of batches, which may wait behind many others: the longest that SQS keeps a message.
BATCH_RETENTION = Duration.days(14)
#: AWS's advice for a queue in front of a function: six times its timeout. SQS allows 43,200 s.
VISIBILITY_TIMEOUTS = 6
#: The worker's MAX_RECEIVES: a failure at the last delivery is recorded.
MAX_RECEIVES = 5


def job_queue(
    scope: Construct, name: str, *, queue_name: str, visibility: Duration, retention: Duration = RETENTION
) -> tuple[sqs.Queue, sqs.Queue]:
    """A queue and its dead-letter queue: encrypted, TLS only, with the retention of the SAM stack's queues."""
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
    """A queue that keeps messages that no worker could process, for 14 days."""
    queue = sqs.Queue(
        scope,
        name,
        encryption=sqs.QueueEncryption.SQS_MANAGED,
        enforce_ssl=True,
        retention_period=Duration.days(14),
    )
    justify(queue, QUEUE)
    return queue
