"""The Lambda function between a queue of batch jobs and a SageMaker endpoint: it lets through what that can run.

An endpoint has one queue, first come, first served: a batch in it would keep everybody waiting. So the batch waits
before it, and only so many of its jobs are in the endpoint that no instance runs dry.

Started each minute, one at a time (reserved concurrency of 1), it takes messages itself: a queue that invokes a
function would count each message that has to wait as delivered, and put it aside in the end.
"""

from __future__ import annotations

import functools
import json
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from botocore.exceptions import BotoCoreError, ClientError

from comfy_serverless.handlers.events import queued_job_of
from comfy_serverless.jobs.dispatch import TARGET_KNOWN_S, Endpoint, create_client
from comfy_serverless.observability import log
from comfy_serverless.settings import InvalidSetting, Settings

if TYPE_CHECKING:
    from mypy_boto3_sqs import SQSClient
    from mypy_boto3_sqs.type_defs import MessageTypeDef

#: Between two looks while there is no room, or nothing waits, in seconds.
PAUSE_S = 5
#: Kept back of an invocation, in seconds.
RESERVE_S = 5.0
#: SQS's own limit for one call.
MAX_AT_ONCE = 10


@dataclass(slots=True)
class Gate:
    """Lets jobs through while fewer than `most` wait in the endpoint.

    What was sent lately counts too: the endpoint's own figure is a minute or two old.
    """

    endpoint: Endpoint
    sqs: SQSClient
    queue_url: str
    most: int
    now: Callable[[], float] = time.monotonic
    _sent: list[float] = field(default_factory=list)

    def free(self) -> int:
        """How many may go through now."""
        since = self.now() - 2 * TARGET_KNOWN_S
        self._sent = [moment for moment in self._sent if moment >= since]
        return max(0, self.most - self.endpoint.depth() - len(self._sent))

    def let_through(self) -> int:
        """As many as there is room for, up to ten; answers how many have gone."""
        free = min(self.free(), MAX_AT_ONCE)
        if free == 0:
            return 0
        answer = self.sqs.receive_message(QueueUrl=self.queue_url, MaxNumberOfMessages=free)
        return sum(self._forward(message) for message in answer.get("Messages", []))

    def _forward(self, message: MessageTypeDef) -> bool:
        """Sent before it is deleted: a job that is sent twice runs once, and one that is not sent comes again."""
        job = queued_job_of(_parsed(message["Body"]))
        if job is None:
            log.error("a message that is no job of a batch is left for the dead-letter queue")
            return False
        try:
            self.endpoint.send(job.job_id, str(job.address), extra_data=job.extra_data)
            self._sent.append(self.now())
            self.sqs.delete_message(QueueUrl=self.queue_url, ReceiptHandle=message["ReceiptHandle"])
        except (ClientError, BotoCoreError):
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
    if settings.endpoint_name is None or settings.batch_queue_url is None:
        raise InvalidSetting("ENDPOINT_NAME and BATCH_QUEUE_URL must be set on this function")
    endpoint = Endpoint.at(settings.endpoint_name)
    return Gate(endpoint, create_client(), settings.batch_queue_url, settings.max_waiting_batch_jobs)


def handler(_event: object, context: Any) -> dict[str, int]:  # noqa: ANN401  (Lambda's context)
    """Let jobs through until the invocation's time is over; answers how many."""
    count = 0
    while context.get_remaining_time_in_millis() / 1000 > RESERVE_S + PAUSE_S:
        gone = gate().let_through()
        count += gone
        if gone < MAX_AT_ONCE:
            time.sleep(PAUSE_S)
    return {"sent": count}
