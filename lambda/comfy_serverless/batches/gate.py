"""The gate before an endpoint: it lets as many jobs of batches pass as the endpoint can run."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from botocore.exceptions import BotoCoreError, ClientError

from comfy_serverless.batches.store import BatchStore, hold_back
from comfy_serverless.jobs.message import JobMessage
from comfy_serverless.observability import log
from comfy_serverless.table.dispatch import REQUEST_TTL_S, Endpoint
from comfy_serverless.table.jobs import JobStore

if TYPE_CHECKING:
    from mypy_boto3_sqs import SQSClient
    from mypy_boto3_sqs.type_defs import MessageTypeDef

    from comfy_serverless.table.job_state import JobState

#: SQS's own limit for one call.
MAX_AT_ONCE = 10
#: How long a call waits for messages, in seconds. Without waiting, it may return none although there are some.
WAIT_S = 2
AWS_FAILURES = (ClientError, BotoCoreError, TimeoutError)
#: Jobs that are read in one call: those sent first are begun first, so that one call is mostly enough.
READ_AT_ONCE = 50


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
        """How many jobs may pass now."""
        self._forget_begun()
        return max(0, self.most - len(self._sent))

    def let_through(self, free: int) -> int:
        """Let at most this many jobs pass, up to ten; returns how many messages are dealt with."""
        answer = self.sqs.receive_message(
            QueueUrl=self.queue_url, MaxNumberOfMessages=min(free, MAX_AT_ONCE), WaitTimeSeconds=self.wait_s
        )
        sources = [(message, JobMessage.parse(message["Body"])) for message in answer.get("Messages", [])]
        try:
            known = self.jobs.many([source.job_id for _, source in sources if source is not None])
        except AWS_FAILURES:
            log.exception("jobs of batches were not sent on: the table does not answer")
            return 0
        return sum(self._forward(message, source, known) for message, source in sources)

    def _forget_begun(self) -> None:
        """Forget jobs that a worker has begun, that were parked or canceled, or that have expired in the endpoint."""
        oldest = self.now() - REQUEST_TTL_S
        while self._sent:
            first = list(self._sent)[:READ_AT_ONCE]
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

    def _forward(self, message: MessageTypeDef, job: JobMessage | None, known: Mapping[str, JobState]) -> bool:
        """Send a job, then delete its message: a job sent twice runs once, and one that is not sent comes again."""
        if job is None:
            log.error("a message that is no job of a batch is left for the dead-letter queue")
            return False
        try:
            state = known.get(job.job_id)
            if state is not None and state.may_begin and not hold_back(self.jobs, self.batches, job):
                self.endpoint.send(job)
                self._sent[job.job_id] = self.now()
            self.sqs.delete_message(QueueUrl=self.queue_url, ReceiptHandle=message["ReceiptHandle"])
        except AWS_FAILURES:
            log.exception("a job of a batch was not sent on", job_id=job.job_id)
            return False
        return True
