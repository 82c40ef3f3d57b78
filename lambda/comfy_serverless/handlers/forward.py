"""The Lambda function between a queue of batch jobs and a SageMaker endpoint: it lets through what that can run.

An endpoint has one queue, first come, first served: a batch in it would keep everybody waiting. So the batch waits
before it, and only so many of its jobs wait in the endpoint that no instance runs dry. How many those are, the jobs
table tells at once; the endpoint's own figure is a minute or two old, in which it may have run dry. Jobs of a batch
that is paused or canceled do not get there at all: no instance starts for them.

Started each minute, one at a time (reserved concurrency of 1), it takes messages itself: a queue that invokes a
function would count each message that has to wait as delivered, and put it aside in the end.
"""

from __future__ import annotations

import functools
import json
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from botocore.exceptions import BotoCoreError, ClientError

from comfy_serverless.aws.dynamodb import Table
from comfy_serverless.aws.dynamodb import create_client as create_table_client
from comfy_serverless.aws.sqs import create_client
from comfy_serverless.batches.holding import hold_back
from comfy_serverless.batches.store import BatchStore
from comfy_serverless.handlers.events import queued_job_of
from comfy_serverless.observability import log
from comfy_serverless.settings import InvalidSetting, Settings
from comfy_serverless.table.dispatch import REQUEST_TTL_S, Endpoint
from comfy_serverless.table.jobs import JobStore

if TYPE_CHECKING:
    from mypy_boto3_sqs import SQSClient
    from mypy_boto3_sqs.type_defs import MessageTypeDef

    from comfy_serverless.jobs.sources import QueuedJob
    from comfy_serverless.table.job_state import JobState

#: Between two looks while there is no room, in seconds.
PAUSE_S = 2
#: Kept back of an invocation, in seconds.
RESERVE_S = 5.0
#: SQS's own limit for one call.
MAX_AT_ONCE = 10
#: How long a call waits for messages, in seconds. Without waiting, it may answer none although there are some.
WAIT_S = 2
AWS_FAILURES = (ClientError, BotoCoreError, TimeoutError)
#: Jobs that are looked at in one call: those sent first are begun first, so that one look is mostly enough.
LOOK_AT = 50


@dataclass(slots=True)
class Gate:
    """Lets jobs through while fewer than `most` of them wait in the endpoint."""

    endpoint: Endpoint
    jobs: JobStore
    batches: BatchStore
    sqs: SQSClient
    queue_url: str
    most: int
    wait_s: int = WAIT_S
    now: Callable[[], float] = time.monotonic
    _sent: dict[str, float] = field(default_factory=dict)

    def free(self) -> int:
        """How many may go through now."""
        self._forget_begun()
        return max(0, self.most - len(self._sent))

    def let_through(self, free: int) -> int:
        """So many, up to ten; answers how many messages are dealt with."""
        answer = self.sqs.receive_message(
            QueueUrl=self.queue_url, MaxNumberOfMessages=min(free, MAX_AT_ONCE), WaitTimeSeconds=self.wait_s
        )
        sources = [(message, queued_job_of(_parsed(message["Body"]))) for message in answer.get("Messages", [])]
        try:
            known = self.jobs.many([source.job_id for _, source in sources if source is not None])
        except AWS_FAILURES:
            log.exception("jobs of batches were not sent on: the table does not answer")
            return 0
        return sum(self._forward(message, source, known) for message, source in sources)

    def _forget_begun(self) -> None:
        """Those that a worker has begun, that were parked or canceled, or that have expired in the endpoint."""
        oldest = self.now() - REQUEST_TTL_S
        while self._sent:
            first = list(self._sent)[:LOOK_AT]
            known = self.jobs.many(first)
            gone = [
                job_id
                for job_id in first
                if self._sent[job_id] < oldest or job_id not in known or not known[job_id].waits_in_queue
            ]
            for job_id in gone:
                del self._sent[job_id]
            if not gone:
                return

    def _forward(self, message: MessageTypeDef, job: QueuedJob | None, known: Mapping[str, JobState]) -> bool:
        """Sent before it is deleted: a job that is sent twice runs once, and one that is not sent comes again."""
        if job is None:
            log.error("a message that is no job of a batch is left for the dead-letter queue")
            return False
        try:
            state = known.get(job.job_id)
            if state is not None and state.may_begin and not hold_back(self.jobs, self.batches, job):
                self.endpoint.send(job.job_id, str(job.address), extra_data=job.extra_data)
                self._sent[job.job_id] = self.now()
            self.sqs.delete_message(QueueUrl=self.queue_url, ReceiptHandle=message["ReceiptHandle"])
        except AWS_FAILURES:
            log.exception("a job of a batch was not sent on", job_id=job.job_id)
            return False
        return True


def _parsed(body: str) -> Any:  # noqa: ANN401
    try:
        return json.loads(body)
    except (ValueError, RecursionError):
        return None


@functools.cache
def gate() -> Gate:
    """The endpoint and the queue of this process."""
    settings = Settings.from_environment()
    if settings.endpoint_name is None or settings.batch_queue_url is None or settings.jobs_table is None:
        raise InvalidSetting("ENDPOINT_NAME, BATCH_QUEUE_URL and JOBS_TABLE must be set on this function")
    table = Table(create_table_client(), settings.jobs_table)
    return Gate(
        Endpoint.at(settings.endpoint_name),
        JobStore(table, lease_s=settings.lease_s, max_runs=settings.max_runs),
        BatchStore(table),
        create_client(),
        settings.batch_queue_url,
        settings.max_waiting_batch_jobs,
    )


def handler(_event: object, context: Any) -> dict[str, int]:  # noqa: ANN401  (Lambda's context)
    """Let jobs through until nothing waits any more, or the time is over; answers how many messages that were."""
    count = 0
    while context.get_remaining_time_in_millis() / 1000 > RESERVE_S + PAUSE_S:
        if free := gate().free():
            gone = gate().let_through(free)
            count += gone
            if gone == 0:
                break
        else:
            time.sleep(PAUSE_S)
    return {"messages": count}
